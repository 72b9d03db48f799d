"""How long a bit is under way at least."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geojax.overlay.view import NetworkView


def shortest_delays(view: NetworkView) -> np.ndarray:
    """(centers, centers), s: the least delay from each to each; infinity: there is no way."""
    from scipy.sparse import csr_array  # slow to load, and not every run has a bound
    from scipy.sparse.csgraph import dijkstra

    position = {center: index for index, center in enumerate(view.centers)}
    count = len(position)
    used = [edge for edge, rate in view.rate.items() if rate > 0]
    ends = ([position[a] for a, _ in used], [position[b] for _, b in used])
    return dijkstra(
        csr_array(([view.delay.get(edge, 0.0) for edge in used], ends), shape=(count, count))
    )


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
