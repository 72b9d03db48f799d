"""What members hold, and which rounds they are granted: of all in common, or center by center."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from geojax.config import RunConfig
from geojax.hips.cluster import Places
from geojax.hips.control.grants import AHEAD, Grants

_AHEAD_OF_CHANGES = 2  # where policies may change, or the run ends once it has reached its target
# Beside rounds that last so long, s, the round trip of a grant is little, so that none is granted
# before somebody holds the one in front of it: a new policy waits for the round at work alone.
_LONG_ROUND_S = 10.0
_AHEAD_ALONE = 8  # rounds granted ahead to one center while time limits the run
_AT_A_PACE = ("server", "worker")  # roles that make rounds


class Granting:
    """Keeps count of the rounds that members hold, and extends their grants.

    Args:
      config: the run.
      places: all nodes.
      first: the first round of the run.
      independent: every center has rounds and a grant of its own.
      replans: policies may change between rounds.

    Attributes:
      held: the last round that each living node is known to hold.
      highest: the last round that anyone ever held.
      common: the grants of all; of no account where they are independent.
    """

    def __init__(
        self, config: RunConfig, places: Places, *, first: int, independent: bool, replans: bool
    ):
        self._config, self._places, self._first = config, places, first
        self._independent, self._replans = independent, replans
        self.held: dict[str, int] = {}
        self.highest = first - 1
        self.common = self._new(first)
        self._timed, self._since = self.highest, 0.0  # the last round that was timed; its end, s
        self._of: dict[str, Grants] = {}  # by center, where they are independent

    def told(self, name: str) -> dict[str, Any]:
        """What a member is told of its grant."""
        grants = self._for(name)
        return {"until": grants.until, "final": grants.final}

    def note(self, name: str, held: int) -> None:
        """A member holds this round."""
        self.held[name] = held
        self.highest = max(self.highest, held)

    def extend(self, name: str, now: float) -> None:
        """Extends the grant of a member that has told what it holds, and of all that share it."""
        if not self._independent:
            held = max(self.held.values(), default=-1)
            if self._replans and held > self._timed:
                self._timed, self._since, lasted = held, now, now - self._since
                self.common.ahead = 1 if lasted >= _LONG_ROUND_S else _AHEAD_OF_CHANGES
            self.common.extend(held, now)
        elif self._places.place(name).role in _AT_A_PACE:
            self._for(name).extend(self.held[name], now)

    def finish(self) -> None:
        """Nobody is granted more than now."""
        for grants in (self.common, *self._of.values()):
            grants.finish()

    def keep(self, left: Collection[str]) -> None:
        """Forgets what others than these hold."""
        self.held = {name: held for name, held in self.held.items() if name in left}

    def begin_anew(self, center: str, now: float) -> None:
        """Grants rounds behind the highest to an independent center that comes back ``now``."""
        self._of[center] = self._new(self.highest + 1, now)

    def _for(self, name: str) -> Grants:
        if not self._independent:
            return self.common
        center = self._places.place(name).center
        if center not in self._of:
            self._of[center] = self._new(self._first)
        return self._of[center]

    def _new(self, first: int, now: float | None = None) -> Grants:
        """Grants from round ``first`` on; with ``now``, of a center that begins with it then."""
        since = (0, 0.0) if now is None else (first, now)
        rounds, limit = self._config.rounds, self._config.max_time_s
        # A bound on staleness makes a fast center wait, until slow ones have ended and it rushes.
        ahead = _AHEAD_ALONE if self._independent and limit is not None else AHEAD
        ahead = _AHEAD_OF_CHANGES if self._replans or self._config.stop_at_target else ahead
        return Grants(rounds, limit, first=first, since=since, ahead=ahead)
