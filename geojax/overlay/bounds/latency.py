"""How long a bit is under way at least."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from geojax.overlay.view import NetworkView

FEW = 32  # centers up to which SciPy takes longer to load than a plain search takes


def shortest_delays(view: NetworkView) -> np.ndarray:
    """(centers, centers), s: the least delay from each to each; infinity: there is no way."""
    position = {center: index for index, center in enumerate(view.centers)}
    used = [edge for edge, rate in view.rate.items() if rate > 0]
    ends = tuple((position[a], position[b]) for a, b in used)
    return _shortest(len(position), ends, tuple(view.delay.get(edge, 0.0) for edge in used))


@functools.lru_cache(maxsize=16)
def _shortest(
    count: int, ends: tuple[tuple[int, int], ...], delays: tuple[float, ...]
) -> np.ndarray:
    """Along links from and to such positions; not to be written to.

    A delay is never below 0, and sums along a path are made from its start on. So the two ways to
    find the least sums find the same bits.
    """
    if count > FEW:
        from scipy.sparse import csr_array  # slow to load
        from scipy.sparse.csgraph import dijkstra

        places = [source for source, _ in ends], [target for _, target in ends]
        return dijkstra(csr_array((delays, places), shape=(count, count)))
    found = np.full((count, count), np.inf)
    np.fill_diagonal(found, 0.0)
    before = None
    while before is None or not np.array_equal(found, before):  # one link further each time
        before = found.copy()
        for (source, target), delay in zip(ends, delays, strict=True):
            np.minimum(found[:, target], before[:, source] + delay, out=found[:, target])
    found.flags.writeable = False
    return found


def latency_bound(view: NetworkView, members: Sequence[str]) -> float:
    """A bit's delay from the farthest member to the best root and back to the farthest, s.

    >>> edges = [("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")]
    >>> view = NetworkView(("a", "b", "c"), dict.fromkeys(edges, 1.0), dict.fromkeys(edges, 0.01))
    >>> latency_bound(view, view.centers)
    0.02
    """
    if len(members) < 2:
        return 0.0
    shortest = shortest_delays(view)
    chosen = [view.centers.index(member) for member in members]
    return float((shortest[chosen].max(axis=0) + shortest[:, chosen].max(axis=1)).min())
