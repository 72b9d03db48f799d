"""Where a vector's layers and chunks lie, as codecs keep it in their state; checks of updates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from geojax.compression.codec import Ranges


class Span(NamedTuple):
    """A layer's place: its elements are ``vector[start:stop]``."""

    name: str
    start: int
    stop: int
    kind: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.stop - self.start


class Layout(NamedTuple):
    """Layers and chunks of one vector; plain values only, so that a state holding it checkpoints.

    Attributes:
      spans: the layers in order; they tile the vector.
      ranges: ``(start, stop)`` of each chunk; they tile it too.
    """

    spans: tuple[Span, ...]
    ranges: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """Number of elements of the vector."""
        return self.ranges[-1][1] if self.ranges else 0

    @property
    def state(self) -> list[tuple[int, int]]:
        """Where float model state lies, such as the statistics of BatchNorm."""
        return [(span.start, span.stop) for span in self.spans if span.kind != "parameter"]

    def check(self, vector: np.ndarray) -> None:
        """Refuses what no codec can encode.

        Raises:
          ValueError: it is not a contiguous float32 vector of this size; integer leaves of a model,
            for one, have no place in a codec.
        """
        if vector.dtype != np.float32 or vector.shape != (self.size,):
            raise ValueError(
                f"update: expected float32 of shape ({self.size},), got {vector.dtype} of shape "
                f"{vector.shape}"
            )
        if not vector.flags.c_contiguous:
            raise ValueError("update: expected contiguous elements, got a strided view")


def layout_of(layers: Sequence[Any], ranges: Ranges) -> Layout:
    """The layout of a vector of ``layers`` that travels in chunks of ``ranges``.

    Raises:
      ValueError: the layers or the chunks leave a gap, overlap, or end at different elements.
    """
    spans = tuple(Span(one.name, one.offset, one.stop, one.kind) for one in layers)
    layout = Layout(spans, tuple((start, stop) for start, stop in ranges))
    _check_tiles("layers", [(span.start, span.stop) for span in spans], layout.size)
    _check_tiles("chunks", layout.ranges, layout.size)
    return layout


def _check_tiles(what: str, pieces: Ranges, size: int) -> None:
    end = 0
    for start, stop in pieces:
        if start != end or stop < start:
            raise ValueError(
                f"{what}: one lies at [{start}, {stop}), expected it to begin at {end}"
            )
        end = stop
    if end != size:
        raise ValueError(f"{what}: they end at element {end}, the vector at {size}")


def within(spans: Sequence[tuple[int, int]], ranges: Ranges) -> Iterator[list[tuple[int, int]]]:
    """For each chunk, the parts of ascending ``spans`` in it, counted from its start.

    Neighbours are joined; both sequences are walked once.

    >>> list(within([(2, 3), (3, 6), (9, 9)], [(0, 4), (4, 8), (8, 10)]))
    [[(2, 4)], [(0, 2)], []]
    """
    at = 0
    for start, stop in ranges:
        found: list[tuple[int, int]] = []
        while at < len(spans) and spans[at][0] < stop:
            first, last = max(spans[at][0], start), min(spans[at][1], stop)
            if first < last and found and found[-1][1] == first - start:
                found[-1] = (found[-1][0], last - start)
            elif first < last:
                found.append((first - start, last - start))
            if spans[at][1] > stop:
                break  # the next chunk holds the rest
            at += 1
        yield found


def batches(ranges: Ranges, runs: Sequence[Sequence[Any]], most: int) -> Iterator[tuple[int, int]]:
    """Chunks that can be coded in one call: neighbours without runs, of so many elements at most.

    Every other chunk stays alone. Yields the first of each batch, and the one after the last.

    >>> list(batches([(0, 2), (2, 4), (4, 6), (6, 8), (8, 9)], [[], [], [], [(0, 2)], []], 4))
    [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    first = 0
    while first < len(runs):
        last, end = first + 1, ranges[first][0] + most
        while not runs[first] and last < len(runs) and not runs[last] and ranges[last][1] <= end:
            last += 1
        yield first, last
        first = last


def gaps(runs: Sequence[tuple[int, int]], elements: int) -> list[tuple[int, int]]:
    """What ascending, disjoint ``runs`` leave of ``elements``.

    >>> gaps([(0, 2), (5, 6)], 8)
    [(2, 5), (6, 8)]
    """
    edges = [0, *(edge for run in runs for edge in run), elements]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(start, stop) for start, stop in pairs if start < stop]


def gather(places: Sequence[tuple[int, int]], whole: np.ndarray) -> np.ndarray:
    """A copy of what lies at these places, one after the other.

    >>> gather([(0, 1), (3, 5)], np.arange(5))
    array([0, 3, 4])
    """
    return np.concatenate([whole[:0], *(whole[start:stop] for start, stop in places)])


def scatter(values: np.ndarray, places: Sequence[tuple[int, int]], whole: np.ndarray) -> None:
    """Writes values, which lie one after the other, to their places.

    >>> whole = np.zeros(5)
    >>> scatter(np.array([1.0, 2.0, 3.0]), [(0, 1), (3, 5)], whole)
    >>> whole
    array([1., 0., 0., 2., 3.])
    """
    at = 0
    for start, stop in places:
        whole[start:stop] = values[at : at + stop - start]
        at += stop - start
