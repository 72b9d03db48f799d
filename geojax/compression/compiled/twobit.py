"""The loop of 2-bit compression, compiled; see :mod:`geojax.compression.twobit`."""

from __future__ import annotations

import numpy as np
from numba import types

from geojax.compression.compiled.loop import loop, read, written

_MAGNITUDE, _INFINITY = 0x7FFFFFFF, 0x7F800000
_SLAB = 4096  # elements whose codes wait, a byte each, until they are packed


@loop(
    types.boolean(
        read(types.float32), read(types.float32), types.float32,
        written(types.uint8), written(types.float32),
    )
)  # fmt: skip
def quantize(values, before, step, codes, left):
    """See :func:`geojax.compression.twobit.quantize`."""
    worst = np.uint32(0)
    each = np.empty(_SLAB, np.uint8)
    for start in range(0, values.size, _SLAB):
        one, other = values[start : start + _SLAB], before[start : start + _SLAB]
        rest, there = left[start : start + _SLAB], codes[start // 4 : (start + _SLAB) // 4]
        for i in range(one.size):
            value = one[i] + other[i]
            plus, minus = value >= step, value <= -step
            each[i] = np.uint8(3 if plus else (2 if minus else 0))
            sent = step if plus else (-step if minus else np.float32(0))
            value = value - sent
            rest[i] = value
            worst = max(worst, np.uint32(value.view(np.uint32) & _MAGNITUDE))
        each[one.size :] = 0
        for i in range(there.size):
            four = each[4 * i : 4 * i + 4]
            there[i] = np.uint8((four[0] << 6) | (four[1] << 4) | (four[2] << 2) | four[3])
    return worst < _INFINITY
