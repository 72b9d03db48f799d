"""4-bit floats: a sign and an exponent of three bits for every element, scaled block by block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geojax.compression.codec import CODECS, Codec, Setting
from geojax.compression.scaled import BFLOAT, FLOAT32, Family, Grid, accumulated, scaled_codec
from geojax.config import CompressionConfig
from geojax.settings import key

SUMS = (FLOAT32, BFLOAT, "e3m0")
_LARGEST = 7  # code of the largest magnitude; 0 is zero
_NEGATIVE = 8
_POWERS = np.ldexp(np.float32(1), np.arange(8) - _LARGEST).astype(np.float32)
_POWERS[0] = 0.0
_VALUES = np.concatenate([_POWERS, -_POWERS]).astype(np.float32)  # by code


@dataclass
class E3m0Config(CompressionConfig):
    """Keys of ``compression=e3m0``."""

    name: str = "e3m0"
    block: int = key(256, "elements with a scale of their own", least=1)
    error_feedback: bool = key(False, "what rounding took is added to the next offer")
    sums: str = key("float32", "how a sum of offers travels", choices=SUMS)


def e3m0(*, block: int = 256, error_feedback: bool = False, sums: str = "float32") -> Codec:
    """Outer gradients of 4 bits, E3M0, as Streaming DiLoCo sends them; accumulated in float32.

    In a block of ``block`` elements of a chunk with largest magnitude s, an element becomes the
    nearest of 0 and ±s·2ᵏ⁻⁷, k = 1 … 7 (ties to the larger one). A payload has a float32 s for
    each block and 4 bits for each element. Float model state travels whole, as float32.

    The paper (Douillard et al., 2025, §2.4, arXiv 2501.18512) says E3M0 for what is sent, float32
    for sums, and no error feedback; how it scales is not said there, so the scale by the largest
    magnitude of a block is *reconstructed*.

    Args:
      block: elements with a scale of their own, at least 1.
      error_feedback: v ← v + x, send q(v), v ← v - q(v), instead of q(x).
      sums: how a sum of offers travels on, and back: as it is (``float32``), in two bytes an
        element (``bf16``), or as 4-bit floats again (``e3m0``: rounded once at the root; refused on
        deeper trees, where every hop would round it).

    Raises:
      Diverged: from ``encode``: a layer, which it names, holds NaN or infinity.

    Example:
      >>> from geojax.center.spec import VectorSpec
      >>> spec = VectorSpec.of([("w", (6,))])
      >>> codec = e3m0(block=4)
      >>> state = codec.init(spec.layers, spec.chunks(6))
      >>> vector = np.array([8.0, -3.1, 0.05, 0.4, 0.0, 7.0], np.float32)
      >>> (payload,), state = codec.encode(vector, state)
      >>> codec.decode(payload).tolist()
      [8.0, -4.0, 0.0, 0.5, 0.0, 7.0]
      >>> payload.nbytes  # a header of 12 bytes, two scales, three bytes of codes
      23
    """
    grid = Grid("e3m0", 4, np.dtype(np.float32), _code, _check, _value)
    family = Family("e3m0", (grid,), block, error_feedback, sums)
    return scaled_codec(family, 8, recodable=sums != "e3m0")


def quantized(values: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """The scale of each block, and the code of each element (uint8, 0 to 15).

    >>> scales, codes = quantized(np.array([1.0, -0.75, 0.7, 1 / 128, 0.007], np.float32), 8)
    >>> scales.tolist(), codes.tolist()
    ([1.0], [7, 15, 6, 1, 0])
    """
    blocks = -(-values.size // block)
    padded = np.zeros((blocks, block), np.float32)
    padded.reshape(-1)[: values.size] = values
    magnitudes = np.abs(padded)
    scales = magnitudes.max(axis=1, initial=0.0)
    divisors = np.where(scales > 0, scales, np.float32(1))
    mantissa, exponent = np.frexp(magnitudes / divisors[:, None])  # of [0.5, 1) times a power
    codes = np.clip(exponent + (_LARGEST - 1) + (mantissa >= 0.75), 0, _LARGEST)
    codes[magnitudes == 0] = 0
    small = (codes == 0) & (magnitudes >= divisors[:, None] * (_POWERS[1] / 2))
    codes = np.where(small, 1, codes).astype(np.uint8)
    codes += ((padded < 0) & (codes > 0)) * np.uint8(_NEGATIVE)
    return scales, codes.reshape(-1)[: values.size]


def _code(
    values: np.ndarray, before: np.ndarray | None, block: int, scales: np.ndarray,
    codes: np.ndarray, left: np.ndarray | None,
) -> bool:  # fmt: skip
    total = accumulated(values, before, left)
    if not np.isfinite(total).all():
        return False
    scales[:], ours = quantized(total, block)
    pairs = np.zeros(2 * codes.size, np.uint8)
    pairs[: ours.size] = ours
    np.bitwise_or(pairs[::2] << 4, pairs[1::2], out=codes)
    if left is not None:
        np.subtract(total, _products(ours, scales, block), out=left)
    return True


def _check(scales: np.ndarray) -> str:
    return "" if np.isfinite(scales).all() else "a scale that is not finite"


def _value(scales: np.ndarray, codes: np.ndarray, block: int, out: np.ndarray) -> None:
    each = np.stack([codes >> 4, codes & 15], axis=1).reshape(-1)[: out.size]
    out[:] = _products(each, scales, block)


def _products(codes: np.ndarray, scales: np.ndarray, block: int) -> np.ndarray:
    return _VALUES[codes] * np.repeat(scales, min(block, codes.size))[: codes.size]


@CODECS.register("e3m0", E3m0Config)
def _configured(config: E3m0Config, _: Setting) -> Codec:
    return e3m0(block=config.block, error_feedback=config.error_feedback, sums=config.sums)
