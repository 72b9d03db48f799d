"""The paths of messages that members relay: the fastest, where two have no link of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from geojax.overlay.routes.fastest_paths import distances, tree_to
from geojax.overlay.routes.logical import (
    OUTAGE_RATE,
    LogicalLinks,
    neighbour_links,
    packet_links,
)
from geojax.overlay.view import Edge, NetworkView


def fastest_routes(
    view: NetworkView, members: Sequence[str], links: LogicalLinks | None = None
) -> Mapping[Edge, tuple[str, ...]]:
    """The path of every ordered pair of members: their link, or else the least sum of 1 / rate.

    NetStorm's release sends what one server has for another along such paths, and its servers relay
    (``find_tree_path``). Paths to one member agree: the rest of a path is the path of the next
    member on it, unless the two have a link. Of equally fast ones, the next member is the first in
    order. Between neighbours packets take the network's own route; where that is out, the paths of
    others go round it.

    Args:
      view: the WAN as it is believed to be.
      members: who relays.
      links: between neighbours, if they are there already.

    >>> rates = {("a", "b"): 9e6, ("b", "d"): 9e6, ("a", "c"): 1e6, ("c", "d"): 1e6}
    >>> rates |= {(to, come): rate for (come, to), rate in rates.items()}
    >>> view = NetworkView(("a", "c", "b", "d"), rates, {})
    >>> fastest_routes(view, view.centers)["a", "d"]
    ('a', 'b', 'd')
    """
    return _FastestRoutes(neighbour_links(view, members) if links is None else links)


class _FastestRoutes(Mapping[Edge, tuple[str, ...]]):
    """Routes by target; those to one are worked out when a path without a link is asked for.

    Args:
      links: between neighbours.
    """

    def __init__(self, links: LogicalLinks):
        self._members = links.members
        self._position = {member: index for index, member in enumerate(links.members)}
        with np.errstate(divide="ignore"):
            self._seconds = 1.0 / links.rate
        self._linked = np.isfinite(self._seconds)
        self._up = self._linked & (links.rate > OUTAGE_RATE)
        self._length: np.ndarray | None = None  # of the fastest paths, [target, from]
        self._onward: dict[int, tuple[list[bool], list[int]]] = {}  # by target

    def __getitem__(self, edge: Edge) -> tuple[str, ...]:
        source, target = (self._position[member] for member in edge)
        if source == target:
            raise KeyError(edge)
        if self._linked[source, target]:
            return edge
        goes_on, after = self._to(target)
        path = [source]
        while path[-1] != target:
            here = path[-1]
            path.append(target if goes_on[here] else after[here])
        return tuple(self._members[index] for index in path)

    def __iter__(self) -> Iterator[Edge]:
        for target in self._members:
            for source in self._members:
                if source != target:
                    yield source, target

    def __len__(self) -> int:
        return len(self._members) * (len(self._members) - 1)

    def _to(self, target: int) -> tuple[list[bool], list[int]]:
        """Which members have a link to ``target`` that is not out, and the next after each."""
        found = self._onward.get(target)
        if found is None:
            if self._length is None:
                self._length = distances(self._seconds.T)
            after = tree_to(self._seconds, self._length[target])
            found = self._onward[target] = self._up[:, target].tolist(), after.tolist()
        return found


def member_links(view: NetworkView, members: Sequence[str]) -> LogicalLinks:
    """The links between all ordered pairs of members, along the paths that their messages take.

    These are :func:`fastest_routes` where members relay (``view.relayed``), else the network's own
    (:func:`geojax.overlay.routes.logical.packet_links`). A relay takes a chunk whole before it
    sends it on, so that a chunk crosses the path's links one after the other: the rate is what many
    chunks get, one behind the other.
    """
    if not view.relayed:
        return packet_links(view, members)
    links = neighbour_links(view, members)
    position = {member: index for index, member in enumerate(members)}
    rate, delay, age = links.rate.copy(), links.delay.copy(), links.age.copy()
    for (source, target), path in fastest_routes(view, members, links).items():
        hops = pairwise(path)
        at = [(position[here], position[there]) for here, there in hops]
        end = position[source], position[target]
        rate[end] = min(links.rate[hop] for hop in at)
        delay[end] = sum(links.delay[hop] for hop in at)
        age[end] = max(links.age[hop] for hop in at)
    return LogicalLinks(tuple(members), rate, delay, age)
