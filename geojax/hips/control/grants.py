"""For which rounds members may go ahead.

Policies are granted for rounds [a, b) and extended ahead on heartbeat replies, so there is no
barrier per round. The same mechanism ends a run: a grant that is final is never extended.
"""

from __future__ import annotations

AHEAD = 64  # rounds granted ahead when time does not limit the run
_FIRST = 2  # rounds granted before the first one was timed; they may outlast the time limit


class Grants:
    """Decides how far ahead to grant.

    Args:
      rounds: rounds of the run.
      max_time_s: experiment time after which no round should start; None: no limit.
      first: number of the first round of this run; more than 0 when it continues another.
      since: round, and experiment time of its start, from which on the pace is counted; for a
        member that comes back and has not made the rounds before.
      ahead: most rounds granted ahead; may be set anew. They may outlast the time limit when the
        pace changes.
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

        (Of those for whom the grant is: all members, or where they go at paces of their own, the
        nodes of one center.)

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
