"""Float32 to two bytes and back, compiled; see :mod:`geojax.compression.halves`.

Binary16 is what the processor makes of it, in one instruction for several numbers. One without such
(x86 before 2013) keeps numpy's way.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from geojax.compression import halves
from geojax.compression.compiled.loop import bits, loop, magnitude, read, written

_HALF_LIMIT, _BFLOAT_LIMIT = halves.FLOAT16.overflow, halves.BFLOAT16.overflow
_INFINITY = 0x7C00  # as binary16
_FLOATS, _HALVES = types.float32, types.uint16


def _half_of(_: Any, number: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return _HALVES(number), build


def _float_of(_: Any, half: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return _FLOATS(half), build


_to_half: Any = intrinsic(_half_of)
_from_half: Any = intrinsic(_float_of)


def _cast_half(values, out):
    largest = np.uint32(0)
    for i in range(values.size):
        largest = max(largest, magnitude(values[i]))
        out[i] = _to_half(values[i])
    return largest < _HALF_LIMIT


def _widen_half(numbers, out):
    largest = np.uint16(0)
    for i in range(numbers.size):
        largest = max(largest, np.uint16(numbers[i] & 0x7FFF))
        out[i] = _from_half(numbers[i])
    return largest <= _INFINITY


@loop(types.boolean(read(_FLOATS), written(_HALVES)))
def _cast_bfloat(values, out):
    largest = np.int32(0)
    for i in range(values.size):
        every = np.int32(bits(values[i]))
        largest = max(largest, np.int32(every & 0x7FFFFFFF))
        out[i] = np.uint16(np.int32(every + 0x7FFF + ((every >> 16) & 1)) >> 16)
    return largest < _BFLOAT_LIMIT


def _binary16() -> halves.HalfFormat:
    """Binary16 by this processor's instructions; it makes signalling NaN quiet, numpy does not."""
    cast_half = loop(types.boolean(read(_FLOATS), written(_HALVES)))(_cast_half)
    widen_half = loop(types.boolean(read(_HALVES), written(_FLOATS)))(_widen_half)

    def cast(values: np.ndarray, out: np.ndarray) -> bool:
        return cast_half(values, out.view(np.uint16))

    def widen(numbers: np.ndarray, out: np.ndarray) -> None:
        if not widen_half(numbers.view(np.uint16), out):
            halves.widen_half(numbers, out)

    return halves.FLOAT16._replace(cast=cast, widen=widen)


_HAS_BINARY16 = platform.machine() in ("aarch64", "arm64") or (
    binding.get_host_cpu_features().get("f16c", False)
)
FLOAT16 = _binary16() if _HAS_BINARY16 else halves.FLOAT16
BFLOAT16 = halves.BFLOAT16._replace(cast=_cast_bfloat)
