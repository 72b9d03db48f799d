"""GBP-CS: gradient-based binary permutation client selection, and its exact swap.

Li et al. 2022 (FedGS, IEEE Internet of Things Journal 9(18), arXiv 2202.01512). From a start x
with L_sel ones, one device is turned on and another off, again and again, as long as ||A x - y||
falls (:mod:`geojax.selection.problem` has the symbols). With r = A x - y and g = A^T r, turning i
on and j off changes the objective by

    || A x' - y ||^2 - || A x - y ||^2 = 2 (g_i - g_j) + || a_i - a_j ||^2.

``first_order`` is the published rule: i has the smallest g of those off, j the largest of those on,
whatever the second term. ``exact`` is ours: the pair with the smallest change, from one table of g
and the Gram matrix A^T A. Both stop at the first swap that brings nothing; ties go to the lowest
index (of ``exact``: the lowest i, then the lowest j). The authors' gradient has a factor of 1 / F,
which changes no comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from geojax.selection.choice import SELECTIONS, Choice, CountsConfig, Selection, by_counts
from geojax.selection.problem import GRID, Problem, problem_of
from geojax.settings import key

CUTOFF = 1e-10  # eigenvalues of a Gram matrix below this share of the largest are zero
SCORE_STEP = 2.0**-20  # scores are rounded to it: equal devices get equal scores

Start = Callable[[Problem, np.random.Generator], np.ndarray]  # -> bool (C,) with L_sel ones


@dataclass
class GbpCsConfig(CountsConfig):
    """Keys of ``selection=gbp_cs``."""

    name: str = "gbp_cs"
    init: str = key(
        "moore_penrose", "what the search starts from", choices=("moore_penrose", "random", "zero")
    )
    swap: str = key(
        "first_order", "the published rule, or the pair with the best exact change (ours)",
        choices=("exact", "first_order"),
    )  # fmt: skip
    restarts: int = key(
        0, "further searches, from random starts, of which the best is kept (ours)", least=0
    )


@SELECTIONS.register("gbp_cs", GbpCsConfig)
def gbp_cs(config: GbpCsConfig) -> Selection:
    """Start, then swap while that helps; from several starts, if ``restarts`` asks for it."""
    searches = [config.init] + ["random"] * config.restarts

    def select(choice: Choice) -> np.ndarray:
        problem = problem_of(choice, config.random_devices)
        found = []
        for init in searches:
            *_, last = path(problem, STARTS[init](problem, choice.draws), config.swap)
            found.append(last)
        return problem.devices(best_of(problem, found))

    def select_all(choices: Sequence[Choice]) -> list[np.ndarray]:
        from geojax.selection.batched import search_from  # loads JAX

        problems = [problem_of(choice, config.random_devices) for choice in choices]
        pairs = list(zip(problems, choices, strict=True))
        drawn = [
            [random_start(problem, choice.draws) for problem, choice in pairs]
            for init in searches
            if init == "random"
        ]
        first = None if config.init == "random" else config.init
        found = search_from(problems, first, config.swap, drawn)
        return [
            problem.devices(best_of(problem, [sets[group] for sets in found]))
            for group, problem in enumerate(problems)
        ]

    return by_counts("gbp_cs", config, select, select_all)


def best_of(problem: Problem, sets: Sequence[np.ndarray]) -> np.ndarray:
    """The set of the least value; ties go to the first."""
    return sets[0] if len(sets) == 1 else min(sets, key=problem.value)


def moore_penrose(problem: Problem, draws: np.random.Generator | None = None) -> np.ndarray:
    """MPInv: the L_sel largest entries of A^+ y.

    A^+ y comes from the eigenvalues of A^T A or A A^T, whichever is the smaller matrix.
    """
    del draws
    rows = problem.counts.astype(np.float64)  # A^T
    wanted = problem.targets[-1] / GRID
    tall = len(rows) <= rows.shape[1]
    values, vectors = np.linalg.eigh(rows @ rows.T if tall else rows.T @ rows)
    kept = values > CUTOFF * values[-1] if values.size else values > 0
    inverse = np.where(kept, 1 / np.where(kept, values, 1), 0)
    side = rows @ wanted if tall else wanted
    solved = vectors @ (inverse * (vectors.T @ side))
    scores = np.rint((solved if tall else rows @ solved) / SCORE_STEP)
    taken = np.zeros(len(rows), bool)
    taken[np.argsort(-scores, kind="stable")[: problem.picks]] = True
    return taken


def zero_start(problem: Problem, draws: np.random.Generator | None = None) -> np.ndarray:
    """Zero: from nothing, L_sel times the device off whose gradient is smallest.

    The target grows with the number of ones, y = n (L_rnd + sum(x)) p - b. The gradient through
    that term is the same for every device, so it decides nothing and is left out.
    """
    del draws
    taken = np.zeros(len(problem.counts), bool)
    for count in range(problem.picks):
        residual = GRID * problem.counts[taken].sum(axis=0) - problem.targets[count]
        off = np.flatnonzero(~taken)
        taken[off[np.argmin(problem.counts[off] @ residual)]] = True
    return taken


def random_start(problem: Problem, draws: np.random.Generator) -> np.ndarray:
    """Any L_sel devices, all sets equally likely."""
    taken = np.zeros(len(problem.counts), bool)
    taken[draws.choice(len(taken), problem.picks, replace=False)] = True
    return taken


STARTS: dict[str, Start] = {
    "moore_penrose": moore_penrose, "random": random_start, "zero": zero_start,
}  # fmt: skip


def path(problem: Problem, start: np.ndarray, swap: str) -> Iterator[np.ndarray]:
    """The sets of a search, each better than the one before: bool (C,) each, ``start`` first.

    The search ends, for the objective falls strictly over finitely many sets.
    """
    taken = start.copy()
    yield taken
    if not 0 < problem.picks < len(taken):
        return
    gram = problem.counts @ problem.counts.T
    gradient = problem.counts @ problem.residual(taken)  # on the grid
    rule = SWAPS[swap]
    while True:
        turn_on, turn_off, change = rule(gradient, gram, taken)
        if change >= 0:
            return
        taken = taken.copy()
        taken[turn_on], taken[turn_off] = True, False
        gradient = gradient + GRID * (gram[:, turn_on] - gram[:, turn_off])
        yield taken


def first_order(gradient: np.ndarray, gram: np.ndarray, taken: np.ndarray) -> tuple[int, int, int]:
    """The pair (on, off) that the gradient alone proposes, and its exact change of the objective.

    Args:
      gradient: A^T r on the grid, int64 (C,).
      gram: A^T A, int64 (C, C).
      taken: x, bool (C,), neither empty nor full.
    """
    off, on = np.flatnonzero(~taken), np.flatnonzero(taken)
    turn_on = int(off[np.argmin(gradient[off])])
    turn_off = int(on[np.argmax(gradient[on])])
    apart = gram[turn_on, turn_on] + gram[turn_off, turn_off] - 2 * gram[turn_on, turn_off]
    change = 2 * (gradient[turn_on] - gradient[turn_off]) + GRID * apart
    return turn_on, turn_off, int(change)


def exact(gradient: np.ndarray, gram: np.ndarray, taken: np.ndarray) -> tuple[int, int, int]:
    """The pair (on, off) with the least exact change; arguments as of :func:`first_order`."""
    off, on = np.flatnonzero(~taken), np.flatnonzero(taken)
    norms = np.diagonal(gram)
    apart = norms[off, np.newaxis] + norms[on] - 2 * gram[np.ix_(off, on)]
    changes = 2 * (gradient[off, np.newaxis] - gradient[on]) + GRID * apart
    place = int(np.argmin(changes))
    return int(off[place // len(on)]), int(on[place % len(on)]), int(changes.flat[place])


SWAPS = {"exact": exact, "first_order": first_order}
