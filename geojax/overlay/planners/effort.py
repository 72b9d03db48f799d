"""How much work planning may take: counted in operations, so that it ends alike on every machine.

One unit is about what one core of 2024 does in a second.
"""

from __future__ import annotations

import logging

log = logging.getLogger("geojax.planning")

_TELLS = 20  # times that a plan tells how far it is


class Effort:
    """Work that is left.

    Args:
      seconds: all of it, in units of about a second.
      what: is planned, for the log (level DEBUG: whoever listens knows how long it takes); empty:
        nothing is told.
    """

    def __init__(self, seconds: float, what: str = ""):
        self._whole, self.left, self._what = seconds, seconds, what
        self._parent: Effort | None = None
        self._told = -1

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
        if self._what:
            done = min(_TELLS, int(_TELLS * (1 - self.left / self._whole)))
            if done > self._told:
                self._told = done
                percent = 100 * done // _TELLS
                log.debug("planning %s: %d %% of overlay.effort is spent", self._what, percent)
