"""The pieces of the vector that are merged and applied on their own.

Usually there is one: all of it. With P3 (Jayarajan et al., *Priority-based Parameter Propagation
for Distributed DNN Training*, MLSys 2019) every stage of the model is one, so that the exchange of
one stage overlaps with the computation of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from geojax.center.spec import VectorSpec


class Bucket(NamedTuple):
    """A contiguous piece of the vector.

    Attributes:
      index: its place among the buckets.
      start: first element.
      stop: one past the last element.
      spec: layout of the piece alone.
      ranges: its chunks, as ranges of its own elements.
      chunks: their indices among all chunks.
    """

    index: int
    start: int
    stop: int
    spec: VectorSpec
    ranges: tuple[tuple[int, int], ...]
    chunks: range

    @property
    def nbytes(self) -> int:
        """Size as float32."""
        return 4 * (self.stop - self.start)

    def of(self, vector: np.ndarray) -> np.ndarray:
        """Its piece of a whole vector, a view."""
        return vector[self.start : self.stop]


def buckets_of(
    spec: VectorSpec, stops: Sequence[int], ranges: Sequence[tuple[int, int]]
) -> tuple[Bucket, ...]:
    """Cuts a vector and its chunks into buckets.

    Args:
      spec: layout of the whole vector.
      stops: one past the last element of every bucket, in order.
      ranges: the chunks of the whole vector, none of which crosses from part to part.

    >>> spec = VectorSpec.of([("a", (4,)), ("b", (3,))])
    >>> [(b.start, b.ranges, b.chunks) for b in buckets_of(spec, [7], [(0, 5), (5, 7)])]
    [(0, ((0, 5), (5, 7)), range(0, 2))]
    """
    buckets: list[Bucket] = []
    start = chunk = 0
    for index, stop in enumerate(stops):
        first = chunk
        while chunk < len(ranges) and ranges[chunk][1] <= stop:
            chunk += 1
        mine = tuple((begin - start, end - start) for begin, end in ranges[first:chunk])
        own = spec if (start, stop) == (0, spec.size) else spec.part(start, stop)
        buckets.append(Bucket(index, start, stop, own, mine, range(first, chunk)))
        start = stop
    return tuple(buckets)
