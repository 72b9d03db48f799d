"""Fitting the simulator's constants to measured sync times: a small deterministic search."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from experiments.calibrate.cases import Case
from geojax.config import RunConfig

Simulate = Callable[[Case, Mapping[str, float]], float]
"""``simulate(case, constants)``: mean sync time of a case with these constants, s."""

LEAST_GAIN = 1e-3  # of the mean error; less is within what repetitions differ by


@dataclass(frozen=True)
class Constant:
    """A constant of the simulator.

    Attributes:
      key: its dotted key in the configuration.
      unit: of its values.
      grid: the values that are tried, ascending.
      meaning: for the report.
    """

    key: str
    unit: str
    grid: tuple[float, ...]
    meaning: str

    @property
    def default(self) -> float:
        """The frozen value in ``geojax/config.py``."""
        group, _, field = self.key.partition(".")
        return getattr(getattr(RunConfig(), group), field)


CONSTANTS = (
    Constant(
        "testbed.goodput_factor",
        "",
        tuple(round(0.9 + 0.005 * step, 3) for step in range(21)),
        "TCP payload ÷ link rate",
    ),
    Constant(
        "testbed.rtt_bias",
        "",
        (0.0, 0.5, 1.0, 1.5, 2.0),
        "TCP shares go as round trip ** -rtt_bias",
    ),
    Constant(
        "pace.sum_gbps",
        "GB/s",
        (1.0, 2.0, 4.0, 8.0),  # slower than that no machine sums
        "how fast a node sums what arrives",
    ),
)


@dataclass(frozen=True)
class Fit:
    """What the search found.

    Attributes:
      values: the constants by key.
      frozen: the defaults that it started from.
      error: mean absolute relative error with ``values``.
      default_error: the same with ``frozen``.
      runs: simulated runs that it took.
      at_edge: keys whose value is the first or the last of its grid.
    """

    values: Mapping[str, float]
    frozen: Mapping[str, float]
    error: float
    default_error: float
    runs: int
    at_edge: tuple[str, ...]


def defaults(constants: tuple[Constant, ...] = CONSTANTS) -> dict[str, float]:
    """The frozen values."""
    return {constant.key: constant.default for constant in constants}


def relative_error(simulated: float, measured: float) -> float:
    """(simulated − measured) ÷ measured."""
    return simulated / measured - 1


def fit(
    measured: Mapping[Case, float],
    simulate: Simulate,
    constants: tuple[Constant, ...] = CONSTANTS,
) -> Fit:
    """Minimizes the mean absolute relative error of the mean sync time, from the defaults on.

    Coordinate descent: one constant after the other takes the best value of its grid, until none
    moves any more. A value must lower the error by ``LEAST_GAIN`` over the one that it replaces:
    what the measurements do not tell keeps its default.

    Args:
      measured: mean sync time of each case, s.
      simulate: the model.
      constants: what is fitted.

    Raises:
      ValueError: nothing was measured.
    """
    if not measured:
        raise ValueError("nothing was measured")
    known: dict[tuple[float, ...], float] = {}

    def error(values: Mapping[str, float]) -> float:
        at = tuple(values.values())
        if at not in known:
            known[at] = statistics.fmean(
                abs(relative_error(simulate(case, values), mean)) for case, mean in measured.items()
            )
        return known[at]

    best = frozen = defaults(constants)
    default_error = error(frozen)
    moved = True
    while moved:
        moved = False
        for constant in constants:
            tried = [{**best, constant.key: value} for value in constant.grid]
            better = min(tried, key=error)
            if error(better) <= error(best) - LEAST_GAIN:
                best, moved = better, True
    at_edge = tuple(c.key for c in constants if best[c.key] in (c.grid[0], c.grid[-1]))
    return Fit(best, frozen, error(best), default_error, len(known) * len(measured), at_edge)
