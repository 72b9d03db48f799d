"""How much work planning may take: counted in operations, so that it ends alike on every machine.

One unit is about what one core of 2024 does in a second.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger("geojax.planning")

TELL_S = 3.0  # wall time between two lines about planning that takes its time


class Effort:
    """Work that is left.

    Args:
      seconds: all of it, in units of about a second.
      what: is planned, for the log; empty: nothing is told.
      clock: real time, s; it decides only what is told.
    """

    def __init__(
        self, seconds: float, what: str = "", clock: Callable[[], float] = time.monotonic
    ):  # fmt: skip
        self._whole, self.left = seconds, seconds
        self._parent: Effort | None = None
        self._what, self._clock, self._told = what, clock, clock()

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return self.left <= 0

    def part(self, share: float) -> Effort:
        """A share of all of it; what is spent of the part is spent of the whole."""
        part = Effort(min(self.left, share * self._whole))
        part._parent = self
        return part

    def spend(self, seconds: float) -> None:
        """Takes note of work that is about to be done."""
        self.left -= seconds
        if self._parent is not None:
            self._parent.spend(seconds)
        if self._what and self._clock() - self._told >= TELL_S:
            self._told = self._clock()
            done = 100 * min(1.0, 1 - self.left / self._whole)
            log.info("planning %s: %.0f %% of overlay.effort is spent", self._what, done)
