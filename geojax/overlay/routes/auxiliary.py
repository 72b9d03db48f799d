"""Path tables: the routes to a neighbour in a tree besides the network's own.

NetStorm's primary and auxiliary routes, for the trees of any overlay. The *primary* route of a
chunk to a parent or child is their link. Where they have none it is the fastest path over other
members (:mod:`geojax.overlay.routes.fastest_routes`), or, with ``overlay.routes=fewest_hops``, the
one that packets find. The auxiliary routes lead to the same neighbour
over other members, which relay chunks without looking into them; no two of a pair's routes share a
member in between.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from math import inf
from typing import NamedTuple

import numpy as np

from geojax.overlay.policy.policy import Policy
from geojax.overlay.routes.fastest_paths import block, disjoint_paths
from geojax.overlay.routes.fastest_routes import fastest_routes
from geojax.overlay.routes.logical import CHUNK_ELEMENTS, OUTAGE_RATE, neighbour_links
from geojax.overlay.routes.static_routes import routes
from geojax.overlay.view import NetworkView

KINDS = ("none", "fastest", "paced", "random")
MOST_ROUTES = 8  # of one pair: a full mesh has as many as members, and planning takes time


class Route(NamedTuple):
    """One route over other members.

    Attributes:
      hops: members from the sender to its neighbour, both among them.
      rate: of its slowest link, bit/s; the sender gives it no more; inf: no limit.
      primary: it is the primary one, the first of its neighbour's.
    """

    hops: tuple[str, ...]
    rate: float = inf
    primary: bool = False


PathTable = dict[str, tuple[Route, ...]]  # neighbour: routes to it, the fastest first


def path_tables(
    view: NetworkView,
    *policies: Policy,
    kind: str = "fastest",
    elements: int = CHUNK_ELEMENTS,
    seed: int = 0,
) -> dict[str, PathTable]:
    """Plans the auxiliary routes of every member for the chunks that policies have it send.

    A member sends sums to its parents and results to its receivers. For each such neighbour, the
    inner members of the primary route are excluded (or its link, if it has none). Then routes are
    taken greedily, the fastest of those left first, until none is left or there are
    ``MOST_ROUTES``. So they are the release's (``add_route``) wherever the primary route is the
    fastest. In the release the first path of its table is the primary one in both directions; here
    it is the tree's own link, and where a path of several links is faster than that (rates differ
    by direction), that path is the first auxiliary route. ``random``, the release's
    ``ENABLE_RANDOM``: each route is one that a depth-first search with neighbours in random order
    finds first; then they are sorted by time. ``paced``: the fastest ones, and nothing is sent on a
    route faster than its slowest link takes it. This is not in the release. It looks at the first
    hop's queue alone, so on a route with a fast link and then a slow one, chunks pile up at the
    relay between them.

    Links that are believed to be out are never used, and a root that is no center of the view (a
    global server on a site of its own) has no auxiliary routes.

    Args:
      view: the WAN as it is believed to be.
      policies: that rounds go by, all of the same members, who relay.
      kind: ``fastest``, ``paced`` or ``random``; ``none``: only primary routes.
      elements: of a chunk.
      seed: of random routes; equal seeds give equal routes.

    Returns:
      For every member the routes by neighbour; a neighbour without any has no entry.

    >>> from geojax.overlay.policy.policy import Tree
    >>> links = dict.fromkeys([("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")], 8e6)
    >>> links |= {("a", "c"): 1e6, ("c", "a"): 1e6}
    >>> policy = Policy(0, ("a", "b", "c"), (Tree("a", {"b": "a", "c": "b"}),))
    >>> tables = path_tables(NetworkView(("a", "b", "c"), links, {}), policy)
    >>> tables["b"]["c"]
    (Route(hops=('b', 'a', 'c'), rate=inf, primary=False),)
    """
    names = policies[0].members
    index = {name: at for at, name in enumerate(names)}
    links = neighbour_links(view, names)
    seconds = links.seconds(elements)
    seconds[links.rate <= OUTAGE_RATE] = np.inf
    paths = fastest_routes(view, names, links) if view.relayed else routes(view)
    tables: dict[str, PathTable] = {name: {} for name in names}
    for source, target in _pairs(policies):
        if source not in index or target not in index:
            continue
        primary = [index[name] for name in paths[source, target] if name in index]
        relayed = view.relayed and len(primary) > 2
        first = (Route(paths[source, target], primary=True),) if relayed else ()
        found: list[tuple[int, ...]] = []
        if kind == "random":
            found = _random(seconds, primary, seed=f"{seed}/{source}>{target}")
        elif kind != "none":
            free = seconds.copy()
            block(free, primary)
            found = disjoint_paths(free, primary[0], primary[-1], most=MOST_ROUTES)
        if first or found:
            tables[source][target] = first + tuple(
                Route(
                    tuple(names[at] for at in path),
                    min(float(links.rate[hop]) for hop in pairwise(path))
                    if kind == "paced" else inf,
                )
                for path in found
            )  # fmt: skip
    return tables


def _pairs(policies: Iterable[Policy]) -> list[tuple[str, str]]:
    """Sender and receiver of chunks, each pair once: sums go up, results down."""
    pairs: dict[tuple[str, str], None] = {}
    for tree in chain.from_iterable(policy.trees for policy in policies):
        pairs.update(((child, parent), None) for child, parent in tree.parent.items())
        pairs.update(((source, child), None) for child, source in tree.source.items())
    return list(pairs)


def _random(seconds: np.ndarray, primary: Sequence[int], *, seed: str) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    free = seconds.copy()
    block(free, primary)
    found: list[tuple[int, ...]] = []
    while len(found) < MOST_ROUTES:
        path = _search(free, primary[0], primary[-1], rng)
        if path is None:
            break
        found.append(path)
        block(free, path)
    return sorted(found, key=lambda path: (sum(seconds[hop] for hop in pairwise(path)), path))


def _search(
    free: np.ndarray, source: int, target: int, rng: random.Random
) -> tuple[int, ...] | None:
    """A simple path by depth-first search, neighbours in random order; None: there is none."""
    before = {source: source}
    waiting = [(source, source)]
    reached = {source}
    while waiting:
        node, came_from = waiting.pop()
        if node in reached and node != source:
            continue
        reached.add(node)
        before[node] = came_from
        if node == target:
            path = [target]
            while path[-1] != source:
                path.append(before[path[-1]])
            return tuple(reversed(path))
        onward = [int(other) for other in np.flatnonzero(np.isfinite(free[node]))]
        rng.shuffle(onward)
        waiting += [(other, node) for other in onward if other not in reached]
    return None


def to_lists(table: PathTable, names: Sequence[str]) -> list[list[list]]:
    """A path table in few bytes: hops as indices into ``names``, a list of routes per neighbour.

    >>> to_lists({"c": (Route(("a", "b", "c"), 8e6),)}, ["a", "b", "c"])
    [[[8000000.0, False, 0, 1, 2]]]
    """
    index = {name: at for at, name in enumerate(names)}
    return [
        [[route.rate, route.primary, *(index[name] for name in route.hops)] for route in found]
        for found in table.values()
    ]


def from_lists(lists: Sequence[Sequence[Sequence]], names: Sequence[str]) -> PathTable:
    """The inverse of :func:`to_lists`.

    >>> from_lists([[[8000000.0, False, 0, 1, 2]]], ["a", "b", "c"])
    {'c': (Route(hops=('a', 'b', 'c'), rate=8000000.0, primary=False),)}
    """
    tables = (
        tuple(
            Route(tuple(str(names[at]) for at in hops), rate, primary)
            for rate, primary, *hops in found
        )
        for found in lists
    )
    return {found[0].hops[-1]: found for found in tables}
