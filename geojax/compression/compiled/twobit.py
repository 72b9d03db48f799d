"""The loop of 2-bit compression, compiled; see :mod:`geojax.compression.twobit`."""

from __future__ import annotations

import numpy as np
from numba import types

from geojax.compression.compiled.loop import loop, magnitude, read, written

_INFINITY = 0x7F800000
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
    fours = each.view(np.uint32)
    for start in range(0, values.size, _SLAB):
        one, other = values[start : start + _SLAB], before[start : start + _SLAB]
        rest, there = left[start : start + _SLAB], codes[start // 4 : (start + _SLAB) // 4]
        for i in range(one.size):
            value = one[i] + other[i]
            plus, minus = value >= step, value <= -step
            each[i] = np.uint8(2 * (plus | minus) + plus)
            value = value - (step if plus else (-step if minus else np.float32(0)))
            rest[i] = value
            worst = max(worst, magnitude(value))
        each[one.size :] = 0
        for i in range(there.size):
            four = fours[i]  # the first of its codes in the lowest byte
            first, others = np.uint32(four << 6) | np.uint32(four >> 4), np.uint32(four >> 14)
            there[i] = np.uint8(first | others | np.uint32(four >> 24))
    return worst < _INFINITY
