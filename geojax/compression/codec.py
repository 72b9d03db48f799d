"""What a codec is: pure functions between the dense vector and the payloads of its chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Ranges = Sequence[tuple[int, int]]


class Codec(NamedTuple):
    """A codec as a record of pure functions; its state is a pytree of arrays that checkpoints.

    Attributes:
      name: configured name.
      wire: number in the frame header.
      exact_combine: ``combine`` loses nothing, so the codec may be used on trees of any depth.
      init: ``(layers, ranges) -> state``. ``layers`` are the vector's layers in order, ``ranges``
        the ``(start, stop)`` of each chunk.
      encode: ``(vector, state) -> (payloads, state)``, one self-contained payload per chunk.
      decode: ``(payload) -> float32 array`` of the chunk's elements.
      combine: ``(payloads of one chunk, in member order) -> payload`` of their sum, accumulated in
        float32.
    """

    name: str
    wire: int
    exact_combine: bool
    init: Callable[[Sequence[Any], Ranges], Any]
    encode: Callable[[np.ndarray, Any], tuple[list[np.ndarray], Any]]
    decode: Callable[[np.ndarray], np.ndarray]
    combine: Callable[[Sequence[np.ndarray]], np.ndarray]
