"""Selection by Bayesian optimization, with the package ``bayesian-optimization``."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from geojax.errors import ConfigError
from geojax.selection.choice import SELECTIONS, Choice, CountsConfig, Selection, by_counts
from geojax.selection.problem import GRID, Problem, problem_of
from geojax.settings import key


@dataclass
class BayesianConfig(CountsConfig):
    """Keys of ``selection=bayesian``."""

    name: str = "bayesian"
    initial: int = key(5, "sets drawn at first", least=1)
    iterations: int = key(25, "sets that the model of the objective proposes then", least=0)


@SELECTIONS.register("bayesian", BayesianConfig)
def bayesian(config: BayesianConfig) -> Selection:
    """As the FedGS code: a Gaussian process over L_sel real variables, 5 + 25 evaluations.

    Variable i ranges over the i-th of L_sel slices of the candidates and stands for the device that
    it points at. So every set has a device of each slice; most sets are out of reach.

    Raises:
      ConfigError: the package is not installed.
    """
    _package()

    def select(choice: Choice) -> np.ndarray:
        problem = problem_of(choice, config.random_devices)
        return problem.devices(optimized(problem, choice.draws, config))

    return by_counts("bayesian", config, select)


def optimized(problem: Problem, draws: np.random.Generator, config: BayesianConfig) -> np.ndarray:
    """The best set evaluated, as positions among the candidates (L_sel,)."""
    slices = np.array_split(np.arange(len(problem.counts)), problem.picks) if problem.picks else []
    if all(len(part) == 1 for part in slices):  # nothing to optimize
        return np.arange(problem.picks)
    seen: list[tuple[int, np.ndarray]] = []

    def objective(**at: float) -> float:
        pairs = zip(at.values(), slices, strict=True)
        taken = np.array([part[min(int(place), len(part) - 1)] for place, part in pairs])
        seen.append((problem.value(taken), taken))
        return -float(np.sqrt(seen[-1][0])) / GRID

    bounds = {f"slice_{i:03}": (0.0, float(len(part))) for i, part in enumerate(slices)}
    search = _package().BayesianOptimization(
        objective, bounds, random_state=int(draws.integers(2**31)), verbose=0,
        allow_duplicate_points=True,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its Gaussian process may not converge; that is all right
        search.maximize(init_points=config.initial, n_iter=config.iterations)
    return min(seen, key=lambda pair: pair[0])[1]


def _package() -> Any:
    try:
        return importlib.import_module("bayes_opt")
    except ImportError as problem:
        fix = (
            "needs the package bayesian-optimization; do: pip install 'bayesian-optimization>=3', "
            "or use selection=gbp_cs"
        )
        raise ConfigError("selection.name", "bayesian", fix) from problem
