"""The dense codec: every element as float32. Its decode is a view, its combine a float32 sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from geojax.compression.codec import Codec, Ranges
from geojax.compression.layout import check_update
from geojax.compression.payload import as_floats, same_sizes


class DenseState(NamedTuple):
    """State of :func:`dense`: nothing but the chunk boundaries."""

    ranges: tuple[tuple[int, int], ...]


def dense() -> Codec:
    """Float32 as it is.

    Example:
      >>> codec = dense()
      >>> state = codec.init((), [(0, 2), (2, 3)])
      >>> payloads, _ = codec.encode(np.array([1.0, 2.0, 3.0], np.float32), state)
      >>> codec.decode(codec.combine([payloads[0], payloads[0]]))
      array([2., 4.], dtype=float32)
    """
    return Codec("dense", 0, True, _init, _encode, _decode, _combine)


def _init(layers: Sequence[Any], ranges: Ranges) -> DenseState:
    del layers
    return DenseState(tuple(ranges))


def _encode(vector: np.ndarray, state: DenseState) -> tuple[list[np.ndarray], DenseState]:
    check_update(vector, state.ranges[-1][1] if state.ranges else 0)
    return [vector[start:stop] for start, stop in state.ranges], state


def _decode(payload: np.ndarray) -> np.ndarray:
    return as_floats(payload, np.float32, "dense")


def _combine(payloads: Sequence[np.ndarray]) -> np.ndarray:
    if len(payloads) == 1:
        return payloads[0]
    same_sizes([payload.nbytes for payload in payloads], "dense")
    total = np.add(_decode(payloads[0]), _decode(payloads[1]))
    for payload in payloads[2:]:
        np.add(total, _decode(payload), out=total)
    return total
