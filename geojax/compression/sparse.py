"""The payload of a chunk that is partly dense and partly sparse; how such payloads are summed.

::

    elements, runs, entries, index form          4 x uint32
    start, length, bytes per element             3 x uint32, of each run
    values of the runs of 4 bytes                float32
    values of the entries                        float32
    values of the runs of 2 bytes                binary16
    positions of the entries                     see below

A run is dense. What lies in no run is zero but for the entries. Positions ascend and are written in
the shortest of three forms: as their distances in bytes, where 255 means "255 and more follows" (at
1 % of the elements, about 1.1 bytes a position); as uint16; as int32.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from geojax.compression.halves import FLOAT16, narrow, widen
from geojax.compression.layout import gaps
from geojax.compression.payload import Reader, add_up

_HEADER = 4
_DISTANCES, _UINT16, _INT32 = range(3)
_MORE = 255
_FLOAT32, _FLOAT16 = 4, 2  # bytes per element of a run


class Run(NamedTuple):
    """Neighbouring elements of a chunk, as float32; they take ``width`` bytes each on the wire."""

    start: int
    values: np.ndarray
    width: int

    @property
    def stop(self) -> int:
        """One past the last element."""
        return self.start + self.values.size


class SparseChunk(NamedTuple):
    """A chunk: ``elements`` of them, dense runs, and entries at ascending positions (int64)."""

    elements: int
    runs: list[Run]
    positions: np.ndarray
    values: np.ndarray


Distances = Callable[[np.ndarray, int], np.ndarray | None]
"""``(ascending positions, room) -> bytes``, or None where these are more than ``room``; see
:func:`distances`."""


def distances(positions: np.ndarray, room: int) -> np.ndarray | None:
    """How far each position lies behind the one before it, 255 for each 255 and then the rest."""
    between = np.diff(positions, prepend=-1) - 1
    more = between // _MORE
    if positions.size + more.sum() > room:
        return None
    ends = np.cumsum(more + 1) - 1
    written = np.full(ends[-1] + 1, _MORE, np.uint8)
    written[ends] = between % _MORE
    return written


def distances_by(compiled: bool) -> Distances:
    """:func:`distances`, or the same with its loop compiled."""
    if not compiled:
        return distances
    from geojax.compression.compiled import sparse

    return sparse.distances


def shortest(positions: np.ndarray, distances: Distances = distances) -> tuple[int, np.ndarray]:
    """The form of ascending positions that takes the fewest bytes, and those bytes."""
    if not positions.size:
        return _DISTANCES, np.empty(0, np.uint8)
    fixed, dtype = (_UINT16, np.uint16) if positions[-1] < 1 << 16 else (_INT32, np.int32)
    written = distances(positions, positions.size * np.dtype(dtype).itemsize)
    return (fixed, positions.astype(dtype)) if written is None else (_DISTANCES, written)


def _narrow(values: np.ndarray) -> np.ndarray:
    return narrow(values, FLOAT16, "saturate")


def pack(
    chunk: SparseChunk, to_half: Callable[[np.ndarray], np.ndarray] = _narrow,
    distances: Distances = distances,
) -> np.ndarray:  # fmt: skip
    """The payload of a chunk; everything becomes runs where that is no longer than the entries.

    Args:
      chunk: what is packed.
      to_half: rounds the values of runs of 2 bytes.
      distances: writes positions.

    Example:
      >>> runs = [Run(0, np.ones(2, np.float32), 4)]
      >>> few = SparseChunk(9, runs, np.array([7]), np.ones(1, np.float32))
      >>> pack(few).nbytes
      41
      >>> dense(unpack(pack(few), "test"))
      array([1., 1., 0., 0., 0., 0., 0., 1., 0.], dtype=float32)
    """
    form, positions = shortest(chunk.positions, distances)
    entries = chunk.positions.size * _FLOAT32 + positions.nbytes
    rest = chunk.elements - sum(run.values.size for run in chunk.runs)
    if rest and entries >= _FLOAT32 * rest:
        chunk = _filled(chunk)
        form, positions = shortest(chunk.positions, distances)
    header = [chunk.elements, len(chunk.runs), chunk.positions.size, form]
    for run in chunk.runs:
        header += (run.start, run.values.size, run.width)
    pieces = [
        np.array(header, np.uint32),
        *(run.values for run in chunk.runs if run.width == _FLOAT32),
        chunk.values,
        *(to_half(run.values) for run in chunk.runs if run.width == _FLOAT16),
        positions,
    ]
    return np.concatenate([piece.view(np.uint8) for piece in pieces])


def unpack(payload: np.ndarray, what: str) -> SparseChunk:
    """The inverse of :func:`pack`.

    Raises:
      FrameError: the bytes are no such payload; names ``what``.
    """
    reader = Reader(payload, what)
    elements, count, entries, form = reader.header(_HEADER)
    if entries > elements:
        raise reader.error(f"{entries} entries in {elements} elements")
    table = reader.runs(count, elements, (_FLOAT32, _FLOAT16))
    runs = {}
    for start, stop, width in table:
        if width == _FLOAT32:
            runs[start] = Run(start, reader.take(np.float32, stop - start), width)
    values = reader.take(np.float32, entries)
    for start, stop, width in table:
        if width == _FLOAT16:
            halves = reader.take(np.float16, stop - start)
            runs[start] = Run(start, widen(halves, FLOAT16), width)
    positions = read_positions(reader, form, entries)
    reader.end()
    check_positions(reader, positions, table, elements)
    return SparseChunk(elements, [runs[start] for start, _, _ in table], positions, values)


def dense(chunk: SparseChunk) -> np.ndarray:
    """The chunk as a float32 array."""
    whole = np.zeros(chunk.elements, np.float32)
    for run in chunk.runs:
        whole[run.start : run.stop] = run.values
    whole[chunk.positions] = chunk.values
    return whole


def unite(members: Sequence[SparseChunk], what: str) -> SparseChunk:
    """The sum of chunks: float32, in the given order.

    A position that is an entry of any member is an entry of the sum, and a run of any is a run of
    it, of 4 bytes if any member has 4 there; so nothing is lost, and sums of sums are the sum.

    Raises:
      FrameError: the chunks have different sizes; names ``what``.
    """
    total = add_up(members, dense, what)
    width = np.zeros(total.size, np.uint8)
    for chunk in members:
        for run in chunk.runs:
            np.maximum(width[run.start : run.stop], run.width, out=width[run.start : run.stop])
    present = np.zeros(total.size, bool)
    for chunk in members:
        present[chunk.positions] = True
    positions = np.flatnonzero(present & (width == 0))
    return SparseChunk(total.size, _runs(total, width), positions, total[positions])


def _runs(whole: np.ndarray, width: np.ndarray) -> list[Run]:
    """The runs of an array by the bytes that each element takes; 0: it is in none."""
    edges = np.flatnonzero(np.diff(width)) + 1
    bounds = [0, *edges.tolist(), width.size]
    pairs = itertools.pairwise(bounds)
    return [Run(a, whole[a:b], int(width[a])) for a, b in pairs if a < b and width[a]]


def _filled(chunk: SparseChunk) -> SparseChunk:
    """The same chunk with nothing but runs."""
    width = np.zeros(chunk.elements, np.uint8)
    for start, stop in gaps([(run.start, run.stop) for run in chunk.runs], chunk.elements):
        width[start:stop] = _FLOAT32
    for run in chunk.runs:
        width[run.start : run.stop] = run.width
    none = np.empty(0, np.int64)
    return SparseChunk(chunk.elements, _runs(dense(chunk), width), none, np.empty(0, np.float32))


def read_positions(reader: Reader, form: int, entries: int) -> np.ndarray:
    """Positions that :func:`shortest` wrote; they are the last bytes of a payload."""
    if form == _UINT16:
        return reader.take(np.uint16, entries).astype(np.int64)
    if form == _INT32:
        return reader.take(np.int32, entries).astype(np.int64)
    if form != _DISTANCES:
        raise reader.error(f"expected an index form of 0 to 2, came {form}")
    written = reader.take(np.uint8, reader.left)
    ends = np.flatnonzero(written != _MORE)
    if ends.size != entries or (written.size and written[-1] == _MORE):
        raise reader.error(f"expected {entries} distances, came {ends.size}")
    return np.cumsum(written, dtype=np.int64)[ends] + np.arange(entries)


def check_positions(
    reader: Reader, positions: np.ndarray, table: list[tuple[int, int, int]], elements: int
) -> None:
    """Refuses positions that do not ascend within the elements, or lie in runs of the table."""
    if not positions.size:
        return
    if positions[0] < 0 or positions[-1] >= elements or np.any(np.diff(positions) < 1):
        raise reader.error(f"positions: expected them to ascend within {elements} elements")
    if table:
        starts, stops, _ = np.array(table, np.int64).T
        before = np.searchsorted(starts, positions, "right")
        if np.any(positions < np.append(0, stops)[before]):
            raise reader.error("positions: expected them outside of the runs")
