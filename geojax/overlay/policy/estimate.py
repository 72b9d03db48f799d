"""How long a synchronization along a policy would take: an estimate to compare policies by."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from geojax.overlay.policy.placement import place
from geojax.overlay.policy.policy import Policy, Tree
from geojax.overlay.routes.fastest_routes import fastest_routes
from geojax.overlay.routes.logical import ELEMENT_BITS
from geojax.overlay.routes.static_routes import routes
from geojax.overlay.view import NetworkView


class Estimate(NamedTuple):
    """What a policy is believed to take; inf where it needs a link that is out.

    Attributes:
      seconds: until all members hold the result of what all offered at once.
      busiest_s: what the busiest link or access cap needs for its load alone.
    """

    seconds: float
    busiest_s: float


def estimate(
    policy: Policy, view: NetworkView, sizes: Sequence[int], layers: Sequence[int] = ()
) -> Estimate:
    """The estimated sync time of a policy on a WAN.

    A resource r (a directed link, an access cap) of c_r bit/s carries L_r bits: every chunk whose
    tree has an edge over it, once for each such edge. An edge between members that have no link of
    their own takes every link of its route (:mod:`geojax.overlay.routes.static_routes`, or
    :mod:`geojax.overlay.routes.fastest_routes` where members relay). A chunk of
    b bits takes w_e = b / min c_r + λ_e along edge e, and waits there until all the edge has to
    carry is through; so for a path p from a member up to its root and down to a member ::

        T_p = Σ_{e in p} w_e + max_{e in p} (max_{r on e} L_r / c_r - b / min_{r on e} c_r)
        T   = max_p T_p

    with b the largest chunk of the tree: one edge of a path is kept busy all the time, over the
    others the first or the last chunk has to come alone. That is exact for a single tree whose
    chunks follow each other without a gap, and never less than the busiest resource needs. What
    several trees lose by waiting for each other, and what a machine takes to sum, is not in it.

    Args:
      policy: its trees.
      view: the WAN, as it is believed to be.
      sizes: elements of each chunk, float32.
      layers: elements of each layer, for placements that go by them.

    Raises:
      ConfigError: some center cannot reach another one.

    >>> view = NetworkView(("a", "b"), {("a", "b"): 32e3, ("b", "a"): 32e3}, {})
    >>> policy = Policy(0, ("a", "b"), (Tree("a", {"b": "a"}),))
    >>> estimate(policy, view, [1000] * 3)  # three chunks of 1 s up; the last one down
    Estimate(seconds=4.0, busiest_s=3.0)
    """
    placed = place(policy, sizes, layers)
    carried, largest = [0] * len(policy.trees), [0] * len(policy.trees)
    for size, tree in zip(sizes, placed, strict=True):
        carried[tree] += size
        largest[tree] = max(largest[tree], size)
    paths = _Paths(view, policy.members)
    used = [at for at, elements in enumerate(carried) if elements]
    for at in used:
        for source, target in _edges(policy.trees[at]):
            paths.load(source, target, carried[at] * ELEMENT_BITS)
    busiest = paths.busiest()
    if math.isinf(busiest):
        return Estimate(math.inf, math.inf)
    slowest = [paths.longest(policy.trees[at], largest[at] * ELEMENT_BITS) for at in used]
    return Estimate(max([busiest, *slowest]), busiest)


def _edges(tree: Tree) -> Iterator[tuple[str, str]]:
    """The directed edges of a tree, up and down."""
    yield from tree.parent.items()
    for target, source in tree.source.items():
        yield source, target


class _Paths:
    """What lies on the edges between members, and what that has to carry."""

    def __init__(self, view: NetworkView, members: Sequence[str]):
        self._view, self._members = view, members
        self._routes: Mapping[tuple[str, str], tuple[str, ...]] | None = None
        self._capacity: dict[Hashable, float] = {
            **{("link", *edge): rate for edge, rate in view.rate.items()},
            **{("out", center): rate for center, rate in view.egress.items()},
            **{("in", center): rate for center, rate in view.ingress.items()},
        }
        self._load: dict[Hashable, float] = {}
        self._on: dict[tuple[str, str], tuple[tuple[Hashable, ...], float]] = {}

    def load(self, source: str, target: str, bits: float) -> None:
        """An edge has to carry so much more."""
        for resource in self._edge(source, target)[0]:
            self._load[resource] = self._load.get(resource, 0.0) + bits

    def busiest(self) -> float:
        """What the busiest resource needs, s; inf: one that is loaded carries nothing."""
        return max((self._needs(resource) for resource in self._load), default=0.0)

    def longest(self, tree: Tree, bits: float) -> float:
        """T_p of the slowest path in a tree; see :func:`estimate`."""
        up = [self._walk(_path(tree.parent, m), bits) for m in (tree.root, *tree.parent)]
        down = [self._walk(_path(tree.source, m)[::-1], bits) for m in (tree.root, *tree.source)]
        alone = max(alone for alone, _ in up), max(alone for alone, _ in down)
        with_queue = max(sum(path) for path in up), max(sum(path) for path in down)
        return max(with_queue[0] + alone[1], alone[0] + with_queue[1])

    def _walk(self, path: Sequence[str], bits: float) -> tuple[float, float]:
        """Σ w_e of a path, and the largest wait on it beside."""
        alone, waits = 0.0, 0.0
        for source, target in pairwise(path):
            resources, delay = self._edge(source, target)
            crossing = bits / min(self._capacity[resource] for resource in resources)
            alone += crossing + delay
            waits = max(waits, max(map(self._needs, resources)) - crossing)
        return alone, waits

    def _needs(self, resource: Hashable) -> float:
        rate = self._capacity[resource]
        return self._load[resource] / rate if rate > 0 else math.inf

    def _path(self, edge: tuple[str, str]) -> tuple[str, ...]:
        """The centers that an edge between members without a link leads over."""
        packets = routes(self._view)
        if not self._view.relayed:
            return packets[edge]
        if self._routes is None:
            self._routes = fastest_routes(self._view, self._members)
        path = self._routes[edge]
        return (path[0], *(c for hop in pairwise(path) for c in packets[hop][1:]))

    def _edge(self, source: str, target: str) -> tuple[tuple[Hashable, ...], float]:
        """The resources of an edge, and its delay."""
        edge = source, target
        if edge not in self._on:
            # a link of their own: the fewest hops there are; spares the search for routes
            path = edge if edge in self._view.rate else self._path(edge)
            hops = list(pairwise(path))
            resources = (
                key
                for here, there in hops
                for key in (("link", here, there), ("out", here), ("in", there))
                if key in self._capacity
            )
            delay = sum(self._view.delay.get(hop, 0.0) for hop in hops)
            self._on[edge] = tuple(dict.fromkeys(resources)), delay
        return self._on[edge]


def _path(parent: Mapping[str, str], member: str) -> list[str]:
    """From a member to the root."""
    path = [member]
    while path[-1] in parent:
        path.append(parent[path[-1]])
    return path
