"""Short trees for a packing: of equally fast ones, those whose pipes fill soon.

The optimum of :mod:`geojax.overlay.planners.columns` holds for chunks of no size. A chunk of b bits
along a pair of trees takes F_t = b · (longest Σ 1/rate up + longest Σ 1/rate down) beside what it
waits; one synchronization takes about T = M/X and then this, for the last chunks. So the master is
solved again, with pairs worth ::

    g_t = 1 ÷ (1 + κ F_t / T)

and with columns that minimum arborescences do not give: shortest-path trees under the prices plus
λ · b/rate, which lie between the cheapest and the shortest tree (Khuller, Raghavachari and Young,
*Balancing Minimum Spanning Trees and Shortest-Path Trees*, 1995, bound this trade). The choice is a
heuristic of ours; what is given up of X is at most what the worths say that it pays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from geojax.overlay.planners.columns import SAME, Columns, Packing, Pair
from geojax.overlay.routes.shared_links import SharedLinks

_WAITING = 3.0  # κ: how long a chunk waits behind others; from 1.5 to 4 it matters little
_MIXES = (0.02, 0.1, 0.3, 1.0)  # λ, as shares of what a chunk's time on a link costs
_ROUNDS = 8  # linear programs at most
_PAYS = 1e-4  # relative gain of one round that is worth another


def shorten(columns: Columns, rates: np.ndarray, chunk_share: float) -> Packing:
    """The packing that synchronizes fastest in chunks, as far as it is found.

    Args:
      columns: what :func:`geojax.overlay.planners.columns.pack` found; gets more columns.
      rates: of the columns, in units.
      chunk_share: of one chunk in the whole vector.

    Raises:
      GeojaxError: if the solver fails.
    """
    paths = _Paths(columns.links, columns.unit)
    weight = _WAITING * chunk_share * float(rates.sum())  # κ b/T, per unit of Σ 1/rate
    columns.add(paths.shortest(np.zeros(len(columns.links.sources)), 1.0))
    gains: dict[Pair, float] = {}
    best = 0.0
    for number in range(_ROUNDS):
        new = [pair for pair in columns.uses if pair not in gains]
        gains |= zip(new, paths.gains(new, weight), strict=True)
        worth = np.array([gains[pair] for pair in columns.uses])
        rates, duals = columns.solve(worth)
        if number == _ROUNDS - 1 or (number > 1 and worth @ rates < best * (1 + _PAYS)):
            break
        best = worth @ rates
        prices = columns.links.use.T @ duals
        found = [pair for mix in _MIXES for pair in paths.shortest(prices, mix * weight)]
        found += columns.price(duals / (duals @ columns.capacity))
        useful = paths.gains(found, weight) - paths.costs(found, prices) > SAME
        if not columns.add([pair for pair, use in zip(found, useful, strict=True) if use]):
            break
    return columns.packing(rates)


def refit(columns: Columns, pairs: Sequence[Pair]) -> Packing:
    """The best packing of some pairs alone.

    Raises:
      GeojaxError: if the solver fails.
    """
    few = Columns(columns.links)
    few.add(pairs)
    return few.packing(few.solve()[0])


class _Paths:
    """The paths up and down along pairs of trees."""

    def __init__(self, links: SharedLinks, unit: float):
        count, self._count = len(links.sources), len(links.members)
        self._sources, self._targets = links.sources, links.targets
        slowest = np.zeros(count)
        rows, columns = links.use.nonzero()
        np.maximum.at(slowest, columns, unit / links.capacity[rows])
        self._hop = slowest  # 1/rate of each link, per unit
        self._link = np.full((self._count, self._count), -1)
        self._link[links.sources, links.targets] = np.arange(count)

    def gains(self, pairs: Sequence[Pair], weight: float) -> np.ndarray:
        """What each pair is worth."""
        if not pairs:
            return np.zeros(0)
        up = self._longest(np.array([pair.up for pair in pairs]), self._targets)
        down = self._longest(np.array([pair.down for pair in pairs]), self._sources)
        return 1.0 / (1.0 + weight * (up + down))

    def costs(self, pairs: Sequence[Pair], prices: np.ndarray) -> np.ndarray:
        """What each pair costs under prices of the links."""
        padded = np.append(prices, 0.0)
        return padded[np.array([[*pair.up, *pair.down] for pair in pairs])].sum(axis=1)

    def shortest(self, prices: np.ndarray, mix: float) -> list[Pair]:
        """The shortest-path trees of every root, where a link is as long as its price plus time."""
        lengths = prices + (mix + SAME) * self._hop
        down = self._shortest(lengths, self._sources, self._targets, self._link)
        up = self._shortest(lengths, self._targets, self._sources, self._link.T)
        return [
            Pair(root, tuple(up[root].tolist()), tuple(down[root].tolist()))
            for root in range(self._count)
        ]

    def _shortest(
        self, lengths: np.ndarray, sources: np.ndarray, targets: np.ndarray, link: np.ndarray
    ) -> np.ndarray:
        graph = csr_array((lengths, (sources, targets)), shape=(self._count, self._count))
        _, before = dijkstra(graph, return_predecessors=True)
        found = link[np.maximum(before, 0), np.arange(self._count)]
        return np.where(before < 0, -1, found)

    def _longest(self, trees: np.ndarray, parents: np.ndarray) -> np.ndarray:
        """The longest path from a root in each tree, Σ 1/rate; by doubling the steps."""
        inner = trees >= 0
        above = np.where(inner, parents[trees], np.arange(self._count))
        length = np.where(inner, self._hop[trees], 0.0)
        for _ in range(self._count.bit_length()):
            length = length + np.take_along_axis(length, above, axis=1)
            above = np.take_along_axis(above, above, axis=1)
        return length.max(axis=1)
