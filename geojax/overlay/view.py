"""What is believed about the WAN now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

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
      relayed: members without a link of their own send chunks over others, by the fastest path
        (``overlay.routes=fastest``); else packets find their way by fewest hops.
    """

    centers: tuple[str, ...]
    rate: Mapping[Edge, float]
    delay: Mapping[Edge, float]
    egress: Mapping[str, float] = field(default_factory=dict)
    ingress: Mapping[str, float] = field(default_factory=dict)
    age: Mapping[Edge, float] = field(default_factory=dict)
    relayed: bool = False

    def neighbours(self, center: str) -> tuple[str, ...]:
        """Centers that ``center`` has a link to, in WAN order."""
        return tuple(other for other in self.centers if (center, other) in self.rate)

    def with_rates(self, rates: Mapping[Edge, float]) -> NetworkView:
        """The same WAN where some links have other rates, bit/s; links that it lacks stay away."""
        known = {edge: rate for edge, rate in rates.items() if edge in self.rate}
        return replace(self, rate={**self.rate, **known}) if known else self

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        by_link = {"rate": self.rate, "delay": self.delay, "age": self.age}
        return {
            "centers": list(self.centers),
            **{key: [[*edge, value] for edge, value in of.items()] for key, of in by_link.items()},
            "egress": dict(self.egress),
            "ingress": dict(self.ingress),
            "relayed": self.relayed,
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> NetworkView:
        """The inverse of :meth:`to_dict`.

        >>> view = NetworkView(("a", "b"), {("a", "b"): 1e6}, {("a", "b"): 0.01}, {"a": 2e6})
        >>> NetworkView.from_dict(view.to_dict()) == view
        True
        """
        by_link = {
            key: {(source, target): value for source, target, value in values[key]}
            for key in ("rate", "delay", "age")
        }
        return NetworkView(
            tuple(values["centers"]),
            egress=values["egress"],
            ingress=values["ingress"],
            relayed=values["relayed"],
            **by_link,
        )
