"""Logical links: what a message from one member to another meets along its route."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from geojax.overlay.routes.static_routes import routes
from geojax.overlay.view import Edge, NetworkView

ELEMENT_BITS = 32  # float32
CHUNK_ELEMENTS = 65_536  # of a full chunk, where nobody says
# A link that is out counts as one bit a second: the last resort, and nothing divides by zero.
OUTAGE_RATE = 1.0


@dataclass(frozen=True)
class LogicalLinks:
    """Links between members, ``[from, to]`` by position among them; no link: rate 0, delay inf.

    Attributes:
      members: in their fixed order.
      rate: what one flow gets along the route, bit/s: its slowest link or access cap.
      delay: one way along the route, s.
      age: of the oldest figure on the route, s; 0: known exactly, inf: never measured.
    """

    members: tuple[str, ...]
    rate: np.ndarray
    delay: np.ndarray
    age: np.ndarray

    def seconds(self, elements: int, *, processing_s: float = 0.0) -> np.ndarray:
        """Time from sending a chunk to having it processed, s; inf where there is no link.

        ``s / rate + λ + π``: a chunk of ``s`` bits over a route of delay λ, to a member that takes
        π seconds to add it.
        """
        with np.errstate(divide="ignore"):
            return elements * ELEMENT_BITS / self.rate + self.delay + processing_s


def packet_links(view: NetworkView, members: Sequence[str]) -> LogicalLinks:
    """The links between all ordered pairs of members, along packets' routes over the whole view.

    A center that is no member has still got its gateway: packets pass it as they pass any router.

    Raises:
      ConfigError: if some center cannot reach another one.

    >>> path = [("a", "b"), ("b", "c"), ("c", "b"), ("b", "a")]
    >>> view = NetworkView(("a", "b", "c"), dict(zip(path, [8e6, 4e6, 4e6, 8e6])), {})
    >>> packet_links(view, ["a", "c"]).rate.tolist()
    [[0.0, 4000000.0], [4000000.0, 0.0]]
    """
    paths = routes(view)
    return _links(view, members, (paths[pair] for pair in itertools.permutations(members, 2)))


def neighbour_links(view: NetworkView, members: Sequence[str]) -> LogicalLinks:
    """The same for pairs whose route has no other member on it.

    When all centers are members, these are the WAN's links. When some are not, a route through
    them is one more link. A path of such links leads from every member to every other one.
    """
    paths = routes(view)
    among = set(members)
    if among.issuperset(view.centers):
        return _links(view, members, view.rate)
    found = (paths[pair] for pair in itertools.permutations(members, 2))
    return _links(view, members, (path for path in found if among.isdisjoint(path[1:-1])))


def _links(
    view: NetworkView, members: Sequence[str], paths: Iterable[tuple[str, ...]]
) -> LogicalLinks:
    position = {member: index for index, member in enumerate(members)}
    shape = len(members), len(members)
    rate, delay, age = np.zeros(shape), np.full(shape, np.inf), np.zeros(shape)
    for path in paths:
        here = position[path[0]], position[path[-1]]
        crossed = list(itertools.pairwise(path))
        rate[here] = min(_hop_rate(view, edge) for edge in crossed)
        delay[here] = sum(view.delay.get(edge, 0.0) for edge in crossed)
        age[here] = max(view.age.get(edge, 0.0) for edge in crossed)
    return LogicalLinks(tuple(members), rate, delay, age)


def _hop_rate(view: NetworkView, edge: Edge) -> float:
    source, target = edge
    caps = view.egress.get(source, np.inf), view.ingress.get(target, np.inf)
    return max(OUTAGE_RATE, min(view.rate[edge], *caps))
