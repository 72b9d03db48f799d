"""The loops of int8 and int4, compiled; see :mod:`geojax.compression.integers`."""

from __future__ import annotations

import numpy as np
from numba import types

from geojax.compression import integers
from geojax.compression.compiled.loop import bits, floating, loop, magnitude, read, written
from geojax.compression.scratch import scratch

_LEAST = int(integers.LEAST_SCALE)
_SHARES = {most: np.float32(1 / most) for most in (7, 127)}
_LIMITS = {most: integers.limit(most) for most in _SHARES}
_FLOATS, _SCALES, _NUMBERS, _CODES = types.float32, types.uint16, types.int8, types.uint8


def _signature(before, left):
    return types.uint32(
        read(_FLOATS), before, types.int64, _FLOATS, written(_SCALES), written(_NUMBERS), left
    )


@loop(_signature(types.none, types.none), _signature(read(_FLOATS), written(_FLOATS)))
def _quantize(values, before, block, share, scales, numbers, left):
    """Scales and numbers; returns the bits of the largest magnitude of all."""
    worst = np.uint32(0)
    for row in range(scales.size):
        first = np.uintp(row * block)
        count = min(block, values.size - row * block)
        largest = np.uint32(0)
        for i in range(count):
            at = first + np.uintp(i)
            value = values[at]
            if before is not None:
                value = value + before[at]
            largest = max(largest, magnitude(value))
        worst = max(worst, largest)
        wanted = bits(floating(largest) * share)
        scale = np.uint32(max((wanted + 0xFFFF) >> 16, _LEAST))
        scales[row] = np.uint16(scale)
        each = floating(scale << 16)
        times = np.float32(1) / each
        for i in range(count):
            at = first + np.uintp(i)
            value = values[at]
            if before is not None:
                value = value + before[at]
            number = np.rint(value * times)
            numbers[at] = np.int8(number)
            if before is not None:
                left[at] = value - number * each
    return worst


@loop(types.void(read(_SCALES), read(_NUMBERS), types.int64, written(_FLOATS)))
def _multiply(scales, numbers, block, out):
    for row in range(scales.size):
        first = np.uintp(row * block)
        each = floating(np.uint32(scales[row]) << 16)
        for i in range(min(block, out.size - row * block)):
            at = first + np.uintp(i)
            out[at] = np.float32(numbers[at]) * each


@loop(types.void(read(_NUMBERS), written(_CODES)))
def _pack(numbers, codes):
    for i in range(codes.size):
        codes[i] = np.uint8((numbers[2 * i] << 4) | (numbers[2 * i + 1] & 15))


@loop(types.void(read(_CODES), written(_NUMBERS)))
def _unpack(codes, numbers):
    for i in range(codes.size):
        numbers[2 * i] = np.int8(codes[i]) >> 4
        numbers[2 * i + 1] = np.int8(codes[i] << 4) >> 4


def _coded(
    values: np.ndarray, before: np.ndarray | None, block: int, scales: np.ndarray,
    numbers: np.ndarray, left: np.ndarray | None, most: int,
) -> bool:  # fmt: skip
    worst = _quantize(values, before, block, _SHARES[most], scales, numbers, left)
    return worst <= _LIMITS[most]


def _code8(
    values: np.ndarray, before: np.ndarray | None, block: int, scales: np.ndarray,
    codes: np.ndarray, left: np.ndarray | None,
) -> bool:  # fmt: skip
    return _coded(values, before, block, scales, codes.view(np.int8), left, 127)


def _code4(
    values: np.ndarray, before: np.ndarray | None, block: int, scales: np.ndarray,
    codes: np.ndarray, left: np.ndarray | None,
) -> bool:  # fmt: skip
    numbers = scratch("codes", 2 * codes.size, np.int8)
    numbers[values.size :] = 0
    done = _coded(values, before, block, scales, numbers[: values.size], left, 7)
    _pack(numbers, codes)
    return done


def _value8(scales: np.ndarray, codes: np.ndarray, block: int, out: np.ndarray) -> None:
    _multiply(scales, codes.view(np.int8), block, out)


def _value4(scales: np.ndarray, codes: np.ndarray, block: int, out: np.ndarray) -> None:
    numbers = scratch("codes", 2 * codes.size, np.int8)
    _unpack(codes, numbers)
    _multiply(scales, numbers[: out.size], block, out)


INT8 = integers.INT8._replace(code=_code8, value=_value8)
INT4 = integers.INT4._replace(code=_code4, value=_value4)
