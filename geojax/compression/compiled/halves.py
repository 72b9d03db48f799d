"""Float32 to two bytes and back, compiled; see :mod:`geojax.compression.halves`.

Binary16 is what the processor makes of it, in one instruction for several numbers. One without such
(x86 before 2013) keeps numpy's way.
"""

from __future__ import annotations

import platform

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from geojax.compression import halves
from geojax.compression.compiled.loop import bits, loop, magnitude, read, written

_HALF_LIMIT, _BFLOAT_LIMIT = halves.FLOAT16.overflow, halves.BFLOAT16.overflow
_INFINITY = 0x7C00  # as binary16
_HARDWARE = platform.machine() in ("aarch64", "arm64") or binding.get_host_cpu_features().get(
    "f16c", False
)


@intrinsic
def _to_half(context, number):  # noqa: ARG001  the form of an intrinsic
    def build(context, builder, signature, arguments):  # noqa: ARG001
        rounded = builder.fptrunc(arguments[0], ir.HalfType())
        return builder.bitcast(rounded, ir.IntType(16))

    return types.uint16(types.float32), build


@intrinsic
def _from_half(context, number):  # noqa: ARG001
    def build(context, builder, signature, arguments):  # noqa: ARG001
        half = builder.bitcast(arguments[0], ir.HalfType())
        return builder.fpext(half, ir.FloatType())

    return types.float32(types.uint16), build


@loop(types.boolean(read(types.float32), written(types.uint16)))
def _cast_half(values, out):
    largest = np.uint32(0)
    for i in range(values.size):
        largest = max(largest, magnitude(values[i]))
        out[i] = _to_half(values[i])
    return largest < _HALF_LIMIT


@loop(types.boolean(read(types.float32), written(types.uint16)))
def _cast_bfloat(values, out):
    largest = np.int32(0)
    for i in range(values.size):
        every = np.int32(bits(values[i]))
        largest = max(largest, np.int32(every & 0x7FFFFFFF))
        out[i] = np.uint16(np.int32(every + 0x7FFF + ((every >> 16) & 1)) >> 16)
    return largest < _BFLOAT_LIMIT


@loop(types.boolean(read(types.uint16), written(types.float32)))
def _widen_half(numbers, out):
    largest = np.uint16(0)
    for i in range(numbers.size):
        largest = max(largest, np.uint16(numbers[i] & 0x7FFF))
        out[i] = _from_half(numbers[i])
    return largest <= _INFINITY


def _cast(values: np.ndarray, out: np.ndarray) -> bool:
    return _cast_half(values, out.view(np.uint16))


def _widen(numbers: np.ndarray, out: np.ndarray) -> None:
    if not _widen_half(numbers.view(np.uint16), out):  # the processor makes signalling NaN quiet
        halves.widen_half(numbers, out)


FLOAT16 = halves.FLOAT16._replace(cast=_cast, widen=_widen) if _HARDWARE else halves.FLOAT16
BFLOAT16 = halves.BFLOAT16._replace(cast=_cast_bfloat)
