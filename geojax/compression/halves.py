"""Float32 to two bytes and back: IEEE binary16 and bfloat16, rounded to nearest, ties to even."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from geojax.compression.compiled import Compiled, in_pieces
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
      cast: ``(float32 block, out, scratch) -> whether it could``: rounds numbers that are finite
        and stay so; scratch is two uint32 of each element.
      widen: numbers of ``travels`` to float32.
    """

    name: str
    dtype: Any
    travels: Any
    largest: float
    overflow: int
    cast: Callable[[np.ndarray, np.ndarray, np.ndarray], bool]
    widen: Callable[[np.ndarray], np.ndarray]


def _cast_half(values: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> bool:
    """Rounds to binary16 by integer arithmetic, which numpy does 1.5 times as fast as its cast.

    With a = abs(x) and 2ᵉ ≤ a < 2ᵉ⁺¹, the float sum a + 2ᵉ⁺¹³ is rounded to multiples of 2ᵉ⁻¹⁰, the
    spacing of binary16: its low bits count them (1024 to 2048), and the exponent goes beside them.
    Below 2⁻¹⁴, where binary16 is subnormal, e stays -14. All is modulo 2¹⁶, so a constant in
    the low bits of the summand, 2048 = -126·1024 there, takes the exponents' biases away.
    """
    total, power = scratch
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


def _cast_bfloat(values: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> bool:
    del scratch
    bits = values.view(np.uint32)
    if bits.view(np.int32).max() >= BFLOAT16.overflow or bits.max() >= BFLOAT16.overflow | _SIGN:
        return False
    np.copyto(out.view(ml_dtypes.bfloat16), values, casting="unsafe")
    return True


def _widen_half(numbers: np.ndarray) -> np.ndarray:
    """Looks numbers up, twice as fast as numpy's cast, ten times where they are subnormal."""
    widened, bits = np.empty(numbers.size, np.float32), numbers.view(np.uint16)
    for start in range(0, bits.size, _LOOKUP):
        piece, out = bits[start : start + _LOOKUP], widened[start : start + _LOOKUP]
        np.take(_HALVES, piece, out=out, mode="wrap")  # no index is beyond the table
    return widened


def _widen_bfloat(numbers: np.ndarray) -> np.ndarray:
    return numbers.view(ml_dtypes.bfloat16).astype(np.float32)


FLOAT16 = HalfFormat("fp16", np.float16, np.float16, 65504.0, 0x477FF000, _cast_half, _widen_half)
BFLOAT16 = HalfFormat(
    "bf16", ml_dtypes.bfloat16, np.uint16, float(ml_dtypes.finfo(ml_dtypes.bfloat16).max),
    0x7F7F8000, _cast_bfloat, _widen_bfloat,
)  # fmt: skip


def narrow(
    values: np.ndarray, form: HalfFormat, overflow: str, compiled: Compiled | None = None
) -> np.ndarray:
    """Float32 to two bytes each. Infinities and NaN stay what they are.

    Args:
      values: float32 (n,).
      form: the format.
      overflow: ``saturate``: a finite number that would become infinite becomes the largest finite
        one; ``stop``: it is an error.
      compiled: programs to the same bits; None: there are none.

    Raises:
      Diverged: a number is too large, and ``overflow`` is ``stop``.
    """
    narrowed = np.empty(values.size, form.travels)
    program = compiled and compiled.narrow.get(form.name)
    if compiled is None or program is None or overflow == "stop":
        _narrow(values, form, overflow, narrowed)
        return narrowed

    def plain(some: np.ndarray, out: np.ndarray) -> None:
        _narrow(some, form, overflow, out)

    in_pieces(program, compiled.sizes, plain, values, narrowed)
    return narrowed


def _narrow(values: np.ndarray, form: HalfFormat, overflow: str, narrowed: np.ndarray) -> None:
    for start in range(0, values.size, SLAB):
        block, out = values[start : start + SLAB], narrowed[start : start + SLAB]
        spare = scratch("numbers", 2 * block.size, np.uint32).reshape(2, -1)
        if form.cast(block, out, spare):
            continue
        keys = block.view(np.uint32) & _MAGNITUDE
        too_large = (keys >= form.overflow) & (keys < _INFINITY)
        if overflow == "stop" and too_large.any():
            raise Diverged(_too_large("a sum of offers", block, too_large, form))
        clipped = np.where(too_large, np.copysign(np.float32(form.largest), block), block)
        with np.errstate(invalid="ignore"):  # a signalling NaN
            np.copyto(out.view(form.dtype), clipped, casting="unsafe")


def widen(payload: np.ndarray, form: HalfFormat) -> np.ndarray:
    """Two bytes each to float32, which is exact.

    Raises:
      FrameError: the payload has half a number.
    """
    return form.widen(as_numbers(payload, form.travels, form.name))


def refuse_overflow(vector: np.ndarray, spans: list[Span], form: HalfFormat) -> None:
    """Refuses a finite number that the format cannot hold.

    Raises:
      Diverged: names the layer of the first one.
    """
    for span in spans:
        layer = vector[span.start : span.stop]
        keys = np.bitwise_and(layer.view(np.uint32), _MAGNITUDE)
        too_large = (keys >= form.overflow) & (keys < _INFINITY)
        if too_large.any():
            raise Diverged(_too_large(span.name, layer, too_large, form))


def _too_large(where: str, values: np.ndarray, mask: np.ndarray, form: HalfFormat) -> str:
    value = float(values[mask][0])
    return (
        f"{where}: {value:.4g} is beyond the largest {form.name}, {form.largest:.5g}; "
        "compression.overflow=saturate would clip it"
    )
