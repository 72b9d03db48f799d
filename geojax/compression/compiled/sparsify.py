"""Accumulation of Bi-Sparse, compiled; see :mod:`geojax.compression.sparsify`."""

from __future__ import annotations

import numpy as np
from numba import types

from geojax.compression.compiled.loop import loop, magnitude, read, written
from geojax.compression.scratch import scratch
from geojax.compression.sparsify import Draw, Picked, picked

_GROUP = 32  # elements that are looked through one by one if any of them passes
_FLOATS = types.float32


def _signature(decayed, kept):
    return types.int64(
        read(_FLOATS), decayed, read(_FLOATS), types.int64, _FLOATS, written(_FLOATS), kept,
        written(types.int64),
    )  # fmt: skip


@loop(_signature(types.none, types.none), _signature(read(_FLOATS), written(_FLOATS)))
def _accumulate(gradient, decayed, residual, least, momentum, total, kept, passed):
    count = 0
    for start in range(0, gradient.size, _GROUP):
        first = np.uintp(start)
        size = min(_GROUP, gradient.size - start)
        largest = np.uint32(0)
        for i in range(size):
            at = first + np.uintp(i)
            moved = gradient[at]
            if decayed is not None:
                moved = decayed[at] + moved
                kept[at] = moved * momentum
            value = residual[at] + moved
            total[at] = value
            largest = max(largest, magnitude(value))
        if largest >= least:
            for i in range(size):
                passed[count] = start + i
                key = magnitude(total[first + np.uintp(i)])
                count += np.int64(key >= least)
    return count


def _looped(
    gradient: np.ndarray, decayed: np.ndarray, residual: np.ndarray, least: int,
    momentum: np.float32, total: np.ndarray, kept: np.ndarray,
) -> np.ndarray:  # fmt: skip
    passed, some = scratch("positions", total.size, np.int64), decayed.size > 0
    count = _accumulate(
        gradient, decayed if some else None, residual, least, momentum, total,
        kept if some else None, passed,
    )  # fmt: skip
    return passed[:count]


def compiled_kernel(
    gradient: np.ndarray, decayed: np.ndarray, residual: np.ndarray, draw: Draw, momentum: float
) -> Picked:
    """:func:`geojax.compression.sparsify.numpy_kernel`, once through memory."""
    return picked(gradient, decayed, residual, draw, momentum, _looped)
