"""Float32 to two bytes and back: IEEE binary16 and bfloat16, rounded to nearest, ties to even."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from geojax.compression.layout import Span
from geojax.compression.payload import as_numbers
from geojax.compression.scratch import SLAB, scratch
from geojax.errors import Diverged

OVERFLOWS = ("saturate", "stop")
_MAGNITUDE = np.uint32(0x7FFFFFFF)  # all bits of a float32 but its sign
_INFINITY = np.uint32(0x7F800000)
_SIGN = np.uint32(0x80000000)
_HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)  # by their bits
_LOOKUP = 16_384  # elements of a lookup at a time: indices take eight bytes each


class HalfFormat(NamedTuple):
    """A two-byte format.

    Attributes:
      name: for messages.
      dtype: numbers of this format.
      travels: the dtype of payloads.
      largest: largest finite number.
      overflow: bits of the smallest float32 that would round to infinity.
      cast: ``(float32, out) -> whether it could``: rounds numbers that are finite and stay so.
      widen: ``(numbers of travels, out)``: to float32.
    """

    name: str
    dtype: Any
    travels: Any
    largest: float
    overflow: int
    cast: Callable[[np.ndarray, np.ndarray], bool]
    widen: Callable[[np.ndarray, np.ndarray], None]


def cast_half(values: np.ndarray, out: np.ndarray) -> bool:
    """Rounds to binary16 by integer arithmetic, which numpy does 1.5 times as fast as its cast.

    With a = abs(x) and 2ᵉ ≤ a < 2ᵉ⁺¹, the float sum a + 2ᵉ⁺¹³ is rounded to multiples of 2ᵉ⁻¹⁰, the
    spacing of binary16: its low bits count them (1024 to 2048), and the exponent goes beside them.
    Below 2⁻¹⁴, where binary16 is subnormal, e stays -14. All is modulo 2¹⁶, so a constant in
    the low bits of the summand, 2048 = -126·1024 there, takes the exponents' biases away.
    """
    total, power = scratch("numbers", 2 * values.size, np.uint32).reshape(2, -1)
    np.bitwise_and(values.view(np.uint32), _MAGNITUDE, out=total)
    if total.max() >= FLOAT16.overflow:
        return False
    np.bitwise_and(total, _INFINITY, out=power)
    np.maximum(power, np.uint32(0x38800000), out=power)
    np.add(power, np.uint32((13 << 23) + 2048), out=power)
    np.add(total.view(np.float32), power.view(np.float32), out=total.view(np.float32))
    np.right_shift(power, np.uint32(13), out=power)
    np.add(total, power, out=total)
    np.right_shift(values.view(np.uint32), np.uint32(16), out=power)
    np.bitwise_and(power, np.uint32(0x8000), out=power)
    np.add(total, power, out=total)
    np.copyto(out.view(np.uint16), total, casting="unsafe")
    return True


def _cast_bfloat(values: np.ndarray, out: np.ndarray) -> bool:
    bits = values.view(np.uint32)
    if bits.view(np.int32).max() >= BFLOAT16.overflow or bits.max() >= BFLOAT16.overflow | _SIGN:
        return False
    np.copyto(out.view(ml_dtypes.bfloat16), values, casting="unsafe")
    return True


def widen_half(numbers: np.ndarray, out: np.ndarray) -> None:
    """Looks numbers up, twice as fast as numpy's cast, ten times where they are subnormal."""
    bits = numbers.view(np.uint16)
    for start in range(0, bits.size, _LOOKUP):
        piece = slice(start, start + _LOOKUP)
        np.take(_HALVES, bits[piece], out=out[piece], mode="wrap")  # none is beyond the table


def _widen_bfloat(numbers: np.ndarray, out: np.ndarray) -> None:
    np.copyto(out, numbers.view(ml_dtypes.bfloat16))


FLOAT16 = HalfFormat("fp16", np.float16, np.float16, 65504.0, 0x477FF000, cast_half, widen_half)
BFLOAT16 = HalfFormat(
    "bf16", ml_dtypes.bfloat16, np.uint16, float(ml_dtypes.finfo(ml_dtypes.bfloat16).max),
    0x7F7F8000, _cast_bfloat, _widen_bfloat,
)  # fmt: skip


def forms(compiled: bool) -> tuple[HalfFormat, HalfFormat]:
    """binary16 and bfloat16, with numpy's loops or compiled ones."""
    if not compiled:
        return FLOAT16, BFLOAT16
    from geojax.compression.compiled import halves

    return halves.FLOAT16, halves.BFLOAT16


def narrow(values: np.ndarray, form: HalfFormat, overflow: str) -> np.ndarray:
    """Float32 to two bytes each. Infinities and NaN stay what they are.

    Args:
      values: float32 (n,).
      form: the format.
      overflow: ``saturate``: a finite number that would become infinite becomes the largest finite
        one; ``stop``: it is an error.

    Raises:
      Diverged: a number is too large, and ``overflow`` is ``stop``.
    """
    narrowed = np.empty(values.size, form.travels)
    for start in range(0, values.size, SLAB):
        block, out = values[start : start + SLAB], narrowed[start : start + SLAB]
        if form.cast(block, out):
            continue
        too_large = _too_large(block, form)
        if overflow == "stop" and too_large.any():
            raise _diverged("a sum of offers", block, form)
        clipped = np.where(too_large, np.copysign(np.float32(form.largest), block), block)
        with np.errstate(invalid="ignore"):  # a signalling NaN
            np.copyto(out.view(form.dtype), clipped, casting="unsafe")
    return narrowed


def widen(payload: np.ndarray, form: HalfFormat) -> np.ndarray:
    """Two bytes each to float32, which is exact.

    Raises:
      FrameError: the payload has half a number.
    """
    numbers = as_numbers(payload, form.travels, form.name)
    widened = np.empty(numbers.size, np.float32)
    form.widen(numbers, widened)
    return widened


def refuse_overflow(vector: np.ndarray, spans: list[Span], form: HalfFormat) -> None:
    """Refuses a finite number that the format cannot hold.

    Raises:
      Diverged: names the layer of the first one.
    """
    for span in spans:
        layer = vector[span.start : span.stop]
        if _too_large(layer, form).any():
            raise _diverged(span.name, layer, form)


def _too_large(values: np.ndarray, form: HalfFormat) -> np.ndarray:
    keys = np.bitwise_and(values.view(np.uint32), _MAGNITUDE)
    return (keys >= form.overflow) & (keys < _INFINITY)


def _diverged(where: str, values: np.ndarray, form: HalfFormat) -> Diverged:
    value = float(values[_too_large(values, form)][0])
    return Diverged(
        f"{where}: {value:.4g} is beyond the largest {form.name}, {form.largest:.5g}; "
        "compression.overflow=saturate would clip it"
    )
