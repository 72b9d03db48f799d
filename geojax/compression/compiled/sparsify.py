"""Accumulation of Bi-Sparse, compiled; see :mod:`geojax.compression.sparsify`."""

from __future__ import annotations

import numpy as np
from numba import types

from geojax.compression.compiled.loop import loop, magnitude, read, written
from geojax.compression.scratch import scratch
from geojax.compression.sparsify import Accumulated, Draw, Picked, picked

_CALL = 1 << 20  # elements of a call
_SLAB = 4096  # elements that are summed, and looked through while they are in the cache
_GROUP = 16  # elements that are looked at one by one if any of them passes
_FLOATS = types.float32


def _signature(decayed, kept):
    return types.int64(
        read(_FLOATS), decayed, read(_FLOATS), types.uint32, _FLOATS, written(_FLOATS), kept,
        written(types.int64), written(_FLOATS),
    )  # fmt: skip


@loop(_signature(types.none, types.none), _signature(read(_FLOATS), written(_FLOATS)))
def _sums(gradient, decayed, residual, least, momentum, total, kept, positions, values):
    """Returns how many elements pass."""
    count = 0
    for start in range(0, gradient.size, _SLAB):
        slab = slice(start, start + _SLAB)
        moving, resting, out = gradient[slab], residual[slab], total[slab]
        if decayed is None:
            for i in range(out.size):
                out[i] = resting[i] + moving[i]
        else:
            before, after = decayed[slab], kept[slab]
            for i in range(out.size):
                moved = before[i] + moving[i]
                after[i] = moved * momentum
                out[i] = resting[i] + moved
        whole = out.size // _GROUP
        groups = out[: whole * _GROUP].reshape((whole, _GROUP))
        for group in range(whole):
            some = False
            for i in range(_GROUP):
                some |= magnitude(groups[group, i]) >= least
            if some:
                for i in range(_GROUP):
                    positions[count] = start + group * _GROUP + i
                    values[count] = groups[group, i]
                    count += np.int64(magnitude(groups[group, i]) >= least)
        for i in range(whole * _GROUP, out.size):
            positions[count] = start + i
            values[count] = out[i]
            count += np.int64(magnitude(out[i]) >= least)
    return count


def _accumulate(
    gradient: np.ndarray, decayed: np.ndarray, residual: np.ndarray, least: int, momentum: float
) -> Accumulated:
    total, kept = np.empty(gradient.size, np.float32), np.empty(decayed.size, np.float32)
    positions, values = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    room = min(gradient.size, _CALL)
    where, what = scratch("positions", room, np.int64), scratch("values", room)
    for start in range(0, gradient.size, _CALL):
        slab = slice(start, start + _CALL)
        before, after = (decayed[slab], kept[slab]) if decayed.size else (None, None)
        count = _sums(
            gradient[slab], before, residual[slab], least, np.float32(momentum), total[slab],
            after, where, what,
        )  # fmt: skip
        positions.append(where[:count] + start)
        values.append(what[:count].copy())
    return Accumulated(kept, total, np.concatenate(positions), np.concatenate(values))


def compiled_kernel(
    gradient: np.ndarray, decayed: np.ndarray, residual: np.ndarray, draw: Draw, momentum: float
) -> Picked:
    """See :func:`geojax.compression.sparsify.numpy_kernel`."""
    return picked(gradient, decayed, residual, draw, momentum, _accumulate)
