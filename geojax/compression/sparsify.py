"""Which elements of a layer travel: accumulation with momentum, a sampled threshold, a budget.

This is the plain kernel. ``geojax.center.sparsify`` has the same for accelerators, and
``geojax.compression.compiled`` its loop, compiled for the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from geojax.compression.scratch import SLAB, scratch

_SAMPLE_SHARE = 0.005  # of a layer's elements
_FEWEST_ABOVE = 10  # sampled elements that are expected above the threshold, at least
_ROUNDING = 1e-9  # 0.29 * 100 is meant to be 29
_MAGNITUDE = np.int32(0x7FFFFFFF)  # all bits of a float32 but its sign
_NEVER = 1 << 31  # a threshold that nothing passes


class Picked(NamedTuple):
    """What a kernel returns for a layer of N elements; fresh arrays.

    Attributes:
      decayed: m·u, what the next round's momentum starts from; float32 (N,), or (0,) if m is 0.
      residual: v, what has not been sent yet; float32 (N,).
      positions: of the elements that are sent, ascending int64.
      values: these elements, float32.
    """

    decayed: np.ndarray
    residual: np.ndarray
    positions: np.ndarray
    values: np.ndarray


class Draw(NamedTuple):
    """How a layer's threshold is found.

    Attributes:
      sample: positions whose magnitudes are looked at (int32); None: all.
      rank: the threshold is the ``rank``-th largest of these magnitudes.
      budget: most elements that are sent.
    """

    sample: np.ndarray | None
    rank: int
    budget: int


Kernel = Callable[[np.ndarray, np.ndarray, np.ndarray, Draw, float], Picked]
"""``(gradient, decayed, residual, draw, momentum) -> Picked``; see :func:`numpy_kernel`."""


class Accumulated(NamedTuple):
    """What a kernel's loop returns for a layer of N elements; fresh arrays.

    Attributes:
      decayed: m·u, float32 (N,), or (0,) if m is 0.
      total: v, float32 (N,).
      positions: of the elements with abs(v) ≥ the threshold, ascending int64.
      values: these elements, float32.
      taken: their m·u, where they have been reset already; (0,) if m is 0. None: they have not.
    """

    decayed: np.ndarray
    total: np.ndarray
    positions: np.ndarray
    values: np.ndarray
    taken: np.ndarray | None = None


Accumulate = Callable[[np.ndarray, np.ndarray, np.ndarray, int, float], Accumulated]
"""``(gradient, decayed, residual, threshold, momentum) -> Accumulated``. Thresholds are bits of
magnitudes."""


def budget_of(elements: int, ratio: float) -> int:
    """K = ⌊N·r⌋, but at least 1."""
    return max(1, math.floor(elements * ratio + _ROUNDING))


def sample_size(elements: int, ratio: float) -> int:
    """How many of N elements are looked at for the threshold.

    ⌊0.005·N⌋ if some ten of them are among the largest r·N, else ⌊10/r⌋; at most N.

    >>> sample_size(1_000_000, 0.01), sample_size(10_000, 0.01), sample_size(1280, 0.001)
    (5000, 1000, 1280)
    """
    if _SAMPLE_SHARE * elements * ratio >= _FEWEST_ABOVE:
        return math.floor(_SAMPLE_SHARE * elements)
    return min(elements, math.floor(_FEWEST_ABOVE / ratio + _ROUNDING))


def draw(elements: int, ratio: float, exact: bool, random: np.random.Generator) -> Draw:
    """Draws a layer's sample, without replacement; a sample of everything is no sample."""
    budget, size = budget_of(elements, ratio), sample_size(elements, ratio)
    if exact or size >= elements or budget >= elements:
        return Draw(None, budget, budget)
    sample = random.choice(elements, size, replace=False, shuffle=False).astype(np.int32)
    return Draw(sample, budget_of(size, ratio), budget)


def host_kernel(compiled: bool) -> Kernel:
    """:func:`numpy_kernel`, or the same with its loop compiled."""
    if not compiled:
        return numpy_kernel
    from geojax.compression.compiled.sparsify import compiled_kernel

    return compiled_kernel


def numpy_kernel(
    gradient: np.ndarray,
    decayed: np.ndarray,
    residual: np.ndarray,
    draw: Draw,
    momentum: float,
) -> Picked:
    """Accumulates one layer's gradient and picks what is sent.

    u ← m·u + g,  v ← v + u,  b = the rank-th largest abs(v) of the sample; sent are the non-zero
    elements with abs(v) ≥ b, the ``budget`` largest of them if they are more (of equal ones, those
    of lower positions); where an element is sent, u = v = 0.

    The state holds m·u rather than u: no product is then followed by a sum, which a compiler may
    round once where numpy rounds twice. Magnitudes are compared as the integers of their bits,
    which have the same order and put infinities, then NaN, above all numbers: these travel first
    and stay in no residual unseen.

    Args:
      gradient: g, float32 (N,).
      decayed: m·u of the round before, float32 (N,); (0,) if m is 0.
      residual: v of the round before, float32 (N,).
      draw: sample, rank and budget.
      momentum: m.

    Example:
      >>> nothing = np.zeros(4, np.float32)
      >>> picked = numpy_kernel(
      ...     np.array([3.0, -4.0, 0.0, 1.0], np.float32), nothing, nothing, Draw(None, 2, 2), 0.5
      ... )
      >>> picked.positions, picked.values
      (array([0, 1]), array([ 3., -4.], dtype=float32))
      >>> picked.residual, picked.decayed
      (array([0., 0., 0., 1.], dtype=float32), array([0. , 0. , 0. , 0.5], dtype=float32))
    """
    return picked(gradient, decayed, residual, draw, momentum, _accumulate)


def picked(
    gradient: np.ndarray, decayed: np.ndarray, residual: np.ndarray, draw: Draw, momentum: float,
    accumulate: Accumulate,
) -> Picked:  # fmt: skip
    """What a kernel with this loop returns."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is sent, not hidden
        least = _NEVER
        if draw.sample is not None:
            at = draw.sample
            moved = gradient.take(at)
            if decayed.size:
                moved = decayed.take(at) + moved
            least = _least(residual.take(at) + moved, draw.rank)
        found = accumulate(gradient, decayed, residual, least, momentum)
    if draw.sample is None:
        passed = np.flatnonzero(magnitudes(found.total) >= _least(found.total, draw.rank))
        found = found._replace(positions=passed, values=found.total[passed], taken=None)
    return pick(found, draw.budget)


def _accumulate(
    gradient: np.ndarray, decayed: np.ndarray, residual: np.ndarray, least: int, momentum: float
) -> Accumulated:
    """Once through memory: what is in work stays in the cache."""
    total, kept = np.empty(gradient.size, np.float32), np.empty(decayed.size, np.float32)
    spare = scratch("numbers", min(gradient.size, SLAB))
    positions, values = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for start in range(0, gradient.size, SLAB):
        slab = slice(start, start + SLAB)
        moved, out = gradient[slab], total[slab]
        if decayed.size:
            moved = np.add(decayed[slab], moved, out=spare[: moved.size])
        np.add(residual[slab], moved, out=out)
        if decayed.size:
            np.multiply(moved, np.float32(momentum), out=kept[slab])
        if least < _NEVER:
            keys = np.bitwise_and(
                out.view(np.int32), _MAGNITUDE, out=spare.view(np.int32)[: out.size]
            )
            passed = np.flatnonzero(keys >= least)
            positions.append(passed + start)
            values.append(out[passed])
    return Accumulated(kept, total, np.concatenate(positions), np.concatenate(values))


def _least(looked_at: np.ndarray, rank: int) -> int:
    """The threshold: the ``rank``-th largest magnitude of these, but more than zero."""
    return max(_largest_but(magnitudes(looked_at), rank), 1)


def pick(found: Accumulated, budget: int) -> Picked:
    """Cuts what passed the threshold to the budget, and resets what is sent, in place."""
    decayed, total, passed, values, taken = found
    if passed.size > budget:
        keys = magnitudes(values)
        cut = _largest_but(keys, budget)
        sent = keys > cut
        equal = np.flatnonzero(keys == cut)
        sent[equal[: budget - np.count_nonzero(sent)]] = True
        if taken is not None:
            total[passed[~sent]] = values[~sent]
            if decayed.size:
                decayed[passed[~sent]] = taken[~sent]
        passed, values = passed[sent], values[sent]
    if taken is None:
        total[passed] = 0.0
        if decayed.size:
            decayed[passed] = 0.0
    return Picked(decayed, total, passed, values)


def magnitudes(values: np.ndarray) -> np.ndarray:
    """Integers in the order of abs(values)."""
    return np.bitwise_and(values.view(np.int32), _MAGNITUDE)


def _largest_but(keys: np.ndarray, rank: int) -> int:
    """The ``rank``-th largest."""
    return int(np.partition(keys, keys.size - rank)[keys.size - rank])
