"""The codec of large simulations: what travels has the size of dense chunks and no content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from geojax.compression.codec import CODECS, Codec, Ranges
from geojax.compression.payload import count_of
from geojax.hollow import SIZE_ONLY, SizeOnly, hollow

_ELEMENT_BYTES = 4  # of a float32


class SizeOnlyState(NamedTuple):
    """State of :func:`size_only`: the payload of every chunk, the same in every round."""

    payloads: tuple[SizeOnly, ...]


def size_only() -> Codec:
    """Payloads without content; all vectors count as zero.

    Example:
      >>> codec = size_only()
      >>> payloads, _ = codec.encode(hollow(10), codec.init((), [(0, 6), (6, 10)]))
      >>> payloads
      [SizeOnly(nbytes=24), SizeOnly(nbytes=16)]
      >>> codec.decode(codec.combine([payloads[1], payloads[1]]))
      array([0., 0., 0., 0.], dtype=float32)
    """
    encode: Any = _encode  # a payload need not be an array
    decode: Any = _decode
    combine: Any = _combine
    return Codec(SIZE_ONLY, 0, True, _init, encode, decode, combine, _elements)


def _init(layers: Sequence[Any], ranges: Ranges) -> SizeOnlyState:
    del layers
    return SizeOnlyState(tuple(SizeOnly((stop - start) * _ELEMENT_BYTES) for start, stop in ranges))


def _encode(vector: np.ndarray, state: SizeOnlyState) -> tuple[list[SizeOnly], SizeOnlyState]:
    del vector
    return list(state.payloads), state


def _decode(payload: SizeOnly) -> np.ndarray:
    return hollow(_elements(payload))


def _combine(payloads: Sequence[SizeOnly]) -> SizeOnly:
    return payloads[0]


def _elements(payload: Any) -> int:
    return count_of(payload, _ELEMENT_BYTES, SIZE_ONLY)


@CODECS.register(SIZE_ONLY)
def _configured(*_: object) -> Codec:
    return size_only()
