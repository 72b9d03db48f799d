"""Compiled twins of what codecs do with every element; training processes have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Compiled(NamedTuple):
    """Programs for pieces of some sizes, each to the bits of the plain function that it stands for.

    Attributes:
      sizes: elements of a piece, descending. What is left over is the plain function's.
      narrow: by format, ``(float32) -> its payload``, saturating: :func:`..halves.narrow`.
    """

    sizes: tuple[int, ...]
    narrow: Mapping[str, Callable[[np.ndarray], np.ndarray]]


def in_pieces(
    program: Callable[[np.ndarray], np.ndarray], sizes: tuple[int, ...],
    plain: Callable[[np.ndarray, np.ndarray], None], values: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """Writes to ``out`` what a program makes of whole pieces, and the plain function of the rest.

    Args:
      program: of pieces of ``sizes``.
      sizes: see :class:`Compiled`.
      plain: ``(values, out)``, for any number of elements.
      values: contiguous.
      out: of as many elements.

    Example:
      >>> out = np.empty(9)
      >>> copy = lambda values, out: np.copyto(out, values)
      >>> in_pieces(np.negative, (4, 2), copy, np.arange(9.0), out)
      >>> out
      array([-0., -1., -2., -3., -4., -5., -6., -7.,  8.])
    """
    start = 0
    for size in sizes:
        while values.size - start >= size:
            out[start : start + size] = program(values[start : start + size])
            start += size
    plain(values[start:], out[start:])
