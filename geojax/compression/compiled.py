"""Compiled twins of what codecs do with every element; training processes have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np


class Compiled(NamedTuple):
    """Programs for pieces of some sizes, each to the bits of the plain function that it stands for.

    Attributes:
      sizes: elements of a piece, descending. What is left over is the plain function's.
      narrow: by format, ``(float32) -> its payload``, saturating: :func:`..halves.narrow`.
      widen: by format, ``(payload) -> float32``: :func:`..halves.widen`.
      two_bits: ``(float32, residual, threshold) -> (codes, remainder)`` of their sum, as of
        :func:`..twobit.twobit`, but for one thing: a remainder below 2⁻¹²⁶ may be zero instead.
    """

    sizes: tuple[int, ...]
    narrow: Mapping[str, Callable[[np.ndarray], np.ndarray]]
    widen: Mapping[str, Callable[[np.ndarray], np.ndarray]]
    two_bits: Callable[[np.ndarray, np.ndarray, np.float32], tuple[np.ndarray, np.ndarray]]


def in_pieces(
    program: Callable[[np.ndarray], np.ndarray] | None, sizes: tuple[int, ...],
    plain: Callable[[np.ndarray, np.ndarray], None], values: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """Writes to ``out`` what a program makes of whole pieces, and the plain function of the rest.

    Args:
      program: of pieces of ``sizes``; None: there is none.
      sizes: see :class:`Compiled`.
      plain: ``(values, out)``, for any number of elements.
      values: contiguous.
      out: of as many elements, or a whole fraction of them.

    Example:
      >>> out = np.empty(9)
      >>> copy = lambda values, out: np.copyto(out, values)
      >>> in_pieces(np.negative, (4, 2), copy, np.arange(9.0), out)
      >>> out
      array([-0., -1., -2., -3., -4., -5., -6., -7.,  8.])
    """
    per = values.size // max(out.size, 1)
    for start, stop, whole in cuts(values.size, sizes if program is not None else ()):
        there = out[start // per : stop // per]
        if whole and program is not None:
            there[:] = program(values[start:stop])
        else:
            plain(values[start:stop], there)


def cuts(elements: int, sizes: tuple[int, ...]) -> Iterator[tuple[int, int, bool]]:
    """Cuts elements in pieces of descending sizes, and tells of each whether it has such a size.

    >>> list(cuts(11, (4, 2)))
    [(0, 4, True), (4, 8, True), (8, 10, True), (10, 11, False)]
    """
    start = 0
    for size in sizes:
        while elements - start >= size:
            yield start, start + size, True
            start += size
    if start < elements:
        yield start, elements, False
