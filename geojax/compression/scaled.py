"""Codes with a scale for every block: payloads, error feedback and sums of e3m0, int8 and int4.

::

    elements, runs, elements of a block          3 x uint32
    which grid, where a codec has several        uint32
    start, length, bytes per element             3 x uint32, of each run
    scales of the blocks                         float32, or bfloat16
    values of the runs                           float32, or bfloat16
    codes                                        4 or 8 bits an element

Runs travel whole, as float model state does. What lies in no run is coded; only these elements
count in the blocks, of which the last may be short. Of two codes in a byte the first is in the
higher half.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from geojax.compression.codec import Codec
from geojax.compression.dense import dense
from geojax.compression.halves import BFLOAT16, narrow, widen
from geojax.compression.layout import (
    Layout,
    Span,
    batches,
    gaps,
    gather,
    layout_of,
    scatter,
    within,
)
from geojax.compression.payload import Reader, add_up, side_by_side
from geojax.errors import Diverged

Runs = Sequence[tuple[int, int]]
FLOAT32, BFLOAT = "float32", "bf16"  # how a sum may travel, beside the grids' names
_WIDTHS = {FLOAT32: 4, BFLOAT: 2}  # bytes per element of a run
_FIELDS = 3
_BATCH = 1 << 22  # elements that are coded in one call, unless a chunk has more

Several = Callable[
    [np.ndarray, np.ndarray, int, np.ndarray, np.ndarray, np.ndarray, np.ndarray], bool
]
"""``(vector, before, block, header, table, room, left) -> whether it can``; see :class:`Grid`."""


class Grid(NamedTuple):
    """The values that the elements of a block may take, and their codes.

    Attributes:
      name: for messages and settings.
      bits: of a code, 4 or 8.
      scale: of a scale in a payload.
      code: ``(values, before, block, scales, codes, left) -> whether it can``: writes the scale of
        each block and the codes of float32 ``values + before``, and to ``left`` what the codes do
        not say; before and left are None where there is no error feedback. Where it cannot, as with
        NaN, what it has written is of no use.
      check: ``(scales) -> what is wrong with these, if anything``.
      value: ``(scales, codes, block, out)``: writes what codes stand for.
      several: the same for several chunks without runs, with error feedback: writes their whole
        payloads into the room of :func:`side_by_side`. The header is that of each of them, uint32,
        but for its first number. None: the grid codes one chunk after the other.
    """

    name: str
    bits: int
    scale: np.dtype
    code: Callable[
        [np.ndarray, np.ndarray | None, int, np.ndarray, np.ndarray, np.ndarray | None], bool
    ]
    check: Callable[[np.ndarray], str]
    value: Callable[[np.ndarray, np.ndarray, int, np.ndarray], None]
    several: Several | None = None


class Family(NamedTuple):
    """A codec of grids.

    Attributes:
      name: of the codec.
      grids: offers take the first; sums may take another one.
      block: elements with a scale of their own.
      feedback: v ← v + x, send q(v), v ← v - q(v), instead of q(x).
      sums: how a sum travels: the name of a grid, or ``float32`` or ``bf16``.
    """

    name: str
    grids: tuple[Grid, ...]
    block: int
    feedback: bool
    sums: str


class ScaledState(NamedTuple):
    """State of a codec of this family.

    Attributes:
      layout: where layers and chunks lie.
      residual: what has not been sent yet, float32 (elements of the vector,); (0,) without error
        feedback.
    """

    layout: Layout
    residual: np.ndarray


class _Parsed(NamedTuple):
    """A payload taken apart; ``values`` of its runs as they travel."""

    elements: int
    block: int
    runs: list[tuple[int, int]]
    grid: Grid
    scales: np.ndarray
    values: list[np.ndarray]
    codes: np.ndarray


def scaled_codec(family: Family, wire: int, *, recodable: bool) -> Codec:
    """A codec whose offers are codes with scales; sums travel as ``family.sums`` says.

    Args:
      family: its grids and settings.
      wire: number in the frame header.
      recodable: whether sums may be encoded again at every hop of a deep tree.
    """
    first = family.grids[0]

    def init(layers: Sequence, ranges: Sequence[tuple[int, int]]) -> ScaledState:
        layout = layout_of(layers, ranges)
        return ScaledState(layout, np.zeros(layout.size if family.feedback else 0, np.float32))

    def encode(vector: np.ndarray, state: ScaledState) -> tuple[list[np.ndarray], ScaledState]:
        layout = state.layout
        layout.check(vector)
        kept = np.empty(state.residual.size, np.float32)
        written: list[np.ndarray | None] = []
        runs = list(within(layout.state, layout.ranges))
        several = first.several if family.feedback else None
        alone = ((at, at + 1) for at in range(len(runs)))
        for at, after in batches(layout.ranges, runs, _BATCH) if several else alone:
            if several and not runs[at]:
                ranges = layout.ranges[at:after]
                written += _all_coded(family, several, vector, ranges, state.residual, kept)
                continue
            start, stop = layout.ranges[at]
            before, left = (
                (state.residual[start:stop], kept[start:stop]) if family.feedback else (None, None)
            )
            written.append(_coded(family, first, vector[start:stop], runs[at], before, left))
        payloads = [payload for payload in written if payload is not None]
        if len(payloads) < len(written):
            raise _diverged(family, vector, layout.spans)
        return payloads, ScaledState(layout, kept)

    def decode(payload: np.ndarray) -> np.ndarray:
        return _decode(_parse(payload, family))

    def combine(payloads: Sequence[np.ndarray]) -> np.ndarray:
        if len(payloads) == 1:
            return payloads[0]
        parsed = [_parse(payload, family) for payload in payloads]
        total = add_up(parsed, _decode, family.name)
        grid = next((one for one in family.grids if one.name == family.sums), None)
        if grid is not None:
            payload = _coded(family, grid, total, parsed[0].runs)
            if payload is not None:
                return payload
        return _whole(family, total, _WIDTHS.get(family.sums, 4))

    def elements(payload: np.ndarray) -> int:
        return _parse(payload, family).elements

    return Codec(family.name, wire, recodable, init, encode, decode, combine, elements, lan=dense())


def _diverged(family: Family, vector: np.ndarray, spans: Sequence[Span]) -> Diverged:
    """The error of a vector that no code can tell; names the layer of the first such element."""
    for span in spans:
        if span.kind == "parameter" and not np.isfinite(vector[span.start : span.stop]).all():
            return Diverged(
                f"{span.name}: NaN or infinity, which compression={family.name} cannot send"
            )
    parameters = [span for span in spans if span.kind == "parameter" and span.size]
    largest = max(parameters, key=lambda span: np.abs(vector[span.start : span.stop]).max())
    return Diverged(
        f"{largest.name}: more than compression={family.name} can send, with what it has kept"
    )


def _all_coded(
    family: Family, several: Several, vector: np.ndarray, ranges: Sequence[tuple[int, int]],
    before: np.ndarray, left: np.ndarray,
) -> list[np.ndarray] | list[None]:  # fmt: skip
    """The payloads of neighbouring chunks without runs on the first grid, as of :func:`_coded`."""
    grid = family.grids[0]
    header = np.array([0, 0, family.block, 0][: _FIELDS + (len(family.grids) > 1)], np.uint32)

    def size_of(elements: int) -> int:
        scales = _blocks(elements, family.block) * grid.scale.itemsize
        return header.nbytes + scales + _code_bytes(elements, grid)

    table, room, payloads = side_by_side(ranges, size_of)
    done = several(vector, before, family.block, header, table, room, left)
    return payloads if done else [None]


def _coded(
    family: Family, grid: Grid, chunk: np.ndarray, runs: Runs, before: np.ndarray | None = None,
    left: np.ndarray | None = None,
) -> np.ndarray | None:  # fmt: skip
    """The payload of a chunk on a grid; None: its elements have no codes.

    Args:
      family: the codec.
      grid: one of its grids.
      chunk: the elements; those of the runs travel whole.
      runs: where these lie.
      before: what was not sent before; with error feedback.
      left: gets what the codes do not say, and 0 in the runs.
    """
    payload, scales, codes = _framed(
        family, grid, chunk.size, runs, 4, [chunk[start:stop] for start, stop in runs]
    )
    if not runs:
        done = grid.code(chunk, before, family.block, scales, codes, left)
        return payload if done else None
    rest = gaps(runs, chunk.size)
    values = gather(rest, chunk)
    kept = None if before is None else gather(rest, before)
    remainder = None if left is None else np.empty_like(values)
    if not grid.code(values, kept, family.block, scales, codes, remainder):
        return None
    if left is not None and remainder is not None:
        left[:] = 0.0
        scatter(remainder, rest, left)
    return payload


def accumulated(
    values: np.ndarray, before: np.ndarray | None, left: np.ndarray | None
) -> np.ndarray:
    """What a grid codes: the values, or ``left``, into which values and what was kept are added."""
    if before is None:
        return values
    with np.errstate(over="ignore", invalid="ignore"):  # found by who looks at the largest
        return np.add(values, before, out=left)


def _whole(family: Family, total: np.ndarray, width: int) -> np.ndarray:
    """The payload of a chunk that is one run of ``width`` bytes an element."""
    runs = [(0, total.size)] if total.size else []
    return _framed(family, family.grids[0], total.size, runs, width, [total][: len(runs)])[0]


def _framed(
    family: Family, grid: Grid, elements: int, runs: Runs, width: int,
    values: Sequence[np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """A payload in which scales and codes are still to be written, and the two as views."""
    header = [elements, len(runs), family.block]
    if len(family.grids) > 1:
        header.append(family.grids.index(grid))
    for start, stop in runs:
        header += (start, stop - start, width)
    count = sum(run.size for run in values)
    begin = 4 * len(header)
    at = after = begin + _blocks(elements - count, family.block) * grid.scale.itemsize
    end = after + count * width
    payload = np.empty(end + _code_bytes(elements - count, grid), np.uint8)
    struct.pack_into(f"={len(header)}I", payload.data, 0, *header)
    for run in values:
        written = narrow(run, BFLOAT16, "saturate") if width == _WIDTHS[BFLOAT] else run
        payload[at : at + written.nbytes] = np.ascontiguousarray(written).view(np.uint8)
        at += written.nbytes
    return payload, payload[begin:after].view(grid.scale), payload[end:]


def _parse(payload: np.ndarray, family: Family) -> _Parsed:
    reader = Reader(payload, family.name)
    elements, count, block, *kinds = reader.header(_FIELDS + (len(family.grids) > 1))
    if block < 1:
        raise reader.error("blocks of no element")
    kind = kinds[0] if kinds else 0
    if kind >= len(family.grids):
        raise reader.error(f"expected a grid of 0 to {len(family.grids) - 1}, came {kind}")
    grid = family.grids[kind]
    table = reader.runs(count, elements, tuple(_WIDTHS.values()))
    coded = elements - sum(stop - start for start, stop, _ in table)
    scales = reader.take(grid.scale, _blocks(coded, block))
    if wrong := grid.check(scales):
        raise reader.error(wrong)
    values = [
        reader.take(np.float32 if width == _WIDTHS[FLOAT32] else np.uint16, stop - start)
        for start, stop, width in table
    ]
    codes = reader.take(np.uint8, _code_bytes(coded, grid))
    reader.end()
    runs = [(start, stop) for start, stop, _ in table]
    return _Parsed(elements, block, runs, grid, scales, values, codes)


def _decode(parsed: _Parsed) -> np.ndarray:
    whole = coded = np.empty(parsed.elements, np.float32)
    rest = gaps(parsed.runs, parsed.elements) if parsed.runs else ()
    if parsed.runs:
        coded = np.empty(sum(stop - start for start, stop in rest), np.float32)
    if coded.size:
        block = min(parsed.block, coded.size)  # one scale serves all of a longer one
        parsed.grid.value(parsed.scales, parsed.codes, block, coded)
    for (start, stop), run in zip(parsed.runs, parsed.values, strict=True):
        whole[start:stop] = run if run.dtype == np.float32 else widen(run, BFLOAT16)
    if parsed.runs:
        scatter(coded, rest, whole)
    return whole


def _blocks(elements: int, block: int) -> int:
    return -(-elements // block)


def _code_bytes(elements: int, grid: Grid) -> int:
    return -(-elements * grid.bits // 8)
