"""How a loop is compiled: for the types that it is given, without the GIL, to numpy's bits.

Machine code is compiled anew when the loop's own file changes, not when this one does: remove
``__pycache__`` then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types


def read(number: types.Type, dimensions: int = 1) -> types.Array:
    """The type of an array that is read: contiguous, at any address, perhaps not to be written."""
    return types.Array(number, dimensions, "C", readonly=True, aligned=False)


def written(number: types.Type) -> types.Array:
    """The type of a contiguous array that is written."""
    return types.Array(number, 1, "C")


def loop(*signatures: Any) -> Callable[[Callable], Callable]:
    """Compiles a function for these signatures, or reads what an earlier process compiled.

    Sums and products stay what they are written as: no reordering, no fused multiply-add.
    """

    def compiled(function: Callable) -> Callable:
        options = {"nogil": True, "error_model": "numpy"}
        try:
            return numba.njit(list(signatures), cache=True, **options)(function)
        except (RuntimeError, OSError):  # there is no folder in which it could be kept
            return numba.njit(list(signatures), **options)(function)

    return compiled


@numba.njit
def bits(number):
    """A float32's bits, uint32."""
    return np.float32(number).view(np.uint32)


@numba.njit
def magnitude(number):
    """A float32's bits but its sign, uint32: they are in the order of the magnitudes."""
    return np.uint32(np.float32(number).view(np.uint32) & 0x7FFFFFFF)


@numba.njit
def floating(pattern):
    """The float32 of these bits."""
    return np.uint32(pattern).view(np.float32)
