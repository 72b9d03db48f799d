"""Float32 to two bytes and back, compiled; see :mod:`geojax.compression.halves`."""

from __future__ import annotations

import numpy as np
from numba import types

from geojax.compression import halves
from geojax.compression.compiled.loop import loop, read, written

_MAGNITUDE, _INFINITY, _SIGN = 0x7FFFFFFF, 0x7F800000, 0x8000
_HALF_LIMIT, _BFLOAT_LIMIT = halves.FLOAT16.overflow, halves.BFLOAT16.overflow
_LEAST_POWER = 0x38800000  # 2⁻¹⁴, below which binary16 is subnormal
_UP = (13 << 23) + 2048  # see _cast_half
_NARROW = types.boolean(read(types.float32), written(types.uint16))


@loop(_NARROW)
def _narrow_half(values, out):
    beyond = np.uint32(0)
    for i in range(values.size):
        every = values[i].view(np.uint32)
        size = np.uint32(every & _MAGNITUDE)
        sign = np.uint32((every >> 16) & _SIGN)
        power = np.uint32(max(np.uint32(size & _INFINITY), np.uint32(_LEAST_POWER)) + _UP)
        total = (size.view(np.float32) + power.view(np.float32)).view(np.uint32)
        half = np.uint32(total + (power >> 13))
        large = np.uint32((size >= _HALF_LIMIT) & (size < _INFINITY))
        beyond |= large
        half = np.uint32(0x7BFF) if large else half
        half = np.uint32(0x7C00) if size == _INFINITY else half
        nan = np.uint32(0x7C00 | max(np.uint32((size >> 13) & 0x3FF), np.uint32(1)))
        half = nan if size > _INFINITY else half
        out[i] = np.uint16(sign | half)
    return beyond != 0


@loop(_NARROW)
def _narrow_bfloat(values, out):
    beyond = np.uint32(0)
    for i in range(values.size):
        every = values[i].view(np.uint32)
        size = np.uint32(every & _MAGNITUDE)
        sign = np.uint32((every >> 16) & _SIGN)
        number = np.uint32((every + 0x7FFF + ((every >> 16) & 1)) >> 16)
        large = np.uint32((size >= _BFLOAT_LIMIT) & (size < _INFINITY))
        beyond |= large
        number = np.uint32(sign | 0x7F7F) if large else number
        number = np.uint32(sign | 0x7FC0) if size > _INFINITY else number
        out[i] = np.uint16(number)
    return beyond != 0


@loop(types.void(read(types.uint16), written(types.float32)))
def _widen_half(numbers, out):
    """Moves bits to their places, and exponents by what the three kinds of numbers need."""
    for i in range(numbers.size):
        every = np.uint32(numbers[i])
        size = np.uint32((every & 0x7FFF) << 13)
        exponent = np.uint32(size & 0x0F800000)
        normal = np.uint32(size + (112 << 23))
        subnormal = np.uint32(normal + (1 << 23)).view(np.float32) - np.float32(2.0**-14)
        bits = subnormal.view(np.uint32) if exponent == 0 else normal
        bits = np.uint32(normal + (112 << 23)) if exponent == 0x0F800000 else bits
        out[i] = np.uint32(bits | ((every & 0x8000) << 16)).view(np.float32)


def _narrowed(values: np.ndarray, out: np.ndarray) -> bool:
    return _narrow_half(values, out.view(np.uint16))


def _widened(numbers: np.ndarray, out: np.ndarray) -> None:
    _widen_half(numbers.view(np.uint16), out)


FLOAT16 = halves.FLOAT16._replace(narrow=_narrowed, widen=_widened)
BFLOAT16 = halves.BFLOAT16._replace(narrow=_narrow_bfloat)
