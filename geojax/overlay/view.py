"""What is believed about the WAN now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Edge = tuple[str, str]


@dataclass(frozen=True)
class NetworkView:
    """Directed rates and delays between centers, known (oracle) or measured; one type for both.

    Attributes:
      centers: all centers of the WAN, in the order of its description.
      rate: bit/s of each directed link; a pair that is absent has no link.
      delay: one-way propagation delay of each directed link, s.
      egress: access cap out of a center over all its links, bit/s; absent: none.
      ingress: access cap into a center, bit/s; absent: none.
      age: seconds since each link's rate was last measured; absent: known exactly.
    """

    centers: tuple[str, ...]
    rate: Mapping[Edge, float]
    delay: Mapping[Edge, float]
    egress: Mapping[str, float] = field(default_factory=dict)
    ingress: Mapping[str, float] = field(default_factory=dict)
    age: Mapping[Edge, float] = field(default_factory=dict)

    def neighbours(self, center: str) -> tuple[str, ...]:
        """Centers that ``center`` has a link to, in WAN order."""
        return tuple(other for other in self.centers if (center, other) in self.rate)
