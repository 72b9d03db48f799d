"""Vectors and payloads that have a size and no content, for simulations too large to hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIZE_ONLY = "size_only"  # the codec with which a run moves nothing else


@dataclass(frozen=True, slots=True)
class SizeOnly:
    """A payload that has a size and no content."""

    nbytes: int


def hollow(size: int) -> np.ndarray:
    """A float32 vector of zeros in four bytes of memory: all its elements are one.

    >>> vector = hollow(1_000_000)
    >>> vector.nbytes, vector.strides
    (4000000, (0,))
    """
    return np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (size,), (0,))


def is_hollow(vector: np.ndarray) -> bool:
    """Whether all elements of a vector share their memory, as in :func:`hollow`."""
    return vector.strides == (0,)


def join(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One vector of all parts, in order; hollow if they are."""
    if all(map(is_hollow, parts)):
        return hollow(sum(part.size for part in parts))
    return np.concatenate(parts)
