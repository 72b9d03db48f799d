"""The master problem of column generation by an interior-point method that goes on where it was.

::

    maximize g·y  subject to  A y ≤ 1, y ≥ 0;   dual:  minimize Σ w  subject to  Aᵀ w ≥ g, w ≥ 0

With s = 1 - A y and z = Aᵀ w - g, a primal-dual method (Mehrotra, *On the Implementation of a
Primal-Dual Interior Point Method*, 1992) drives all products y z and s w to zero together. It stops
when Σ w - g·y is small enough for the certificate there is, and its prices then lie in the middle
of those that are as good, not at a corner of them: far fewer rounds of columns are needed (Gondzio,
González-Brevis and Munari, *New Developments in the Primal-Dual Column Generation Technique*,
2013). Both problems have this form for every set of columns, so the last solution, drawn a little
into the middle, is a feasible start for the next: old rates leave some room, and prices rise until
no new column is worth more than it costs. Every point on the way is feasible, so that one may stop
at any time.
"""

from __future__ import annotations

from copy import copy

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from geojax.overlay.planners.effort import Effort

_NEAR = 0.9995  # share of the way to the boundary that a step takes at most
_MOST_STEPS = 60  # of one solution
_STEP, _MULTIPLY = 2e-4, 4e-11  # units of effort of a step, and of a multiplication in it
_MIDDLE = 0.1  # how far a start is drawn into the middle, at most


class Interior:
    """The master; no columns at first.

    Args:
      rows: resources.
      effort: solutions end with it, wherever they are.

    Attributes:
      rates: y of each column.
      prices: w of each resource.
      gains: g of each column.
    """

    def __init__(self, rows: int, effort: Effort):
        self._effort = effort
        self.rates, self.prices = np.zeros(0), np.ones(rows)
        self._loads, self.gains = np.zeros((0, rows)), np.zeros(0)

    @property
    def value(self) -> float:
        """g·y."""
        return float(self.gains @ self.rates)

    def copy(self, effort: Effort) -> Interior:
        """One that goes its own way from here, with an effort of its own."""
        other = copy(self)  # its arrays are never changed in place
        other._effort = effort
        return other

    def revalue(self, gains: np.ndarray) -> None:
        """Changes what a unit of rate is worth on each column."""
        self.gains = gains
        self._raise_prices(_MIDDLE)

    def extend(self, loads: np.ndarray, gap: float, gains: np.ndarray | None = None) -> None:
        """Adds columns, and finds a feasible point from which to go on.

        Args:
          loads: ``[column, resource]``: what a unit of rate takes of each, as a share.
          gap: how far the last solution is from the optimum, as a share of it.
          gains: what a unit of rate is worth on each new column; None: 1.
        """
        if not len(loads):
            return
        middle = min(_MIDDLE, gap)
        gains = np.ones(len(loads)) if gains is None else gains
        self._loads = np.concatenate([self._loads, loads])
        self.gains = np.concatenate([self.gains, gains])
        fresh = np.full(len(loads), middle / loads.sum(axis=0).max())
        self.rates = np.concatenate([self.rates * (1 - 2 * middle), fresh])
        self._raise_prices(middle)

    def _raise_prices(self, middle: float) -> None:
        """Until no column is worth more than it costs."""
        worth = self._loads @ self.prices
        self.prices = self.prices * ((self.gains / worth).max() * (1 + middle))

    def solve(self, within: float) -> None:
        """Goes on until rates and prices are as near to each other.

        Args:
          within: Σ w - g·y at most, as a share of g·y.
        """
        loads, gains = self._loads, self.gains
        y, w = self.rates, self.prices
        for _ in range(_MOST_STEPS):
            s, z = 1.0 - y @ loads, loads @ w - gains
            complement = float(s @ w + z @ y)
            if complement <= within * float(gains @ y):
                break
            self._effort.spend(_STEP + _MULTIPLY * loads.size * min(loads.shape))
            if self._effort.over:
                break
            mean = complement / (len(y) + len(w))
            newton = _Newton(loads, y, s, w, z)
            dy, ds, dw, dz = newton.step(-y * z, -s * w)
            there, back = _reach(y, dy, s, ds), _reach(w, dw, z, dz)
            left = (y + there * dy) @ (z + back * dz) + (s + there * ds) @ (w + back * dw)
            aim = mean * (float(left) / complement) ** 3
            dy, ds, dw, dz = newton.step(aim - y * z - dy * dz, aim - s * w - ds * dw)
            y = y + _NEAR * _reach(y, dy, s, ds) * dy
            w = w + _NEAR * _reach(w, dw, z, dz) * dw
        self.rates, self.prices = y, w


def _reach(a: np.ndarray, da: np.ndarray, b: np.ndarray, db: np.ndarray) -> float:
    """How much of a step may be taken before something falls to zero, 1 at most ÷ ``_NEAR``."""
    worst = max(float((-da / a).max()), float((-db / b).max()), _NEAR)
    return 1.0 / worst


class _Newton:
    """The linear system of one point, by whichever normal equations are smaller.

    U dy + ds = 0 and dz = Uᵀ dw are kept; y dz + z dy and s dw + w ds are given.
    """

    def __init__(
        self, loads: np.ndarray, y: np.ndarray, s: np.ndarray, w: np.ndarray, z: np.ndarray
    ):
        self._loads, self._point = loads, (y, s, w, z)
        self._by_rows = len(w) <= len(y)
        if self._by_rows:
            scaled = loads * np.sqrt(y / z)[:, None]
            normal = scaled.T @ scaled
            normal[np.diag_indices_from(normal)] += s / w
        else:
            scaled = loads * np.sqrt(w / s)
            normal = scaled @ scaled.T
            normal[np.diag_indices_from(normal)] += z / y
        self._factor = cho_factor(normal, lower=True, overwrite_a=True, check_finite=False)

    def step(self, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """dy, ds, dw, dz for y dz + z dy = ``columns`` and s dw + w ds = ``rows``."""
        loads, (y, s, w, z) = self._loads, self._point
        if self._by_rows:
            right = (columns / z) @ loads + rows / w
            dw = cho_solve(self._factor, right, check_finite=False)
            dz = loads @ dw
            dy = (columns - y * dz) / z
            return dy, -(dy @ loads), dw, dz
        right = columns / y - loads @ (rows / s)
        dy = cho_solve(self._factor, right, check_finite=False)
        ds = -(dy @ loads)
        dw = (rows - w * ds) / s
        return dy, ds, dw, loads @ dw
