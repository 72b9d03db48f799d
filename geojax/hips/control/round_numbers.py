"""How the rounds of a run's groups are numbered: in common, or by each member on its own."""

from __future__ import annotations

from typing import NamedTuple

from geojax.hips.cluster import WAN_GROUP


class RoundNumbers(NamedTuple):
    """The numbers of rounds.

    Attributes:
      lan_rounds: exchanges within a center in one round of the WAN.
      skips: there may be fewer, as is decided while a round runs; then numbers are skipped.
      independent: centers go at paces of their own: each counts its rounds, and none runs again.
      workers_alone: so do the workers of a center.

    >>> numbers = RoundNumbers(lan_rounds=3)
    >>> [numbers.of_wan(1, number) for number in (-1, 1, 2, 5)]
    [-1, -1, 0, 1]
    >>> numbers.of_wan(WAN_GROUP, 5), numbers.last_in_center(1)
    (5, 5)
    """

    lan_rounds: int = 1
    skips: bool = False
    independent: bool = False
    workers_alone: bool = False

    def alone(self, group: int) -> bool:
        """Whether every member of a group counts rounds of its own."""
        return self.independent if group == WAN_GROUP else self.workers_alone

    def of_wan(self, group: int, number: int) -> int:
        """The last round of the WAN that is over when round ``number`` of a group is."""
        return number if group == WAN_GROUP else (number + 1) // self.lan_rounds - 1

    def last_in_center(self, number: int) -> int:
        """The last LAN round of a round of the WAN."""
        return (number + 1) * self.lan_rounds - 1
