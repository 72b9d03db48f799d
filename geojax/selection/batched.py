"""GBP-CS for all groups in one jitted call; the same sets as :mod:`geojax.selection.gbp_cs`.

Groups are padded to one number of candidates, and absent ones are masked. Whole numbers are held in
float64, where they are exact; that is why the call has x64 switched on for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from geojax.selection.gbp_cs import CUTOFF, SCORE_STEP
from geojax.selection.problem import GRID, Problem

ROOM = 8  # candidates are padded to a multiple of it, so that few programs are compiled
WELL_CONDITIONED = 1e-6  # least pivot of a Gram matrix, as a share of its largest entry


def search(
    problems: Sequence[Problem],
    init: str,
    swap: str,
    starts: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """What :func:`geojax.selection.gbp_cs.path` ends with, for every group at once.

    Args:
      problems: one a group; of equal classes, otherwise of any sizes.
      init: ``moore_penrose`` or ``zero``; or ``random``, with the ``starts`` drawn.
      swap: ``first_order`` or ``exact``.
      starts: bool (C,) for each group.

    Returns:
      For each group bool (C,).
    """
    if starts is None:
        return search_from(problems, init, swap, ())[0]
    return search_from(problems, None, swap, [starts])[0]


def search_from(
    problems: Sequence[Problem],
    init: str | None,
    swap: str,
    drawn: Sequence[Sequence[np.ndarray]],
) -> list[list[np.ndarray]]:
    """Searches from several starts, all groups and all starts in one call.

    Args:
      problems: as of :func:`search`.
      init: ``moore_penrose`` or ``zero``, for a first search; None: there are only the drawn ones.
      swap: as of :func:`search`.
      drawn: further starts, each bool (C,) for each group.

    Returns:
      For each start, for each group bool (C,).
    """
    most = max(len(problem.counts) for problem in problems)
    width = -(-max(most, 1) // ROOM) * ROOM
    depth = max(len(problem.targets) for problem in problems)
    shape = len(problems), width, problems[0].counts.shape[1]
    counts = np.zeros(shape, np.float32)
    targets = np.zeros((shape[0], depth, shape[2]))
    present, start = np.zeros(shape[:2], bool), np.zeros((len(drawn), *shape[:2]), bool)
    picks = np.array([problem.picks for problem in problems])
    for number, problem in enumerate(problems):
        counts[number, : len(problem.counts)] = problem.counts
        targets[number, : len(problem.targets)] = problem.targets
        present[number, : len(problem.counts)] = True
        for each, starts in enumerate(drawn):
            start[each, number, : len(problem.counts)] = starts[number]
    with jax.enable_x64(True):
        taken = np.asarray(_search(counts, targets, present, picks, start, init=init, swap=swap))
    return [
        [row[: len(problem.counts)] for row, problem in zip(each, problems, strict=True)]
        for each in taken
    ]


@partial(jax.jit, static_argnames=("init", "swap"))
def _search(
    counts: jax.Array, targets: jax.Array, present: jax.Array, picks: jax.Array, drawn: jax.Array,
    *, init: str | None, swap: str,
) -> jax.Array:  # fmt: skip
    rows = counts.astype(jnp.float64)  # (groups, C, F)
    gram = rows @ rows.mT
    wanted = jax.vmap(lambda table, count: table[count])(targets, picks)
    linear = jnp.einsum("gcf,gf->gc", rows, wanted)
    starts = drawn
    if init == "moore_penrose":
        first = _moore_penrose(rows, gram, wanted / GRID, linear / GRID, present, picks)
        starts = jnp.concatenate([first[None], drawn])
    elif init == "zero":
        first = jax.vmap(_zero)(rows, gram, targets, present, picks)
        starts = jnp.concatenate([first[None], drawn])
    norms = jnp.diagonal(gram, axis1=1, axis2=2)
    apart = GRID * (norms[:, :, None] + norms[:, None, :] - 2 * gram)
    every = jax.vmap(partial(_descend, swap=swap, most=targets.shape[1] - 1))
    return jax.vmap(every, (None, None, None, None, 0))(gram, apart, linear, present, starts)


def _moore_penrose(rows, gram, wanted, linear, present, picks) -> jax.Array:
    if rows.shape[1] <= rows.shape[2]:
        scores = _least_squares(gram, linear, present)
    else:
        everything = jnp.ones_like(wanted, bool)
        solved = _least_squares(rows.mT @ rows, wanted, everything)
        scores = jnp.einsum("gcf,gf->gc", rows, solved)
    scores = jnp.where(present, -jnp.rint(scores / SCORE_STEP), jnp.inf)
    ranks = jnp.argsort(jnp.argsort(scores, stable=True), stable=True)
    return ranks < picks[:, None]


def _least_squares(gram, side, present) -> jax.Array:
    """gram^+ side for each group; by Cholesky, ten times as fast, where no group forbids it."""

    def by_eigenvalues(_):
        values, vectors = jnp.linalg.eigh(gram)
        kept = values > CUTOFF * values[:, -1:]
        inverse = jnp.where(kept, 1 / jnp.where(kept, values, 1), 0)
        return jnp.einsum("gij,gj,gkj,gk->gi", vectors, inverse, vectors, side, optimize="optimal")

    def by_cholesky(factor):
        half = jax.lax.linalg.triangular_solve(factor, side[..., None], left_side=True, lower=True)
        whole = jax.lax.linalg.triangular_solve(
            factor, half, left_side=True, lower=True, transpose_a=True
        )
        return jnp.where(present, whole[..., 0], 0)

    size = jnp.max(jnp.diagonal(gram, axis1=1, axis2=2), axis=1, keepdims=True)
    absent = jnp.where(present, 0, size)
    factor = jnp.linalg.cholesky(gram + absent[..., None] * jnp.eye(gram.shape[1]))
    pivots = jnp.diagonal(factor, axis1=1, axis2=2) ** 2
    regular = jnp.all(pivots > WELL_CONDITIONED * size)  # NaN, where there is no factor, is not
    return jax.lax.cond(regular, by_cholesky, by_eigenvalues, factor)


def _zero(rows, gram, targets, present, picks) -> jax.Array:
    linear = rows @ targets.T  # (C, L_sel + 1)

    def grow(count, taken):
        gradient = GRID * (gram @ taken) - linear[:, count]
        best = jnp.argmin(jnp.where(present & ~taken, gradient, jnp.inf))
        return taken.at[best].set(taken[best] | (count < picks))

    return jax.lax.fori_loop(0, targets.shape[0] - 1, grow, jnp.zeros(len(rows), bool))


def _descend(gram, apart, linear, present, begin, *, swap, most) -> jax.Array:
    """Swaps until none improves.

    Args:
      gram: A^T A, (C, C).
      apart: squared distances of the candidates' counts, times the grid, (C, C).
      linear: A^T y on the grid.
      present: candidates that there are.
      begin: those that are on at first.
      swap: the rule.
      most: L_sel of the largest group.
    """
    count = len(gram)

    def first_order(taken, on, gradient):
        del on
        turn_on = jnp.argmin(jnp.where(present & ~taken, gradient, jnp.inf))
        turn_off = jnp.argmax(jnp.where(taken, gradient, -jnp.inf))
        change = 2 * (gradient[turn_on] - gradient[turn_off]) + apart[turn_on, turn_off]
        possible = jnp.any(present & ~taken) & jnp.any(taken)
        return turn_on, turn_off, jnp.where(possible, change, jnp.inf)

    def exact(taken, on, gradient):
        changes = 2 * (gradient - gradient[on][:, None]) + apart[on]  # (L_sel, C)
        changes = jnp.where((on < count)[:, None] & present & ~taken, changes, jnp.inf)
        least = changes.min(axis=0)
        turn_on = jnp.argmin(least)
        equal = changes[:, turn_on] == least[turn_on]  # of them the lowest index
        return turn_on, jnp.where(equal, on, count).min(), least[turn_on]

    rule = {"exact": exact, "first_order": first_order}[swap]

    def better(state):
        return state[-1]

    def step(state):
        taken, on, gradient, _ = state
        turn_on, turn_off, change = rule(taken, on, gradient)
        improves = change < 0
        swapped = taken.at[turn_on].set(True).at[turn_off].set(False)
        moved = gradient + GRID * (gram[turn_on] - gram[turn_off])
        return (
            jnp.where(improves, swapped, taken),
            jnp.where(improves & (on == turn_off), turn_on, on),
            jnp.where(improves, moved, gradient),
            improves,
        )

    gradient = GRID * (gram @ begin) - linear
    on = jnp.nonzero(begin, size=most, fill_value=count)[0]
    return jax.lax.while_loop(better, step, (begin, on, gradient, jnp.array(True)))[0]
