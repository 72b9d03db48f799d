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
    most = max(len(problem.counts) for problem in problems)
    width = -(-max(most, 1) // ROOM) * ROOM
    depth = max(len(problem.targets) for problem in problems)
    shape = len(problems), width, problems[0].counts.shape[1]
    counts = np.zeros(shape, np.float32)
    targets = np.zeros((shape[0], depth, shape[2]))
    present, start = np.zeros(shape[:2], bool), np.zeros(shape[:2], bool)
    picks = np.array([problem.picks for problem in problems])
    for number, problem in enumerate(problems):
        counts[number, : len(problem.counts)] = problem.counts
        targets[number, : len(problem.targets)] = problem.targets
        present[number, : len(problem.counts)] = True
        if starts is not None:
            start[number, : len(problem.counts)] = starts[number]
    with jax.enable_x64(True):
        taken = np.asarray(_search(counts, targets, present, picks, start, init=init, swap=swap))
    return [row[: len(problem.counts)] for row, problem in zip(taken, problems, strict=True)]


@partial(jax.jit, static_argnames=("init", "swap"))
def _search(
    counts: jax.Array, targets: jax.Array, present: jax.Array, picks: jax.Array, start: jax.Array,
    *, init: str, swap: str,
) -> jax.Array:  # fmt: skip
    rows = counts.astype(jnp.float64)  # (groups, C, F)
    gram = rows @ rows.mT
    wanted = jax.vmap(lambda table, count: table[count])(targets, picks)
    linear = jnp.einsum("gcf,gf->gc", rows, wanted)
    if init == "moore_penrose":
        start = _moore_penrose(rows, gram, wanted / GRID, linear / GRID, present, picks)
    elif init == "zero":
        start = jax.vmap(_zero)(rows, gram, targets, present, picks)
    return jax.vmap(partial(_descend, swap=swap))(gram, linear, present, start)


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


def _descend(gram, linear, present, begin, *, swap) -> jax.Array:
    """Swaps until none improves; ``linear``: A^T y on the grid."""
    norms = jnp.diagonal(gram)
    apart = norms[:, None] + norms - 2 * gram

    def first_order(taken, gradient):
        turn_on = jnp.argmin(jnp.where(present & ~taken, gradient, jnp.inf))
        turn_off = jnp.argmax(jnp.where(taken, gradient, -jnp.inf))
        change = 2 * (gradient[turn_on] - gradient[turn_off]) + GRID * apart[turn_on, turn_off]
        possible = jnp.any(present & ~taken) & jnp.any(taken)
        return turn_on, turn_off, jnp.where(possible, change, jnp.inf)

    def exact(taken, gradient):
        changes = 2 * (gradient[:, None] - gradient) + GRID * apart
        pairs = (present & ~taken)[:, None] & taken
        changes = jnp.where(pairs, changes, jnp.inf)
        place = jnp.argmin(changes)
        return place // len(gram), place % len(gram), changes.ravel()[place]

    rule = {"exact": exact, "first_order": first_order}[swap]

    def better(state):
        return state[-1]

    def step(state):
        taken, gradient, _ = state
        turn_on, turn_off, change = rule(taken, gradient)
        improves = change < 0
        swapped = taken.at[turn_on].set(True).at[turn_off].set(False)
        moved = gradient + GRID * (gram[:, turn_on] - gram[:, turn_off])
        return (
            jnp.where(improves, swapped, taken), jnp.where(improves, moved, gradient), improves,
        )  # fmt: skip

    gradient = GRID * (gram @ begin) - linear
    return jax.lax.while_loop(better, step, (begin, gradient, jnp.array(True)))[0]
