"""The dense codec: every element as float32. Its decode is a view, its combine a float32 sum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geojax.compression.codec import CODECS, Codec
from geojax.compression.layout import Layout, layout_of
from geojax.compression.payload import add_up, as_numbers, count_of


def dense() -> Codec:
    """Float32 as it is. Its state is the layout.

    Example:
      >>> from geojax.center.spec import VectorSpec
      >>> spec = VectorSpec.of([("w", (3,))])
      >>> codec = dense()
      >>> state = codec.init(spec.layers, [(0, 2), (2, 3)])
      >>> payloads, _ = codec.encode(np.array([1.0, 2.0, 3.0], np.float32), state)
      >>> codec.decode(codec.combine([payloads[0], payloads[0]]))
      array([2., 4.], dtype=float32)
    """
    return Codec("dense", 0, True, layout_of, _encode, _decode, _combine, _elements)


def _encode(vector: np.ndarray, layout: Layout) -> tuple[list[np.ndarray], Layout]:
    layout.check(vector)
    return [vector[start:stop] for start, stop in layout.ranges], layout


def _decode(payload: np.ndarray) -> np.ndarray:
    return as_numbers(payload, np.float32, "dense")


def _combine(payloads: Sequence[np.ndarray]) -> np.ndarray:
    return payloads[0] if len(payloads) == 1 else add_up(payloads, _decode, "dense")


def _elements(payload: np.ndarray) -> int:
    return count_of(payload, 4, "dense")


@CODECS.register("dense")
def _configured(*_: object) -> Codec:
    return dense()
