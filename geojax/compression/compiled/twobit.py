"""The loop of 2-bit compression, compiled; see :mod:`geojax.compression.twobit`."""

from __future__ import annotations

import numpy as np
from numba import types

from geojax.compression import twobit
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


@loop(types.void(read(types.uint8), types.float32, written(types.float32)))
def _value(codes, step, out):
    """See :class:`geojax.compression.twobit.Loops`."""
    each = np.empty(_SLAB, np.uint8)
    fours = each.view(np.uint32)
    nothing = np.float32(0) * step
    for start in range(0, out.size, _SLAB):
        here, there = codes[start // 4 : (start + _SLAB) // 4], out[start : start + _SLAB]
        for i in range(here.size):
            four = np.uint32(here[i])  # the first of its codes goes to the lowest byte
            first, others = (four >> 6) | (four << 4 & 0x300), four << 14 & 0x30000
            fours[i] = first | others | (four << 24 & 0x3000000)
        for i in range(there.size):
            sent = step if each[i] & 1 else -step
            there[i] = sent if each[i] & 2 else nothing


@loop(types.boolean(read(types.uint8)))
def _any_unknown(codes):
    wrong = np.uint8(0)
    for i in range(codes.size):
        wrong |= codes[i] & ~(codes[i] >> 1) & 0b01010101
    return wrong != 0


LOOPS = twobit.Loops(quantize, _value, _any_unknown)
