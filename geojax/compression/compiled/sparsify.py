"""Accumulation of Bi-Sparse, compiled; see :mod:`geojax.compression.sparsify`."""

from __future__ import annotations

import numpy as np
from numba import types

from geojax.compression.compiled.loop import loop, magnitude, read, written
from geojax.compression.scratch import scratch
from geojax.compression.sparsify import Accumulated, Draw, Picked, picked

_CALL = 1 << 20  # elements of a call
_BLOCK = 64  # elements that are summed, and looked at one by one if any of them passes
_FLOATS = types.float32


def _signature(decayed, kept):
    return types.int64(
        read(_FLOATS), decayed, read(_FLOATS), types.uint32, _FLOATS, written(_FLOATS), kept,
        written(types.int64), written(_FLOATS), kept,
    )  # fmt: skip


@loop(_signature(types.none, types.none), _signature(read(_FLOATS), written(_FLOATS)))
def _sums(gradient, decayed, residual, least, momentum, total, kept, positions, values, taken):
    """Takes out what passes, while it is in the cache; returns how many elements these are."""
    count = 0
    for start in range(0, gradient.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        moving, resting, out = gradient[block], residual[block], total[block]
        largest = np.uint32(0)
        if decayed is None:
            for i in range(out.size):
                out[i] = resting[i] + moving[i]
                largest = max(largest, magnitude(out[i]))
        else:
            before, after = decayed[block], kept[block]
            for i in range(out.size):
                moved = before[i] + moving[i]
                after[i] = moved * momentum
                out[i] = resting[i] + moved
                largest = max(largest, magnitude(out[i]))
        if largest >= least:
            for i in range(out.size):
                if magnitude(out[i]) >= least:
                    positions[count] = start + i
                    values[count] = out[i]
                    out[i] = 0
                    if decayed is not None:
                        taken[count] = kept[start + i]
                        kept[start + i] = 0
                    count += 1
    return count


def _accumulate(
    gradient: np.ndarray, decayed: np.ndarray, residual: np.ndarray, least: int, momentum: float
) -> Accumulated:
    total, kept = np.empty(gradient.size, np.float32), np.empty(decayed.size, np.float32)
    positions, values = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    taken = [np.empty(0, np.float32)]
    room = min(gradient.size, _CALL)
    where, what = scratch("positions", room, np.int64), scratch("values", room)
    moved = scratch("taken", room) if decayed.size else None
    for start in range(0, gradient.size, _CALL):
        slab = slice(start, start + _CALL)
        before, after = (decayed[slab], kept[slab]) if decayed.size else (None, None)
        count = _sums(
            gradient[slab], before, residual[slab], least, np.float32(momentum), total[slab],
            after, where, what, moved,
        )  # fmt: skip
        positions.append(where[:count] + start)
        values.append(what[:count].copy())
        if moved is not None:
            taken.append(moved[:count].copy())
    found = map(np.concatenate, (positions, values, taken))
    return Accumulated(kept, total, *found)


def compiled_kernel(
    gradient: np.ndarray, decayed: np.ndarray, residual: np.ndarray, draw: Draw, momentum: float
) -> Picked:
    """See :func:`geojax.compression.sparsify.numpy_kernel`."""
    return picked(gradient, decayed, residual, draw, momentum, _accumulate)
