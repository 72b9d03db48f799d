"""The true optimum by evaluating every set, fast enough for the published sizes.

A set of L_sel devices is split at its h-th smallest, h = floor(L_sel / 2): the front u has its last
device at position p, the back v lies behind p. With U = (sum over u) - y and V = (sum over v)

    || A x - y ||^2 = || U + V ||^2 = || U ||^2 + || V ||^2 + 2 U . V,

so for every p all pairs are one matrix product, and every set occurs exactly once. A float32
product finds all sets near the least value; exact arithmetic decides among those.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from geojax.errors import ConfigError
from geojax.selection.choice import SELECTIONS, Choice, CountsConfig, Selection, by_counts
from geojax.selection.problem import GRID, Problem, problem_of
from geojax.settings import key

BLOCK = 2**19  # pairs of one product
ROUNDING = 16 * 2.0**-24  # of a float32 product, as a share of what is added up


@dataclass
class BruteForceConfig(CountsConfig):
    """Keys of ``selection=brute_force``."""

    name: str = "brute_force"
    most_sets: float = key(
        1e9, "instances with more sets are refused; some 1e8 take a second", least=1
    )


@SELECTIONS.register("brute_force", BruteForceConfig)
def brute_force(config: BruteForceConfig) -> Selection:
    """The set with the smallest divergence; ties go to the lexicographically first."""

    def select(choice: Choice) -> np.ndarray:
        problem = problem_of(choice, config.random_devices)
        sets = math.comb(len(problem.counts), problem.picks)
        if sets > config.most_sets:
            fix = (
                f"would evaluate C({len(problem.counts)}, {problem.picks}) = {sets:,} sets, more "
                f"than selection.most_sets = {config.most_sets:,.0f}; use selection=gbp_cs with "
                "selection.swap=exact, or raise selection.most_sets"
            )
            raise ConfigError("selection.name", config.name, fix)
        return problem.devices(optimum(problem))

    return by_counts("brute_force", config, select)


def optimum(problem: Problem) -> np.ndarray:
    """The best set, as positions among the candidates (L_sel,), ascending."""
    if problem.picks < 2:
        singles = np.arange(len(problem.counts))[:, np.newaxis][:, : problem.picks]
        values = [problem.value(row) for row in singles] or [0]
        return singles[int(np.argmin(values))] if problem.picks else np.zeros(0, np.int64)
    best: tuple[int, tuple[int, ...]] | None = None
    bound = math.inf
    for fronts, backs, products, slack in _pairs(problem):
        least = float(products.min())
        if least > bound + slack:
            continue
        for row, column in np.argwhere(products <= min(least, bound) + slack):
            taken = np.concatenate([fronts[row], backs[column]])
            found = problem.value(taken), tuple(taken.tolist())
            best = found if best is None else min(best, found)
        bound = min(bound, best[0] / GRID**2)  # type: ignore[index]  the least pair is among them
    return np.array(best[1])  # type: ignore[index]


def _pairs(problem: Problem) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, float]]:
    """Fronts (N, h), backs (M, L_sel - h), ||U + V||^2 of all pairs, float32 (N, M), its error."""
    everyone, head = len(problem.counts), problem.picks // 2
    wanted = problem.targets[-1] / GRID
    for last in range(head - 1, everyone - (problem.picks - head)):
        firsts = _subsets(np.arange(last), head - 1)
        fronts = np.column_stack([firsts, np.full(len(firsts), last)])
        backs = _subsets(np.arange(last + 1, everyone), problem.picks - head)
        u = problem.counts[fronts].sum(axis=1) - wanted / 2
        v = problem.counts[backs].sum(axis=1) - wanted / 2
        uu, vv = np.einsum("nf,nf->n", u, u), np.einsum("nf,nf->n", v, v)
        slack = float(ROUNDING * len(wanted) ** 0.5 * 2 * (uu.max() + vv.max()))
        # ||U||^2 and ||V||^2 take part in the product, as two more columns.
        left = np.column_stack([u, uu, np.ones(len(u))]).astype(np.float32)
        right = np.column_stack([2 * v, np.ones(len(v)), vv]).astype(np.float32).T
        right = np.ascontiguousarray(right)
        step = max(1, BLOCK // len(backs))
        for at in range(0, len(fronts), step):
            yield fronts[at : at + step], backs, left[at : at + step] @ right, slack


def _subsets(items: np.ndarray, size: int) -> np.ndarray:
    """All subsets of a size, in lexicographic order: (number, size)."""
    flat = np.fromiter(
        (item for subset in combinations(items.tolist(), size) for item in subset), np.int64
    )
    return flat.reshape(math.comb(len(items), size), size)
