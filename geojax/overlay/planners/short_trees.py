"""Short trees for a packing: of equally fast ones, those whose pipes fill soon.

The optimum of :mod:`geojax.overlay.planners.columns` holds for chunks of no size and no delays. A
chunk of b bits along a pair of trees takes F_t = (longest Σ (κ b/rate + δ·delay) up + the same
down), where κ stands for its waiting behind others; one synchronization takes about T = M/X and
then this, for the last chunks. So the master is solved again, with pairs worth ::

    g_t = 1 ÷ (1 + F_t / T)

and with columns that minimum arborescences do not give: shortest-path trees under the prices plus
λ · b/rate, which lie between the cheapest and the shortest tree (Khuller, Raghavachari and Young,
*Balancing Minimum Spanning Trees and Shortest-Path Trees*, 1995, bound this trade). The choice is a
heuristic of ours; what is given up of X is at most what the worths say that it pays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from geojax.overlay.planners.columns import SAME, Columns, Packed, Packing, Pair
from geojax.overlay.planners.effort import Effort
from geojax.overlay.planners.interior import Interior
from geojax.overlay.routes.shared_links import SharedLinks

_MIXES = (0.02, 0.1, 0.3, 1.0)  # λ, as shares of what a chunk's time on a link costs
_ROUNDS = 8  # masters at most
_PAYS = 1e-4  # relative gain of one round that is worth another
_SHORTEST = 1e-6  # units of effort of shortest paths, per pair of members
_TIGHT = 1e-5  # to which masters are solved, relative


def shorten(packed: Packed, hops: np.ndarray, effort: Effort) -> Packing:
    """The packing that synchronizes fastest in chunks, as far as it is found.

    Args:
      packed: what :func:`geojax.overlay.planners.columns.pack` found; gets more columns.
      hops: of each link, what it adds to F_t / T.
      effort: stops when it is spent.

    Raises:
      GeojaxError: if the solver fails.
    """
    columns, master = packed.columns, packed.master.copy(effort)
    paths = Paths(columns.links, hops)
    columns.add(paths.shortest(np.zeros(len(hops)), 1.0))
    best = 0.0
    for number in range(_ROUNDS):
        worth = 1.0 / (1.0 + paths.longest(columns.trees))
        master.extend(columns.loads[len(master.rates) :], 0.01)
        master.revalue(worth)
        master.solve(_TIGHT)
        slow = number > 1 and master.value < best * (1 + _PAYS)
        if number == _ROUNDS - 1 or slow or effort.over:
            break
        best = master.value
        prices = columns.link_prices(master.prices)
        found = [paths.shortest(prices, mix) for mix in _MIXES]
        found.append(columns.price(master.prices / master.prices.sum())[0])
        effort.spend(_SHORTEST * len(_MIXES) * len(columns.links.members) ** 2)
        trees = np.concatenate(found)
        useful = 1.0 / (1.0 + paths.longest(trees)) - paths.costs(trees, prices) > SAME
        if not columns.add(trees[useful]):
            break
    return columns.packing(columns.corner(master))


def refit(columns: Columns, pairs: Sequence[Pair]) -> Packing:
    """The best packing of some pairs alone.

    Raises:
      GeojaxError: if the solver fails.
    """
    few = Columns(columns.links, columns.effort)
    few.add(np.array([[*pair.up, *pair.down] for pair in pairs]))
    master = Interior(few.loads.shape[1], Effort(math.inf))
    master.extend(few.loads, 1.0)
    master.solve(_TIGHT)
    return few.packing(few.corner(master))


class Paths:
    """The paths up and down along pairs of trees.

    Args:
      links: what the trees are made of.
      hops: how long each link is.
    """

    def __init__(self, links: SharedLinks, hops: np.ndarray):
        self._count = len(links.members)
        self._sources, self._targets, self._hops = links.sources, links.targets, hops
        self._least = SAME * (hops + 1.0 / len(hops))
        self._link = np.full((self._count, self._count), -1)
        self._link[links.sources, links.targets] = np.arange(len(hops))

    def longest(self, trees: np.ndarray) -> np.ndarray:
        """The longest path up and the longest one down of each pair, together."""
        up, down = trees[:, : self._count], trees[:, self._count :]
        return self._longest(up, self._targets) + self._longest(down, self._sources)

    def costs(self, trees: np.ndarray, prices: np.ndarray) -> np.ndarray:
        """What each pair costs under prices of the links."""
        return np.append(prices, 0.0)[trees].sum(axis=1)

    def shortest(self, prices: np.ndarray, mix: float) -> np.ndarray:
        """The shortest-path trees of every root, where a link is as long as its price plus time."""
        lengths = prices + mix * self._hops + self._least
        up = self._shortest(lengths, self._targets, self._sources, self._link.T)
        down = self._shortest(lengths, self._sources, self._targets, self._link)
        return np.concatenate([up, down], axis=1)

    def _shortest(
        self, lengths: np.ndarray, sources: np.ndarray, targets: np.ndarray, link: np.ndarray
    ) -> np.ndarray:
        graph = csr_array((lengths, (sources, targets)), shape=(self._count, self._count))
        _, before = dijkstra(graph, return_predecessors=True)
        found = link[np.maximum(before, 0), np.arange(self._count)]
        return np.where(before < 0, -1, found)

    def _longest(self, trees: np.ndarray, parents: np.ndarray) -> np.ndarray:
        """The longest path from a root in each tree; by doubling the steps."""
        inner = trees >= 0
        above = np.where(inner, parents[trees], np.arange(self._count))
        length = np.where(inner, self._hops[trees], 0.0)
        for _ in range(self._count.bit_length()):
            length = length + np.take_along_axis(length, above, axis=1)
            above = np.take_along_axis(above, above, axis=1)
        return length.max(axis=1)
