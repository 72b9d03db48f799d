"""One case of the calibration on both testbeds, and what its figures say about an error."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.calibrate.cases import Case
from experiments.calibrate.figures import Emulated
from experiments.calibrate.fit import relative_error
from experiments.calibrate.runs import Measurement
from experiments.table.comparison import ABSENT

MEAN_GOAL, WORST_GOAL = 0.06, 0.12  # of the absolute relative error, on the held-out cases
CPU_LIMIT = 0.70  # busy share of the cores above which the machine, not the WAN, may set the pace
SPREAD_LIMIT = 0.05  # of the repetitions, relative
GOODPUT_LIMIT = 0.02  # between single flows as measured and the model's factor
NOTABLE = 0.03  # an error worth explaining, relative


@dataclass(frozen=True)
class Outcome:
    """A case on both testbeds.

    Attributes:
      simulated: with the frozen constants; None: the run failed.
      emulated: the figures of the finished repetitions; None: there are none.
      failure: why a run failed; None: none did.
    """

    case: Case
    simulated: Measurement | None
    emulated: Emulated | None
    failure: str | None = None

    @property
    def error(self) -> float | None:
        """Relative error of the simulated mean sync time, with the frozen constants."""
        if self.simulated is None or self.emulated is None:
            return None
        return relative_error(self.simulated.mean, self.emulated.mean)

    @property
    def first_rounds(self) -> tuple[float, float] | None:
        """Sync time of the first round, simulated and emulated, s."""
        if self.simulated is None or self.emulated is None:
            return None
        return self.simulated.rounds[0], self.emulated.first


def explain(outcome: Outcome, factor: float) -> str:
    """What the measurements say about an error, from their own figures.

    Args:
      outcome: the case.
      factor: the model's goodput factor.
    """
    words = []
    if outcome.failure:
        words.append(f"failed: {outcome.failure}")
    error, emulated = outcome.error, outcome.emulated
    if emulated is None:
        return "; ".join(words)
    if emulated.cpu_share is not None and emulated.cpu_share > CPU_LIMIT:
        words.append(f"CPU {emulated.cpu_share:.0%} busy: the machine may have been the limit")
    if error is None:
        return "; ".join(words)
    if emulated.spread is not None and emulated.spread > SPREAD_LIMIT * emulated.mean:
        words.append(f"repetitions differ by ±{emulated.spread / emulated.mean:.0%}")
    if abs(error) > NOTABLE:
        words += _reasons(outcome, emulated, error * emulated.mean, factor)
    if abs(error) > WORST_GOAL and not words:
        words.append("misses the goal, and no figure here tells why")
    return "; ".join(words)


def _reasons(outcome: Outcome, emulated: Emulated, difference: float, factor: float) -> list[str]:
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
    faster = 0.0 if emulated.goodput is None else emulated.goodput - factor
    if abs(faster) > GOODPUT_LIMIT and (faster > 0) == (difference > 0):
        got = f"{emulated.goodput:.3f}"
        words.append(f"single flows got {got} of their link, in the model {factor:.3f}")
    return words


def seconds(value: float | None) -> str:
    """Four significant digits, or a dash for what was not measured."""
    return ABSENT if value is None else f"{value:.4g}"
