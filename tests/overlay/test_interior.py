"""The interior-point master, against a linear program solved at a corner."""

import math

import numpy as np
import pytest
from scipy.optimize import linprog

from geojax.overlay.planners.effort import Effort
from geojax.overlay.planners.interior import Interior


def problem(seed, columns, rows):
    """Loads and gains; every column takes something."""
    rng = np.random.default_rng(seed)
    loads = rng.random((columns, rows)) * (rng.random((columns, rows)) < 0.3)
    loads[np.arange(columns), rng.integers(0, rows, columns)] += 0.1
    return loads, rng.uniform(0.5, 1.0, columns)


def optimum(loads, gains):
    return -linprog(-gains, A_ub=loads.T, b_ub=np.ones(loads.shape[1])).fun


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (1, 1), (60, 60)])
def test_it_finds_the_optimum_and_proves_it(shape):
    loads, gains = problem(sum(shape), *shape)
    master = Interior(shape[1], Effort(math.inf))
    master.extend(loads, 1.0, gains)
    master.solve(1e-8)
    expected = optimum(loads, gains)
    assert master.value == pytest.approx(expected, rel=1e-7)
    assert master.value <= expected <= master.prices.sum() * (1 + 1e-12)
    assert (master.rates @ loads <= 1.0).all(), "feasible, not just nearly"
    assert (loads @ master.prices >= gains).all()


def test_it_goes_on_with_more_columns_and_other_gains():
    loads, gains = problem(5, 90, 20)
    master = Interior(20, Effort(math.inf))
    for start in range(0, 90, 30):
        master.extend(loads[start : start + 30], 1e-3, gains[start : start + 30])
        assert (master.rates @ loads[: start + 30] < 1.0).all()
        master.solve(1e-7)
        few = slice(0, start + 30)
        assert master.value == pytest.approx(optimum(loads[few], gains[few]), rel=1e-6)
    other = master.copy(Effort(math.inf))
    other.revalue(gains[::-1].copy())
    other.solve(1e-7)
    assert other.value == pytest.approx(optimum(loads, gains[::-1]), rel=1e-6)
    assert master.value == pytest.approx(optimum(loads, gains), rel=1e-6), "a copy is its own"


def test_it_stops_where_it_is_told_to():
    loads, gains = problem(3, 80, 20)
    gaps = []
    for within in (0.3, 0.01):
        master = Interior(20, Effort(math.inf))
        master.extend(loads, 1.0, gains)
        master.solve(within)
        gaps.append(master.prices.sum() / master.value - 1)
    assert gaps[0] <= 0.3
    assert gaps[1] <= 0.01
    assert gaps[1] < gaps[0]


def test_it_stops_with_the_effort_at_a_feasible_point():
    loads, gains = problem(3, 80, 20)
    values = []
    for steps in (1, 4, 40):
        effort = Effort(steps * 3e-4)
        master = Interior(20, effort)
        master.extend(loads, 1.0, gains)
        master.solve(1e-9)
        assert (master.rates @ loads <= 1.0).all()
        assert (loads @ master.prices >= gains).all()
        values.append(master.value)
    assert values == sorted(values)
    assert values[0] < 0.9 * values[-1]
    assert values[-1] == pytest.approx(optimum(loads, gains), rel=1e-6)
