"""FP16 and BF16: every element in two bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geojax.compression.codec import CODECS, Codec, Setting
from geojax.compression.halves import (
    OVERFLOWS,
    HalfFormat,
    forms,
    narrow,
    refuse_overflow,
    widen,
)
from geojax.compression.layout import Layout, layout_of
from geojax.compression.payload import add_up, count_of
from geojax.config import CompressionConfig
from geojax.settings import key


@dataclass
class HalfConfig(CompressionConfig):
    """Keys of ``compression=fp16`` and ``compression=bf16``."""

    name: str = "fp16"
    overflow: str = key(
        "saturate", "too large values become the largest, or stop the run", choices=OVERFLOWS
    )


def fp16(*, overflow: str = "saturate", compiled: bool = False) -> Codec:
    """IEEE binary16 on every hop, as the FP16 example of GeoMX sends it (Li et al., 2023).

    An element is rounded to the nearest number of 11 significant bits (relative error ≤ 2⁻¹¹ from
    2⁻¹⁴ on, absolute error ≤ 2⁻²⁵ below). A payload is 2 bytes an element and nothing else.

    Sums differ from GeoMX's, where every server adds in binary16: here a sum is made in float32, in
    the given order, and rounded when it is sent on: once at every merge on its way, so that a tree
    of d levels rounds d times. Overflow, which goes unnoticed there, is handled here.

    Args:
      overflow: what becomes of finite elements, and of sums, beyond 65504: ``saturate`` makes them
        65504 with their sign, ``stop`` ends the run. Infinities and NaN travel as they are.
      compiled: take the loops of :mod:`geojax.compression.compiled`, to the same bits.

    Raises:
      Diverged: from ``encode`` and ``combine``, with ``stop``; names the layer where it is known.

    Example:
      >>> from geojax.center.spec import VectorSpec
      >>> spec = VectorSpec.of([("w", (3,))])
      >>> codec = fp16()
      >>> state = codec.init(spec.layers, spec.chunks(3))
      >>> (payload,), _ = codec.encode(np.array([1.0, -0.1, 1e6], np.float32), state)
      >>> payload.nbytes
      6
      >>> codec.decode(payload)
      array([ 1.0000000e+00, -9.9975586e-02,  6.5504000e+04], dtype=float32)
    """
    return _codec(1, forms(compiled)[0], overflow)


def bf16(*, overflow: str = "saturate", compiled: bool = False) -> Codec:
    """Bfloat16 on every hop: the range of float32 with 8 significant bits, rounded to nearest even.

    Not in GeoMX; the format is that of Kalamkar et al. (2019), "A Study of BFLOAT16 for Deep
    Learning Training". Otherwise as :func:`fp16`; a payload is a ``uint16`` view.

    Args:
      overflow: as of :func:`fp16`, for the few float32 numbers that round beyond 3.39·10³⁸.
      compiled: as of :func:`fp16`.
    """
    return _codec(2, forms(compiled)[1], overflow)


def _codec(wire: int, form: HalfFormat, overflow: str) -> Codec:

    def encode(vector: np.ndarray, layout: Layout) -> tuple[list[np.ndarray], Layout]:
        layout.check(vector)
        if overflow == "stop":
            refuse_overflow(vector, list(layout.spans), form)
        narrowed = narrow(vector, form, overflow)
        return [narrowed[start:stop] for start, stop in layout.ranges], layout

    def decode(payload: np.ndarray) -> np.ndarray:
        return widen(payload, form)

    def combine(payloads: Sequence[np.ndarray]) -> np.ndarray:
        if len(payloads) == 1:
            return payloads[0]
        return narrow(add_up(payloads, decode, form.name), form, overflow)

    def elements(payload: np.ndarray) -> int:
        return count_of(payload, 2, form.name)

    return Codec(form.name, wire, True, layout_of, encode, decode, combine, elements)


@CODECS.register("fp16", HalfConfig)
def _fp16(config: HalfConfig, setting: Setting) -> Codec:
    return fp16(overflow=config.overflow, compiled=setting.compiled)


@CODECS.register("bf16", HalfConfig)
def _bf16(config: HalfConfig, setting: Setting) -> Codec:
    return bf16(overflow=config.overflow, compiled=setting.compiled)
