"""Finds NaN and infinity in what a worker offers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geojax.center.spec import Layer

_BLOCK = 65_536  # elements at a time: what is in work stays in the cache
_MAGNITUDE = np.uint32(0x7FFFFFFF)  # all bits of a float32 but its sign
_INFINITY = 0x7F800000  # bits of infinity; those of NaN are above


def nonfinite_layers(vector: np.ndarray, layers: Sequence[Layer]) -> list[str]:
    """Names of the layers that hold NaN or infinity, in their order.

    Reads the vector once; only if it is not all finite, layers are looked at one by one.

    Args:
      vector: float32 (n,).
      layers: its layers.

    Example:
      >>> from geojax.center.spec import VectorSpec
      >>> layers = VectorSpec.of([("w", (2,)), ("b", (1,))]).layers
      >>> nonfinite_layers(np.array([1.0, 2.0, np.nan], np.float32), layers)
      ['b']
    """
    if _finite(vector):
        return []
    return [one.name for one in layers if not _finite(vector[one.offset : one.stop])]


def _finite(values: np.ndarray) -> bool:
    bits = values.view(np.uint32)
    blocks = (bits[start : start + _BLOCK] for start in range(0, bits.size, _BLOCK))
    return all(np.bitwise_and(block, _MAGNITUDE).max() < _INFINITY for block in blocks)
