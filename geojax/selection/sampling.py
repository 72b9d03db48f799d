"""Selections without a gradient: everyone, random, and Monte Carlo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geojax.config import SelectionConfig
from geojax.selection.choice import (
    SELECTIONS,
    Choice,
    CountsConfig,
    DevicesConfig,
    Selection,
    by_counts,
)
from geojax.selection.problem import Problem, problem_of
from geojax.settings import key


@SELECTIONS.register("everyone")
def everyone(_: SelectionConfig) -> Selection:
    """All devices, in every step."""
    return Selection("everyone", lambda choice: np.arange(len(choice.counts)), needs_counts=False)


@dataclass
class RandomConfig(DevicesConfig):
    """Keys of ``selection=random``."""

    name: str = "random"


@SELECTIONS.register("random", RandomConfig)
def random(config: RandomConfig) -> Selection:
    """L devices, all sets equally likely; the baseline of the FedGS paper."""

    def select(choice: Choice) -> np.ndarray:
        return np.sort(choice.draws.choice(len(choice.counts), choice.devices, replace=False))

    return Selection(
        "random", select, needs_counts=False, devices=config.devices,
        per_round=config.reuse_random_within_round,
    )  # fmt: skip


@dataclass
class MonteCarloConfig(CountsConfig):
    """Keys of ``selection=monte_carlo``."""

    name: str = "monte_carlo"
    tries: int = key(100, "sets drawn", least=1)


@SELECTIONS.register("monte_carlo", MonteCarloConfig)
def monte_carlo(config: MonteCarloConfig) -> Selection:
    """The best of ``tries`` sets, drawn where good ones were found (the FedGS code's "MC")."""

    def select(choice: Choice) -> np.ndarray:
        problem = problem_of(choice, config.random_devices)
        return problem.devices(best_of_draws(problem, choice.draws, config.tries))

    return by_counts("monte_carlo", config, select)


def best_of_draws(problem: Problem, draws: np.random.Generator, tries: int) -> np.ndarray:
    """Draws by a probability vector q over the C candidates, which begins at 1 / C.

    A set that is the best so far adds 1 / C to q at its members, and q is divided by its sum. The
    authors add 1 / K; that K counts candidates is reconstructed.

    Returns:
      Positions among the candidates, (L_sel,).
    """
    everyone = len(problem.counts)
    chances = np.full(everyone, 1 / max(everyone, 1))
    best, least = np.arange(problem.picks), None
    for _ in range(tries):
        taken = draws.choice(everyone, problem.picks, replace=False, p=chances)
        value = problem.value(taken)
        if least is None or value < least:
            best, least = taken, value
            chances[taken] += 1 / max(everyone, 1)
            chances /= chances.sum()
    return best
