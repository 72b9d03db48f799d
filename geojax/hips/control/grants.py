"""Which rounds members may begin.

Policies are granted for rounds [a, b) and extended ahead on heartbeat replies, so there is no
barrier per round. The same mechanism ends a run: a grant that is final is never extended.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from geojax.config import RunConfig
from geojax.errors import Refused
from geojax.hips.cluster import Cluster

AHEAD = 64  # rounds granted ahead when time does not limit the run
_FIRST = 2  # rounds granted before the first one was timed; they may outlast the time limit


class Grant:
    """Decides how far ahead to grant.

    Args:
      rounds: rounds of the run.
      max_time_s: experiment time after which no round should start; None: no limit.
      first: number of the first round of this run; more than 0 when it continues another.
      since: the round, and the experiment time of its start, from which the pace is measured; a
        member that comes back did not make the rounds before it.
      ahead: most rounds granted ahead; may be changed later. They may outlast the time limit when
        the pace changes.
    """

    def __init__(
        self,
        rounds: int,
        max_time_s: float | None,
        *,
        first: int = 0,
        since: tuple[int, float] = (0, 0.0),
        ahead: int = AHEAD,
    ):
        self._rounds, self._max_time = rounds, max_time_s
        self._since, self.ahead = since, ahead
        self.until = min(rounds, first + (ahead if max_time_s is None else _FIRST))
        self.final = self.until == rounds

    def finish(self) -> None:
        """What was granted so far is all; for a run that has reached what it was to reach."""
        self.final = True

    def extend(self, held: int, now: float) -> None:
        """Extends the grant, knowing that round ``held`` is the highest that anyone holds.

        The grant is for all members or, where centers go at their own paces, for one center.

        With a time limit the grant reaches half of the rounds that, at the pace so far, are left
        before it, and at least one; after the limit it becomes final.
        """
        if self.final:
            return
        done = held + 1
        begun, at = self._since
        if self._max_time is None:
            until = done + self.ahead
        elif now >= self._max_time:
            self.final = True
            return
        elif done <= begun or now <= at:
            return
        else:
            left = (self._max_time - now) * (done - begun) / (now - at)
            until = done + max(1, int(min(left / 2, self.ahead)))
        self.until = max(self.until, min(until, self._rounds))
        self.final = self.until == self._rounds


_AHEAD_OF_CHANGES = 2  # where policies may change, or the run ends once it has reached its target
# The round trip of a grant is short compared with rounds of at least so many s. Then a round is
# granted only when somebody holds the one before it: a new policy waits for one round alone.
_LONG_ROUND_S = 10.0
_AHEAD_ALONE = 8  # rounds granted ahead to one center while time limits the run
_AT_A_PACE = ("server", "worker")  # roles that make rounds


class Grants:
    """Keeps count of the rounds that members hold, and extends their grants.

    Args:
      config: the run.
      cluster: all nodes.
      first: the first round of the run.
      independent: every center has rounds and a grant of its own.
      replans: policies may change between rounds.
      after: where a broken run goes on, the last round of each independent center; others in it do
        not count.

    Attributes:
      held: the last round that each living node is known to hold.
      highest: the last round that anyone ever held.
      common: the grant of all members; unused where centers are independent.
      done: the members that have said that they hold the last granted round.
    """

    def __init__(
        self, config: RunConfig, cluster: Cluster, *, first: int, independent: bool, replans: bool,
        after: Mapping[str, int] | None = None,
    ):  # fmt: skip
        self._config, self._cluster, self._first = config, cluster, first
        self._independent, self._replans = independent, replans
        self.held: dict[str, int] = {}
        self._most: int | None = None  # the highest of these, where it is known
        self.done: set[str] = set()
        self._after = {name: n for name, n in (after or {}).items() if name in cluster.servers}
        self.highest = max(self._after.values(), default=first - 1)
        self.common = self._new(first)
        self._timed, self._since = self.highest, 0.0  # the last round that was timed; its end, s
        self._of: dict[str, Grant] = {}  # by center, where they are independent

    def told(self, name: str) -> dict[str, Any]:
        """What a member is told of its grant: fields of messages."""
        grant = self._for(name)
        return {"until": grant.until, "final": grant.final}

    def check(self, name: str, held: int, *, done: bool = False) -> None:
        """Raises ``Refused`` if a center or worker cannot hold this round, or be ``done`` with it.

        It holds no round that it was not granted; it is done when it holds the last one.
        """
        grant = self._for(name)
        if held >= grant.until:
            raise Refused(f"holds round {held}, but was granted none from {grant.until} on")
        if done and (not grant.final or held < grant.until - 1):
            final = "the last one" if grant.final else "and may be granted more"
            raise Refused(f"is done with round {held}: was granted {grant.until - 1}, {final}")

    def note(self, name: str, held: int) -> None:
        """A member holds this round."""
        before = self.held.get(name)
        self.held[name] = held
        self.highest = max(self.highest, held)
        if self._most is not None and held >= self._most:
            self._most = held
        elif before == self._most:
            self._most = None

    def lower(self, name: str, held: int) -> None:
        """A member holds no more than this round after all."""
        self.held[name], self._most = held, None

    def extend(self, name: str, now: float) -> None:
        """Extends a member's grant, which others may share, by what they are known to hold."""
        if not self._independent:
            if self._most is None:
                self._most = max(self.held.values(), default=-1)
            held = self._most
            if self._replans and held > self._timed:
                self._timed, self._since, lasted = held, now, now - self._since
                self.common.ahead = 1 if lasted >= _LONG_ROUND_S else _AHEAD_OF_CHANGES
            self.common.extend(held, now)
        elif self._cluster.node(name).role in _AT_A_PACE:
            self._for(name).extend(self.held[name], now)

    def finish(self) -> None:
        """Nobody is granted more than now."""
        for grants in (self.common, *self._of.values()):
            grants.finish()

    def keep(self, left: Collection[str]) -> None:
        """Forgets what others than these hold."""
        self.held = {name: held for name, held in self.held.items() if name in left}
        self._most = None

    def begin_anew(self, center: str, now: float) -> None:
        """Grants an independent center that comes back ``now`` the rounds after the highest."""
        self._of[center] = self._new(self.highest + 1, now)

    def _for(self, name: str) -> Grant:
        if not self._independent:
            return self.common
        center = self._cluster.node(name).center
        if center not in self._of:
            self._of[center] = self._new(self._after.get(center, self._first - 1) + 1)
        return self._of[center]

    def _new(self, first: int, now: float | None = None) -> Grant:
        """A grant from round ``first`` on; ``now``: when a center begins with that round, s."""
        since = (0, 0.0) if now is None else (first, now)
        rounds, limit = self._config.rounds, self._config.max_time_s
        # A bound on staleness makes a fast center wait, until slow ones have ended and it rushes.
        ahead = _AHEAD_ALONE if self._independent and limit is not None else AHEAD
        ahead = _AHEAD_OF_CHANGES if self._replans or self._config.stop_at_target else ahead
        return Grant(rounds, limit, first=first, since=since, ahead=ahead)
