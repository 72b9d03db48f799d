"""Packing pairs of trees into a WAN by column generation.

The linear program of :func:`geojax.overlay.bounds.fluid.fluid_optimum` without its flows: a column
t is a pair of a tree towards and a tree away from one root, y_t the rate (bit/s) that travels along
it, u_rt how often the two together take resource r (a link, an access cap) of capacity c_r::

    master   maximize Σ_t y_t   subject to   Σ_t u_rt y_t ≤ c_r for all r,  y ≥ 0

There are far too many columns to list. Those that matter are found by their price Σ_r w_r u_rt
under prices w of the resources: the cheapest pair of each root is the two minimum arborescences
that :mod:`geojax.overlay.planners.arborescence` finds. Any w ≥ 0 proves (weak duality) ::

    Σ_t y_t ≤ Σ_r w_r c_r ÷ (smallest price of a pair),

which with the master's own duals is its value ÷ the smallest price: the certificate. First w is
raised where resources fill up (multiplicative weights: Garg and Könemann, *Faster and Simpler
Algorithms for Multicommodity Flow*, 1998), which finds good columns without any linear program;
then w are the master's duals, until certificate and value meet (Dantzig and Wolfe 1960; Gilmore and
Gomory 1961).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csc_array

from geojax.errors import GeojaxError
from geojax.overlay.planners.arborescence import minimum_arborescences
from geojax.overlay.routes.shared_links import SharedLinks

_WARM = 100, 2  # pairs sought by multiplicative weights: at least so many, and so many per link
_RAISE = 0.3  # how much a resource's price grows when a pair takes all of it
_TILT = 1e-7  # share of the prices that goes by 1/capacity: of free trees, take short and fast ones
SAME = 1e-6  # a certificate this near to the value (relative) is the solver's precision


class Pair(NamedTuple):
    """Two spanning trees with one root, as links (indices) by member; -1 at the root.

    Attributes:
      root: index of the member.
      up: the link by which each member sends towards the root.
      down: the link by which each member receives from it.
    """

    root: int
    up: tuple[int, ...]
    down: tuple[int, ...]


class Packing(NamedTuple):
    """Weighted pairs of trees.

    Attributes:
      pairs: those that carry something.
      rates: what each carries, bit/s.
    """

    pairs: tuple[Pair, ...]
    rates: np.ndarray

    @property
    def value(self) -> float:
        """What all carry together, bit/s."""
        return float(self.rates.sum())


def pack(
    links: SharedLinks, *, gap: float = 1e-3, most: int = 200
) -> tuple[Columns, np.ndarray, int]:
    """The best packing, or one within a gap of it.

    Args:
      links: which trees there are and what they take; at least two members.
      gap: stops when the certificate is at most this share above the value.
      most: stops after this many linear programs, whatever the gap.

    Returns:
      The columns; the rates that solve the master, in units; how many linear programs it took.

    Raises:
      GeojaxError: if the solver fails.

    >>> from geojax.overlay.routes.shared_links import shared_links
    >>> from geojax.overlay.view import NetworkView
    >>> path = [("a", "b"), ("b", "c"), ("c", "b"), ("b", "a")]
    >>> view = NetworkView(("a", "b", "c"), rate=dict.fromkeys(path, 8e6), delay={})
    >>> columns, rates, _ = pack(shared_links(view, view.centers))
    >>> columns.packing(rates).value  # bit/s
    8000000.0
    """
    columns = Columns(links)
    prices = 1.0 / columns.capacity
    least, each = _WARM
    for _ in range(max(least, each * len(links.sources))):
        best = columns.price(prices / (prices @ columns.capacity))[0]
        columns.add([best])
        load = columns.uses[best] / columns.capacity
        prices = prices * np.exp(_RAISE * load / load.max())
    columns.add(columns.price(prices / (prices @ columns.capacity)))
    rates, solved = np.zeros(0), 0
    while solved < most:
        rates, duals = columns.solve()
        solved, value = solved + 1, rates.sum()
        found = columns.price(duals / value)
        if columns.limit <= value * (1 + gap + SAME) or not columns.add(found):
            break
    return columns, np.pad(rates, (0, len(columns.uses) - len(rates))), solved


class Columns:
    """The columns so far; none at first.

    Args:
      links: which trees there are and what they take; at least two members.

    Attributes:
      links: the same.
      unit: bit/s of one unit of ``capacity``.
      capacity: of each resource; the largest is 1.
      uses: of each pair, how often it takes each resource.
      limit: the lowest certificate so far.
    """

    def __init__(self, links: SharedLinks):
        self.links = links
        self.unit = float(links.capacity.max())
        self.capacity = links.capacity / self.unit
        self.uses: dict[Pair, np.ndarray] = {}
        self.limit = np.inf
        self._tilt = _TILT / (len(self.capacity) * self.capacity)
        self._use_of_links = links.use.T

    def price(self, prices: np.ndarray) -> list[Pair]:
        """The cheapest pair of every root, the cheapest root first.

        Args:
          prices: of the resources; all of them together cost 1.
        """
        links, count = self.links, len(self.links.members)
        prices = prices + self._tilt
        weights = self._use_of_links @ prices
        down = minimum_arborescences(count, links.sources, links.targets, weights)
        up = minimum_arborescences(count, links.targets, links.sources, weights)
        padded = np.append(weights, 0.0)  # -1, at the root, takes nothing
        costs = padded[down].sum(axis=1) + padded[up].sum(axis=1)
        self.limit = min(self.limit, float(prices @ self.capacity / costs.min()))
        return [
            Pair(root, tuple(up[root].tolist()), tuple(down[root].tolist()))
            for root in np.argsort(costs, kind="stable").tolist()
        ]

    def add(self, pairs: Sequence[Pair]) -> bool:
        """Adds columns; returns whether any was new."""
        before = len(self.uses)
        for pair in pairs:
            if pair not in self.uses:
                taken = np.zeros(len(self.links.sources) + 1)
                np.add.at(taken, [*pair.up, *pair.down], 1.0)
                self.uses[pair] = self.links.use @ taken[:-1]
        return len(self.uses) > before

    def solve(self, gains: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The master: rates of the columns, prices of the resources, in units.

        Args:
          gains: what a unit of rate is worth on each column; None: 1.

        Raises:
          GeojaxError: if the solver fails.
        """
        matrix = csc_array(np.array(list(self.uses.values())).T)
        gains = np.ones(len(self.uses)) if gains is None else gains
        solved = linprog(-gains, A_ub=matrix, b_ub=self.capacity, method="highs-ds")
        if not solved.success:
            raise GeojaxError(f"the trees' rates were not found: {solved.message}")
        return solved.x, np.maximum(-solved.ineqlin.marginals, 0.0)

    def packing(self, rates: np.ndarray) -> Packing:
        """The columns that carry something."""
        pairs = tuple(self.uses)
        kept = np.flatnonzero(rates > rates.sum() * SAME)
        return Packing(tuple(pairs[index] for index in kept), rates[kept] * self.unit)
