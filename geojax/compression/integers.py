"""int8 and int4: every element as a small whole number times the scale of its block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geojax.compression.codec import CODECS, Codec, Setting
from geojax.compression.scaled import BFLOAT, FLOAT32, Family, Grid, accumulated, scaled_codec
from geojax.compression.scratch import SLAB, scratch
from geojax.config import CompressionConfig
from geojax.settings import key

LEAST_SCALE = np.uint16((127 - 120) << 7)  # bits of 2⁻¹²⁰ as bfloat16
LARGEST_SCALE = np.uint16((127 + 120) << 7)  # of 2¹²⁰
_MAGNITUDE = np.uint32(0x7FFFFFFF)  # all bits of a float32 but its sign
_NIBBLES = (np.arange(16) ^ 8) - 8.0  # by their bits, in two's complement
_PAIRS = np.stack([np.repeat(_NIBBLES, 16), np.tile(_NIBBLES, 16)], 1).astype(np.float32)
_PAIRS = _PAIRS.view(np.complex64).reshape(-1)  # of the two numbers in a byte, as eight bytes


@dataclass
class Int8Config(CompressionConfig):
    """Keys of ``compression=int8``."""

    name: str = "int8"
    block: int = key(
        256, "elements with a scale of their own", unit="elements", least=1, most=65536
    )
    error_feedback: bool = key(True, "what rounding took is added to the next offer")
    sums: str = key("int8", "how a sum of offers travels", choices=("int8", BFLOAT, FLOAT32))


@dataclass
class Int4Config(CompressionConfig):
    """Keys of ``compression=int4``."""

    name: str = "int4"
    block: int = key(64, "elements with a scale of their own", unit="elements", least=1, most=65536)
    error_feedback: bool = key(True, "what rounding took is added to the next offer")
    sums: str = key(
        "int8", "how a sum of offers travels", choices=("int4", "int8", BFLOAT, FLOAT32)
    )


def int8(
    *, block: int = 256, error_feedback: bool = True, sums: str = "int8", compiled: bool = False
) -> Codec:
    """Every element in 8 bits, with a scale for each block; on every hop, with error feedback.

    In a block of ``block`` elements with largest magnitude m::

        s = m / 127, rounded up to a bfloat16       q = x / s, rounded to nearest, ties to even

    and an element is decoded as q·s. So ``|x - q·s| ≤ s/2`` (but for the rounding of x / s, 2⁻¹⁶ of
    s), and as q and s have 8 significant bits at most, q·s and what is left of x are exact in
    float32: whatever computes them, with fused multiply-adds or without, gets the same bits. s is
    at least 2⁻¹²⁰, above what some processors take for zero. A payload has 2 bytes for each block
    and 1 for each element. Float model state travels whole, as float32.

    Block-wise scales by the largest magnitude are those of Dettmers et al. (2022), "8-bit
    Optimizers via Block-wise Quantization", §2.1; whole numbers instead of their dynamic type, and
    error feedback as Seide et al. (2014), "1-Bit Stochastic Gradient Descent", §2, have it: here
    v ← v + x, send q(v), v ← v - q(v).

    A sum is made in float32, in the given order, and encoded again when it is sent on (without
    error feedback): once at every merge on its way. One that is not finite, or above 127·2¹¹⁹, is
    sent as float32.

    Args:
      block: elements with a scale of their own.
      error_feedback: what rounding took of an offer is added to the next one.
      sums: how a sum of offers travels: ``int8``, or as ``bf16`` or ``float32``.
      compiled: take the loops of :mod:`geojax.compression.compiled`, to the same bits.

    Raises:
      Diverged: from ``encode``: a layer, which it names, holds NaN, infinity or more than 127·2¹¹⁹.

    Example:
      >>> from geojax.center.spec import VectorSpec
      >>> spec = VectorSpec.of([("w", (5,))])
      >>> codec = int8(block=4)
      >>> state = codec.init(spec.layers, spec.chunks(5))
      >>> vector = np.array([126.6, -3.2, 0.4, 0.0, 63.4], np.float32)
      >>> (payload,), state = codec.encode(vector, state)
      >>> codec.decode(payload).tolist()
      [127.0, -3.0, 0.0, 0.0, 63.5]
      >>> state.residual.round(2)
      array([-0.4, -0.2,  0.4,  0. , -0.1], dtype=float32)
      >>> payload.nbytes  # a header of 12 bytes, two scales, five codes
      21
    """
    family = Family("int8", _grids(compiled)[:1], block, error_feedback, sums)
    return scaled_codec(family, 10, recodable=True)


def int4(
    *, block: int = 64, error_feedback: bool = True, sums: str = "int8", compiled: bool = False
) -> Codec:
    """Every element in 4 bits, -7 to 7 times the scale of its block; otherwise as :func:`int8`.

    Sums travel in 8 bits unless ``sums`` says otherwise: they are encoded without error feedback,
    and in 4 bits what is less than a fourteenth of its block's largest would be lost for good.

    Args:
      block: elements with a scale of their own.
      error_feedback: what rounding took of an offer is added to the next one.
      sums: how a sum of offers travels: ``int4``, ``int8``, ``bf16`` or ``float32``.
      compiled: as of :func:`int8`.
    """
    family = Family("int4", _grids(compiled)[::-1], block, error_feedback, sums)
    return scaled_codec(family, 11, recodable=True)


def _grids(compiled: bool) -> tuple[Grid, Grid]:
    """int8 and int4, with numpy's loops or compiled ones."""
    if not compiled:
        return INT8, INT4
    from geojax.compression.compiled import integers

    return integers.INT8, integers.INT4


def scales_of(largest: np.ndarray, most: int) -> np.ndarray:
    """The scales (bits of bfloat16) of blocks by their largest magnitudes (float32).

    >>> scales_of(np.array([127.0, 0.0], np.float32), 127).tolist() == [0x3F80, LEAST_SCALE]
    True
    """
    bits = (largest * np.float32(1 / most)).view(np.uint32)
    return np.maximum((bits + np.uint32(0xFFFF)) >> 16, LEAST_SCALE).astype(np.uint16)


def floats(scales: np.ndarray) -> np.ndarray:
    """Scales as float32."""
    return (scales.astype(np.uint32) << 16).view(np.float32)


def limit(most: int) -> int:
    """The bits of the largest magnitude that has a scale."""
    return int(np.float32(most * 2.0**119).view(np.uint32))


def _code(
    values: np.ndarray, before: np.ndarray | None, block: int, scales: np.ndarray,
    codes: np.ndarray, left: np.ndarray | None, most: int,
) -> bool:  # fmt: skip
    """Codes of values (n,) as int8 (n,), slab by slab."""
    rows = max(1, SLAB // block)
    for start in range(0, values.size, rows * block):
        slab = slice(start, min(start + rows * block, values.size))
        places = slice(start // block, start // block + rows)
        kept = None if left is None else left[slab]
        total = accumulated(values[slab], None if before is None else before[slab], kept)
        if not _quantized(total, block, scales[places], codes[slab], kept, most):
            return False
    return True


def _quantized(
    values: np.ndarray, block: int, scales: np.ndarray, codes: np.ndarray, left: np.ndarray | None,
    most: int,
) -> bool:  # fmt: skip
    numbers = scratch("numbers", values.size)
    magnitudes = np.bitwise_and(values.view(np.uint32), _MAGNITUDE, out=numbers.view(np.uint32))
    starts = np.arange(0, values.size, block)
    largest = np.maximum.reduceat(magnitudes, starts)
    if largest.max() > limit(most):
        return False
    scales[:] = scales_of(largest.view(np.float32), most)
    each = floats(scales)
    _times(values, 1 / each, block, numbers)
    np.rint(numbers, out=numbers)
    np.copyto(codes, numbers, casting="unsafe")
    if left is not None:
        _times(numbers, each, block, numbers)
        np.subtract(values, numbers, out=left)
    return True


def _times(values: np.ndarray, each: np.ndarray, block: int, out: np.ndarray) -> None:
    """Values times the number of their block."""
    full = values.size // block
    body, tail = slice(0, full * block), slice(full * block, None)
    rows = values[body].reshape(full, block), each[:full, None]
    np.multiply(*rows, out=out[body].reshape(full, block))
    np.multiply(values[tail], each[full:], out=out[tail])


def _code8(
    values: np.ndarray, before: np.ndarray | None, block: int, scales: np.ndarray,
    codes: np.ndarray, left: np.ndarray | None,
) -> bool:  # fmt: skip
    return _code(values, before, block, scales, codes.view(np.int8), left, 127)


def _code4(
    values: np.ndarray, before: np.ndarray | None, block: int, scales: np.ndarray,
    codes: np.ndarray, left: np.ndarray | None,
) -> bool:  # fmt: skip
    numbers = scratch("codes", 2 * codes.size, np.int8)
    numbers[values.size :] = 0
    if not _code(values, before, block, scales, numbers[: values.size], left, 7):
        return False
    numbers &= 15
    first, second = numbers.view(np.uint8)[::2], numbers.view(np.uint8)[1::2]
    np.left_shift(first, 4, out=codes)
    np.bitwise_or(codes, second, out=codes)
    return True


def _value8(scales: np.ndarray, codes: np.ndarray, block: int, out: np.ndarray) -> None:
    np.copyto(out, codes.view(np.int8))
    _times(out, floats(scales), block, out)


def _value4(scales: np.ndarray, codes: np.ndarray, block: int, out: np.ndarray) -> None:
    even = out.size // 2
    np.take(_PAIRS, codes[:even], out=out[: 2 * even].view(np.complex64), mode="wrap")
    if out.size % 2:
        out[-1] = _NIBBLES[codes[-1] >> 4]
    _times(out, floats(scales), block, out)


def _check(scales: np.ndarray) -> str:
    if scales.size and scales.max() > LARGEST_SCALE:
        return f"a scale with the bits {scales.max():#06x}, expected up to {LARGEST_SCALE:#06x}"
    return ""


INT8 = Grid("int8", 8, np.dtype(np.uint16), _code8, _check, _value8)
INT4 = Grid("int4", 4, np.dtype(np.uint16), _code4, _check, _value4)


@CODECS.register("int8", Int8Config)
def _int8(config: Int8Config, setting: Setting) -> Codec:
    return int8(
        block=config.block, error_feedback=config.error_feedback, sums=config.sums,
        compiled=setting.compiled,
    )  # fmt: skip


@CODECS.register("int4", Int4Config)
def _int4(config: Int4Config, setting: Setting) -> Codec:
    return int4(
        block=config.block, error_feedback=config.error_feedback, sums=config.sums,
        compiled=setting.compiled,
    )  # fmt: skip
