"""One case of the calibration on both testbeds, and what its figures say about an error."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from experiments.calibrate.cases import Case
from experiments.calibrate.fit import relative_error
from experiments.calibrate.runs import Measurement
from experiments.table.comparison import ABSENT

MEAN_GOAL, WORST_GOAL = 0.08, 0.15  # of the absolute relative error, on the held-out half
CPU_LIMIT = 0.70  # busy share of the cores above which the machine, not the WAN, may set the pace
SPREAD_LIMIT = 0.05  # of the repetitions, relative
GOODPUT_LIMIT = 0.02  # between single flows as measured and the model's factor
NOTABLE = 0.03  # an error worth explaining, relative


@dataclass(frozen=True)
class Outcome:
    """A case on both testbeds.

    Attributes:
      simulated: with the frozen constants; None: the run failed.
      emulated: the finished repetitions.
      fitted: simulated mean sync time with the fitted constants, s; None: nothing was fitted.
      failure: why a run failed; None: none did.
    """

    case: Case
    simulated: Measurement | None
    emulated: tuple[Measurement, ...]
    fitted: float | None = None
    failure: str | None = None

    @property
    def measured(self) -> float | None:
        """Emulated mean sync time over the repetitions, s."""
        return statistics.fmean(each.mean for each in self.emulated) if self.emulated else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation of the repetitions' means, s; None with fewer than two."""
        if len(self.emulated) < 2:
            return None
        return statistics.stdev(each.mean for each in self.emulated)

    @property
    def error(self) -> float | None:
        """Relative error of the simulated mean sync time, with the frozen constants."""
        if self.simulated is None or self.measured is None:
            return None
        return relative_error(self.simulated.mean, self.measured)

    @property
    def fitted_error(self) -> float | None:
        """Relative error with the fitted constants."""
        if self.fitted is None or self.measured is None:
            return None
        return relative_error(self.fitted, self.measured)

    @property
    def first_rounds(self) -> tuple[float, float] | None:
        """Sync time of the first round, simulated and emulated, s."""
        if self.simulated is None or not self.emulated:
            return None
        return self.simulated.rounds[0], statistics.fmean(e.rounds[0] for e in self.emulated)

    @property
    def cpu_share(self) -> float | None:
        """The largest busy share of the machine's cores among the repetitions."""
        return max((e.cpu_share for e in self.emulated if e.cpu_share is not None), default=None)

    @property
    def goodput(self) -> float | None:
        """TCP payload ÷ link rate of single flows before the runs, as measured; the mean."""
        found = [e.goodput_factor for e in self.emulated if e.goodput_factor is not None]
        return statistics.fmean(found) if found else None


def explain(outcome: Outcome, factor: float) -> str:
    """What the measurements say about an error, from their own figures.

    Args:
      outcome: the case.
      factor: the model's goodput factor.
    """
    words = []
    if outcome.failure:
        words.append(f"failed: {outcome.failure}")
    error, measured, cpu = outcome.error, outcome.measured, outcome.cpu_share
    if cpu is not None and cpu > CPU_LIMIT:
        words.append(f"CPU {cpu:.0%} busy: the machine may have been the limit")
    if error is None or measured is None:
        return "; ".join(words)
    if outcome.spread is not None and outcome.spread > SPREAD_LIMIT * measured:
        words.append(f"repetitions differ by ±{outcome.spread / measured:.0%}")
    if abs(error) > NOTABLE:
        words += _reasons(outcome, error * measured, factor)
    if abs(error) > WORST_GOAL and not words:
        words.append("misses the goal, and no figure here tells why")
    return "; ".join(words)


def _reasons(outcome: Outcome, difference: float, factor: float) -> list[str]:
    """Figures that have the sign of an error of ``difference`` s."""
    words = []
    first = outcome.first_rounds
    if first is not None and outcome.simulated is not None:
        share = (first[0] - first[1]) / len(outcome.simulated.rounds) / difference
        if share > 0.5:
            words.append(
                f"{min(share, 1.0):.0%} of it from the first round: {seconds(first[0])} s "
                f"simulated, {seconds(first[1])} s emulated"
            )
    faster = 0.0 if outcome.goodput is None else outcome.goodput - factor
    if abs(faster) > GOODPUT_LIMIT and (faster > 0) == (difference > 0):
        got = f"{outcome.goodput:.3f}"
        words.append(f"single flows got {got} of their link, in the model {factor:.3f}")
    return words


def seconds(value: float | None) -> str:
    """Four significant digits, or a dash for what was not measured."""
    return ABSENT if value is None else f"{value:.4g}"
