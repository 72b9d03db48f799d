"""Reading payloads: they come from the network, so every claim in them is checked before use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from geojax.errors import FrameError

MOST_ELEMENTS = 1 << 28  # of one chunk: 1 GiB of float32, the wire's largest payload
_RUN_FIELDS = 3  # start, length, bytes per element
_Member = TypeVar("_Member")


def as_bytes(payload: np.ndarray) -> np.ndarray:
    """A payload as it travels; itself, if it is that already."""
    if payload.dtype == np.uint8 and payload.ndim == 1 and payload.flags.c_contiguous:
        return payload
    return np.ascontiguousarray(payload).reshape(-1).view(np.uint8)


def as_numbers(payload: np.ndarray, dtype: Any, what: str) -> np.ndarray:
    """A payload that is nothing but numbers of ``dtype``, as a view.

    Raises:
      FrameError: its length is no multiple of the number's size; names ``what``.
    """
    count_of(payload, np.dtype(dtype).itemsize, what)
    return payload.view(dtype)


def side_by_side(
    ranges: Sequence[tuple[int, int]], size_of: Callable[[int], int]
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Room for the payloads of chunks that are coded in one call, still to be written.

    Whoever keeps one of them keeps the whole room.

    Args:
      ranges: of the chunks.
      size_of: bytes of the payload of a chunk of so many elements.

    Returns:
      Where each lies, int64 (chunks, 4): start and stop in the vector, begin and end in the room;
      the room, uint8; and the payloads, views of it that begin at multiples of four bytes.
    """
    table, end = [], 0
    for start, stop in ranges:
        begin = -(-end // 4) * 4
        end = begin + size_of(stop - start)
        table.append((start, stop, begin, end))
    room = np.empty(end, np.uint8)
    return np.array(table, np.int64), room, [room[begin:end] for _, _, begin, end in table]


def count_of(payload: Any, size: int, what: str) -> int:
    """How many numbers of ``size`` bytes a payload is that is nothing but these.

    Raises:
      FrameError: its length is no multiple of the number's size; names ``what``.
    """
    if payload.nbytes % size:
        raise FrameError(
            f"{what} payload: expected a multiple of {size} bytes, came {payload.nbytes}"
        )
    return payload.nbytes // size


def same_sizes(decoded: Sequence[int], what: str) -> None:
    """Refuses to sum chunks of different sizes.

    Raises:
      FrameError: they differ.
    """
    if len(set(decoded)) > 1:
        raise FrameError(f"{what} payloads: expected one size, came chunks of {sorted(decoded)}")


def add_up(
    members: Sequence[_Member], decode: Callable[[_Member], np.ndarray], what: str
) -> np.ndarray:
    """The sum of two or more chunks: float32, in the given order, a fresh array.

    Raises:
      FrameError: they have different sizes; names ``what``.
    """
    total = decode(members[0])
    with np.errstate(over="ignore"):  # then it is infinite, and found
        for at, member in enumerate(members[1:]):
            one = decode(member)
            if one.size != total.size:
                same_sizes([total.size, one.size], what)
            total = np.add(total, one, out=total if at else None)
    return total


class Reader:
    """Takes a payload apart from its front.

    Raises:
      FrameError: from every method, if the payload is too short or claims what cannot be.
    """

    def __init__(self, payload: np.ndarray, what: str):
        self._bytes, self._at, self._what = as_bytes(payload), 0, what

    @property
    def left(self) -> int:
        """Bytes not taken yet."""
        return self._bytes.size - self._at

    def take(self, dtype: Any, count: int) -> np.ndarray:
        """The next ``count`` numbers, as a view."""
        length = np.dtype(dtype).itemsize * count
        first, self._at = self._at, self._at + length
        if self._at > self._bytes.size:
            raise self.error(f"expected {length} more bytes, came {self._bytes.size - first}")
        return self._bytes[first : self._at].view(dtype)

    def header(self, count: int) -> list[int]:
        """The leading numbers, of which the first is the chunk's elements."""
        fields = self.take(np.uint32, count).tolist()
        if fields[0] > MOST_ELEMENTS:
            raise self.error(f"expected at most {MOST_ELEMENTS} elements, came {fields[0]}")
        return fields

    def runs(self, count: int, elements: int, widths: Sequence[int]) -> list[tuple[int, int, int]]:
        """A table of runs as ``(start, stop, bytes per element)``, ascending and disjoint."""
        if not count:
            return []
        table = self.take(np.uint32, _RUN_FIELDS * count).reshape(-1, _RUN_FIELDS).tolist()
        end, found = 0, []
        for start, length, width in table:
            if start < end or not length or start + length > elements or width not in widths:
                raise self.error(f"a run of {length} elements at {start}, {width} bytes each")
            end = start + length
            found.append((start, end, width))
        return found

    def end(self) -> None:
        """Refuses what is left over."""
        if self.left:
            raise self.error(f"{self.left} bytes too many")

    def error(self, reason: str) -> FrameError:
        """The error of this payload."""
        return FrameError(f"{self._what} payload: {reason}")


def run_table(runs: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """The bytes that :meth:`Reader.runs` reads."""
    table = [(start, stop - start, width) for start, stop, width in runs]
    return np.array(table, np.uint32).reshape(-1).view(np.uint8)
