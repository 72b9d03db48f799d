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


@loop(types.void(read(_NUMBERS), written(_CODES)))
def _pack(numbers, codes):
    for i in range(codes.size):
        codes[i] = np.uint8((numbers[2 * i] << 4) | (numbers[2 * i + 1] & 15))


def _signature_of_several(numbers):
    return types.uint32(
        read(_FLOATS), read(_FLOATS), types.int64, _FLOATS, read(types.uint32),
        read(types.int64, 2), written(_CODES), numbers, written(_FLOATS),
    )  # fmt: skip


@loop(_signature_of_several(types.none), _signature_of_several(written(_NUMBERS)))
def _payloads(vector, before, block, share, header, table, room, numbers, left):
    """Whole payloads, with four bits a code where there is room for numbers; as _quantize."""
    worst = np.uint32(0)
    for row in range(table.shape[0]):
        start, stop, begin, end = table[row, 0], table[row, 1], table[row, 2], table[row, 3]
        count = stop - start
        scaled = begin + 4 * header.size
        coded = scaled + 2 * ((count + block - 1) // block)
        head = room[begin:scaled].view(np.uint32)
        head[0] = count
        for i in range(1, header.size):
            head[i] = header[i]
        scales, codes = room[scaled:coded].view(np.uint16), room[coded:end]
        values, kept, rest = vector[start:stop], before[start:stop], left[start:stop]
        if numbers is None:
            whole = codes.view(np.int8)
            largest = _quantize(values, kept, block, share, scales, whole, rest)
        else:
            numbers[count : 2 * codes.size] = 0
            largest = _quantize(values, kept, block, share, scales, numbers[:count], rest)
            _pack(numbers, codes)
        worst = max(worst, largest)
    return worst


@loop(types.void(read(_SCALES), read(_NUMBERS), types.int64, written(_FLOATS)))
def _multiply(scales, numbers, block, out):
    for row in range(scales.size):
        first = np.uintp(row * block)
        each = floating(np.uint32(scales[row]) << 16)
        for i in range(min(block, out.size - row * block)):
            at = first + np.uintp(i)
            out[at] = np.float32(numbers[at]) * each


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


def _several8(
    vector: np.ndarray, before: np.ndarray, block: int, header: np.ndarray, table: np.ndarray,
    room: np.ndarray, left: np.ndarray,
) -> bool:  # fmt: skip
    worst = _payloads(vector, before, block, _SHARES[127], header, table, room, None, left)
    return worst <= _LIMITS[127]


def _several4(
    vector: np.ndarray, before: np.ndarray, block: int, header: np.ndarray, table: np.ndarray,
    room: np.ndarray, left: np.ndarray,
) -> bool:  # fmt: skip
    longest = int((table[:, 1] - table[:, 0]).max()) + 1
    numbers = scratch("codes", longest, np.int8)
    worst = _payloads(vector, before, block, _SHARES[7], header, table, room, numbers, left)
    return worst <= _LIMITS[7]


def _value8(scales: np.ndarray, codes: np.ndarray, block: int, out: np.ndarray) -> None:
    _multiply(scales, codes.view(np.int8), block, out)


def _value4(scales: np.ndarray, codes: np.ndarray, block: int, out: np.ndarray) -> None:
    numbers = scratch("codes", 2 * codes.size, np.int8)
    _unpack(codes, numbers)
    _multiply(scales, numbers[: out.size], block, out)


INT8 = integers.INT8._replace(code=_code8, value=_value8, several=_several8)
INT4 = integers.INT4._replace(code=_code4, value=_value4, several=_several4)
