"""The pieces of the vector that are merged and applied on their own.

Usually there is one: all of it. With ``overlay.pieces`` there are so many of about one size: while
the WAN merges one, the LANs carry others. With P3 (Jayarajan et al., *Priority-based Parameter
Propagation for Distributed DNN Training*, MLSys 2019) every stage of the model is one, so that the
exchange of one stage overlaps with the computation of others; a round exchanges all of them. With
fragments every fragment is one, and rounds exchange them in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from geojax.center.fragments import Pieces
from geojax.center.spec import VectorSpec
from geojax.hollow import hollow, is_hollow, join

Chunks = range | tuple[int, ...]
"""Indices of chunks, ascending."""


class Bucket(NamedTuple):
    """A part of the vector.

    Attributes:
      index: its place among the buckets.
      pieces: where it lies in the vector.
      spec: layout of the bucket alone: its pieces one after the other.
      ranges: its chunks, as ranges of its own elements.
      chunks: their indices among all chunks.
    """

    index: int
    pieces: Pieces
    spec: VectorSpec
    ranges: tuple[tuple[int, int], ...]
    chunks: Chunks

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.spec.size

    @property
    def nbytes(self) -> int:
        """Size as float32."""
        return 4 * self.size

    def of(self, vector: np.ndarray) -> np.ndarray:
        """Its part of a whole vector; a view where it lies in one piece."""
        parts = [vector[start:stop] for start, stop in self.pieces]
        return parts[0] if len(parts) == 1 else join(parts)

    def split(self, values: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
        """``(start, stop, values)`` of each piece, as views of the bucket's ``values``."""
        found, at = [], 0
        for start, stop in self.pieces:
            found.append((start, stop, values[at : at + stop - start]))
            at += stop - start
        return found

    def put(self, vector: np.ndarray, values: np.ndarray) -> np.ndarray:
        """A fresh vector with these values where the bucket lies; hollow ones stay hollow."""
        if is_hollow(vector):
            return hollow(vector.size)
        changed = vector.copy()
        for start, stop, piece in self.split(values):
            changed[start:stop] = piece
        return changed


def buckets_of(
    spec: VectorSpec, parts: Sequence[Pieces], ranges: Sequence[tuple[int, int]]
) -> tuple[Bucket, ...]:
    """Cuts a vector and its chunks into buckets.

    Args:
      spec: layout of the whole vector.
      parts: where each bucket lies.
      ranges: the chunks of the whole vector, none of which crosses from piece to piece.

    >>> spec = VectorSpec.of([("a", (4,)), ("b", (3,)), ("c", (2,))])
    >>> chunks = [(0, 3), (3, 4), (4, 7), (7, 9)]
    >>> [(b.ranges, b.chunks) for b in buckets_of(spec, [[(0, 9)]], chunks)]
    [(((0, 3), (3, 4), (4, 7), (7, 9)), range(0, 4))]
    >>> one, two = buckets_of(spec, [[(0, 4), (7, 9)], [(4, 7)]], chunks)
    >>> one.ranges, one.chunks, [layer.name for layer in one.spec.layers]
    (((0, 3), (3, 4), (4, 6)), (0, 1, 3), ['a', 'c'])
    """
    return tuple(_bucket(spec, index, tuple(part), ranges) for index, part in enumerate(parts))


def _bucket(
    spec: VectorSpec, index: int, pieces: Pieces, ranges: Sequence[tuple[int, int]]
) -> Bucket:
    mine: list[tuple[int, int]] = []
    chunks: list[int] = []
    shift = end = 0
    for start, stop in pieces:
        shift += start - end  # what lies between the pieces
        end = stop
        for chunk, (first, last) in enumerate(ranges):
            if start <= first and last <= stop:
                mine.append((first - shift, last - shift))
                chunks.append(chunk)
    own = VectorSpec.joined([spec.cut(*piece) for piece in pieces])
    neighbours = bool(chunks) and chunks[-1] - chunks[0] + 1 == len(chunks)
    indices = range(chunks[0], chunks[-1] + 1) if neighbours else tuple(chunks)
    return Bucket(index, pieces, own, tuple(mine), indices)


class Turns(NamedTuple):
    """Which buckets each round exchanges: all, or one at a time."""

    buckets: tuple[Bucket, ...]
    in_turn: bool = False

    def of(self, number: int) -> tuple[Bucket, ...]:
        """The buckets of a round."""
        if not self.in_turn:
            return self.buckets
        return (self.buckets[number % len(self.buckets)],)
