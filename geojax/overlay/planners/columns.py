"""Packing pairs of trees into a WAN by column generation.

The linear program of :func:`geojax.overlay.bounds.fluid.fluid_optimum` without its flows: a column
t is a pair of a tree towards and a tree away from one root, y_t the rate (bit/s) that travels along
it, u_rt how often the two together take resource r (a link, an access cap) of capacity c_r::

    master   maximize Σ_t y_t   subject to   Σ_t u_rt y_t ≤ c_r for all r,  y ≥ 0

There are far too many columns to list. Those that matter are found by their price Σ_r w_r u_rt
under prices w of the resources: the cheapest pair of each root is the two minimum arborescences
that :mod:`geojax.overlay.planners.arborescence` finds. Any w ≥ 0 proves (weak duality) ::

    Σ_t y_t ≤ Σ_r w_r c_r ÷ (smallest price of a pair),

the certificate. First w is raised where resources fill up (multiplicative weights: Garg and
Könemann, *Faster and Simpler Algorithms for Multicommodity Flow*, 1998), which finds good columns
without any master; then w are the prices in the middle of the master's optima
(:mod:`geojax.overlay.planners.interior`), until certificate and value meet (Dantzig and Wolfe 1960;
Gilmore and Gomory 1961).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csc_array

from geojax.overlay.bounds.linear_program import maximize
from geojax.overlay.planners.arborescence import minimum_arborescences
from geojax.overlay.planners.effort import Effort
from geojax.overlay.planners.interior import Interior
from geojax.overlay.routes.shared_links import SharedLinks

_RAISE = 1.0  # how much the price of the resource that is used most grows when pairs are added
_LEAST, _PART = 4, 8  # so many pairs are added at a time, or those of one root in so many
_WARM = 0.5  # share of the effort after which the first master is solved, ready or not
_CALL, _NODE, _LINK = 2e-4, 2e-5, 1e-6  # units of effort of all minimum arborescences, per …
_TIGHT = 0.2  # the master is solved to so much of the gap that is left
_TILT = 1e-7  # share of the prices that goes by 1/capacity: of free trees, take short and fast ones
_ROWS = 200  # resources up to which a corner is found in no time
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

    @staticmethod
    def of(tree: Sequence[int]) -> Pair:
        """A row of :attr:`Columns.trees`."""
        up, down = tuple(tree[: len(tree) // 2]), tuple(tree[len(tree) // 2 :])
        return Pair(up.index(-1), up, down)


class Packing(NamedTuple):
    """Weighted pairs of trees.

    Attributes:
      pairs: those that carry something.
      rates: what each carries, bit/s.
      loads: ``[pair, resource]``: what a unit of rate takes of each resource, as a share of it.
    """

    pairs: tuple[Pair, ...]
    rates: np.ndarray
    loads: np.ndarray

    @property
    def value(self) -> float:
        """What all carry together, bit/s."""
        return float(self.rates.sum())


class Packed(NamedTuple):
    """What was found.

    Attributes:
      columns: all that were looked at.
      master: their rates, of a value near to ``limit``.
      masters: how many were solved.
    """

    columns: Columns
    master: Interior
    masters: int

    @property
    def value(self) -> float:
        """The rate that was found, bit/s."""
        return self.master.value * self.columns.unit

    @property
    def limit(self) -> float:
        """The certificate: no packing has a larger rate, bit/s."""
        return self.columns.limit * self.columns.unit

    @property
    def gap(self) -> float:
        """At most by this share is there a better packing."""
        return self.limit / self.value - 1.0

    @property
    def packing(self) -> Packing:
        """The pairs that carry something."""
        return self.columns.packing(self.columns.corner(self.master))


def pack(links: SharedLinks, *, gap: float = 1e-5, effort: Effort | None = None) -> Packed:
    """The best packing, or one within a gap of it.

    Args:
      links: which trees there are and what they take; at least two members.
      gap: stops when the certificate is at most this share above the value.
      effort: stops when it is spent, whatever the gap; None: there is no end of it.

    Raises:
      GeojaxError: if the solver fails.

    >>> from geojax.overlay.routes.shared_links import shared_links
    >>> from geojax.overlay.view import NetworkView
    >>> path = [("a", "b"), ("b", "c"), ("c", "b"), ("b", "a")]
    >>> view = NetworkView(("a", "b", "c"), rate=dict.fromkeys(path, 8e6), delay={})
    >>> round(pack(shared_links(view, view.centers)).packing.value)  # bit/s
    8000000
    """
    effort = Effort(math.inf) if effort is None else effort
    columns = Columns(links, effort)
    begun = effort.left
    prices = links.capacity / columns.unit  # the optimum's where no part of the WAN is a bottleneck
    each = max(_LEAST, len(links.members) // _PART)
    for number in range(-(-len(prices) // each)):
        if number and effort.left < (1 - _WARM) * begun:
            break
        found, costs = columns.price(prices / prices.sum())
        cheapest = found[np.argsort(costs, kind="stable")[:each]]
        columns.add(cheapest)
        load = columns.loads_of(cheapest).sum(axis=0)
        prices = prices * np.exp(_RAISE * load / load.max())
    master = Interior(len(prices), effort)
    within, left, masters = _TIGHT, 1.0, 0
    while True:
        master.extend(columns.loads[len(master.rates) :], left)
        master.solve(within)
        masters += 1
        found, _ = columns.price(master.prices / master.prices.sum())
        left = columns.limit / master.value - 1.0
        if left <= gap + SAME or effort.over:
            return Packed(columns, master, masters)
        within = min(within, _TIGHT * left) if columns.add(found) else within / 4


class Columns:
    """The columns so far; none at first.

    Args:
      links: which trees there are and what they take; at least two members.
      effort: what is spent on it is taken from this.

    Attributes:
      links: the same.
      effort: the same.
      unit: bit/s of one unit of rate: the largest capacity.
      limit: the lowest certificate so far, in units.
    """

    def __init__(self, links: SharedLinks, effort: Effort):
        self.links, self.effort = links, effort
        self.unit = float(links.capacity.max())
        self._trees = [np.zeros((0, 2 * len(links.members)), int)]
        self._loads = [np.zeros((0, len(links.capacity)))]
        self.limit = np.inf
        self._slowness = self.unit / links.capacity  # of each resource
        self._known: set[bytes] = set()
        self._tilt = _TILT / len(links.capacity)
        self._use_of_links = links.use.T.tocsr()

    @property
    def trees(self) -> np.ndarray:
        """``[column, member]``: the links up, then (from the number of members on) those down."""
        return _joined(self._trees)

    @property
    def loads(self) -> np.ndarray:
        """``[column, resource]``: what a unit of rate takes of each resource, as a share of it."""
        return _joined(self._loads)

    def price(self, prices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cheapest pair of every root, as rows of ``trees``, and what each costs.

        Args:
          prices: of the whole of each resource; their sum is 1.
        """
        links, count = self.links, len(self.links.members)
        self.effort.spend(_CALL + _NODE * count + _LINK * len(links.sources))
        weights = self.link_prices(prices + self._tilt)
        down = minimum_arborescences(count, links.sources, links.targets, weights)
        up = minimum_arborescences(count, links.targets, links.sources, weights)
        found = np.concatenate([up, down], axis=1)
        costs = np.append(weights, 0.0)[found].sum(axis=1)  # -1, at the root, takes nothing
        self.limit = min(self.limit, float((prices + self._tilt).sum() / costs.min()))
        return found, costs

    def link_prices(self, prices: np.ndarray) -> np.ndarray:
        """What a unit of rate costs on each link, by prices of the whole of each resource."""
        return self._use_of_links @ (prices * self._slowness)

    def add(self, trees: np.ndarray) -> int:
        """Adds columns; returns how many were new."""
        new = []
        for index, tree in enumerate(trees):
            key = tree.tobytes()
            if key not in self._known:
                self._known.add(key)
                new.append(index)
        if new:
            chosen = trees[new]
            self._trees.append(chosen)
            self._loads.append(self.loads_of(chosen))
        return len(new)

    def loads_of(self, trees: np.ndarray) -> np.ndarray:
        """What a unit of rate takes of each resource, as a share of it."""
        width = len(self.links.sources) + 1  # one more, for -1
        places = trees % width + width * np.arange(len(trees))[:, None]
        taken = np.bincount(places.ravel(), minlength=width * len(trees)).reshape(-1, width)
        return (self.links.use @ taken[:, :-1].T).T * self._slowness

    def corner(self, master: Interior) -> np.ndarray:
        """Rates at a corner of what a master has found to be its optimum: few are not zero.

        Raises:
          GeojaxError: if the solver fails.
        """
        rates = np.zeros(len(self.trees))
        if self.loads.shape[1] > _ROWS:
            rates[: len(master.rates)] = master.rates
            return rates
        kept = np.flatnonzero(master.rates > SAME * master.rates.sum())
        limits = np.ones(self.loads.shape[1])
        what = "the trees' rates were"
        found = maximize(master.gains[kept], csc_array(self.loads[kept].T), limits, what=what)
        rates[kept] = found.x
        return rates

    def packing(self, rates: np.ndarray) -> Packing:
        """The columns that carry something."""
        kept = np.flatnonzero(rates > rates.sum() * SAME)
        pairs = tuple(Pair.of(tree) for tree in self.trees[kept].tolist())
        return Packing(pairs, rates[kept] * self.unit, self.loads[kept])


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """The parts as one, which takes their place."""
    if len(parts) > 1:
        parts[:] = [np.concatenate(parts)]
    return parts[0]
