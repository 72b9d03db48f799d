"""SparseLoCo's codec: the largest of what has accumulated, in two bits each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from geojax.compression.codec import CODECS, Codec, Setting
from geojax.compression.dense import dense
from geojax.compression.layout import Layout, Span, layout_of, within
from geojax.compression.payload import Reader, run_table
from geojax.compression.sparse import (
    Run,
    SparseChunk,
    check_positions,
    pack,
    read_positions,
    shortest,
    unite,
    unpack,
)
from geojax.compression.sparse import dense as dense_of
from geojax.compression.sparsify import budget_of
from geojax.config import CompressionConfig
from geojax.errors import Diverged
from geojax.settings import key

_UNITED, _CODED = range(2)  # a sum of offers, as Bi-Sparse sends it; an offer
_FLOAT32 = 4
_MINUS, _HIGH = 0b10, 0b01


@dataclass
class Topk2bitConfig(CompressionConfig):
    """Keys of ``compression=topk2bit``."""

    name: str = "topk2bit"
    ratio: float = key(0.03, "share of elements sent", above=0, most=1)
    block: int = key(4096, "the largest are found among so many elements of a layer", least=1)
    decay: float = key(0.95, "β: of what was not sent, from round to round", least=0, most=1)


class Topk2bitState(NamedTuple):
    """State of :func:`topk2bit`.

    Attributes:
      layout: where layers and chunks lie.
      error: e, what has not been sent yet, float32 (elements of the vector,).
    """

    layout: Layout
    error: np.ndarray


def topk2bit(*, ratio: float = 0.03, block: int = 4096, decay: float = 0.95) -> Codec:
    """Top-k with decaying error feedback, quantized to 2 bits: what SparseLoCo sends.

    ::

        e ← β·e + Δ      send q = Q(Top-k(e))      e ← e - q

    Top-k takes the k = ⌊n·ratio⌋ (at least one) largest magnitudes in every block of n = ``block``
    elements of a layer. With ``sync=local_steps``, whose outer step is θ ← θ - α·mean(q) with
    α = 1 unless ``outer_optimizer=sgd outer_optimizer.lr=α`` says otherwise, this is SparseLoCo:
    decaying error feedback stands in for outer momentum, so there is none. What is accumulated is
    a center's mean, since centers are what the WAN joins; inside a center it travels dense.

    Sarfi et al. (2025), *Communication Efficient LLM Pre-training with SparseLoCo*, arXiv
    2508.15706, send 1-3 % of the elements with 2 bits each. Q is *reconstructed*: a bit for the
    sign, and a bit that says which of two magnitudes an entry has: the mean of those above the mean
    magnitude, or of the others, of the entries that a chunk has of a layer. β = 0.95 and blocks of
    4096 are our defaults.

    A sum of offers unites their entries, as float32, as in Bi-Sparse: nothing is lost on trees of
    any depth. Float model state travels whole.

    Args:
      ratio: share of elements sent, in (0, 1].
      block: n, at least 1.
      decay: β, in [0, 1]; 1: plain error feedback, 0: none.

    Raises:
      Diverged: from ``encode``: a layer, which it names, holds NaN or infinity.

    Example:
      >>> from geojax.center.spec import VectorSpec
      >>> spec = VectorSpec.of([("w", (100,))])
      >>> codec = topk2bit(ratio=0.04, decay=0.5)
      >>> state = codec.init(spec.layers, spec.chunks(100))
      >>> (payload,), state = codec.encode(np.arange(100, dtype=np.float32) - 98, state)
      >>> codec.decode(payload)[:5].tolist()  # -98, -97, -96, -95 at two magnitudes
      [-97.5, -97.5, -95.5, -95.5, 0.0]
      >>> state.error[:6].tolist()
      [-0.5, 0.5, -0.5, 0.5, -94.0, -93.0]
    """
    kept = np.float32(decay)

    def init(layers: Sequence, ranges: Sequence[tuple[int, int]]) -> Topk2bitState:
        layout = layout_of(layers, ranges)
        return Topk2bitState(layout, np.zeros(layout.size, np.float32))

    def encode(vector: np.ndarray, state: Topk2bitState) -> tuple[list[np.ndarray], Topk2bitState]:
        layout = state.layout
        layout.check(vector)
        error = kept * state.error + vector
        found = [_picked(error, span, ratio, block) for span in layout.spans]
        positions = np.concatenate([np.empty(0, np.int64), *found])
        owners = np.repeat(np.arange(len(found)), [len(each) for each in found])
        cuts = np.searchsorted(positions, [stop for _, stop in layout.ranges])
        written, first = [], 0
        for (start, stop), runs, last in zip(
            layout.ranges, within(layout.state, layout.ranges), cuts.tolist(), strict=True
        ):
            chunk, mine = error[start:stop], positions[first:last] - start
            entries = quantized(chunk[mine], owners[first:last])
            written.append(_pack(vector[start:stop], runs, mine, entries))
            chunk[mine] -= entries.values
            for begin, end in runs:
                chunk[begin:end] = 0.0
            first = last
        return written, Topk2bitState(layout, error)

    def combine(payloads: Sequence[np.ndarray]) -> np.ndarray:
        if len(payloads) == 1:
            return payloads[0]
        return _sum(unite([_unpack(payload) for payload in payloads], "topk2bit"))

    return Codec("topk2bit", 9, True, init, encode, _decode, combine, _elements, lan=dense())


def top_k(values: np.ndarray, count: int) -> np.ndarray:
    """Ascending positions of the ``count`` largest magnitudes; of equal ones, the first.

    Zeros are never among them.

    >>> top_k(np.array([1.0, -3.0, 0.0, 3.0, 3.0], np.float32), 2)
    array([1, 3])
    """
    magnitudes = np.abs(values)
    least = np.partition(magnitudes, values.size - count)[values.size - count]
    taken = magnitudes > least
    equal = np.flatnonzero(magnitudes == least)
    taken[equal[: count - np.count_nonzero(taken)]] = True
    return np.flatnonzero(taken & (magnitudes > 0))


def _picked(error: np.ndarray, span: Span, ratio: float, block: int) -> np.ndarray:
    """Positions of what is sent of a layer, in the vector."""
    if span.kind != "parameter":
        return np.empty(0, np.int64)
    if not np.isfinite(error[span.start : span.stop]).all():
        raise Diverged(f"{span.name}: NaN or infinity, which compression=topk2bit cannot send")
    edges = itertools.pairwise([*range(span.start, span.stop, block), span.stop])
    blocks = [top_k(error[a:b], budget_of(b - a, ratio)) + a for a, b in edges]
    return np.concatenate([np.empty(0, np.int64), *blocks])


class Entries(NamedTuple):
    """What is sent of a chunk, layer by layer.

    Attributes:
      counts: entries of each layer that has any, uint32.
      levels: the two magnitudes of each, float32 (layers, 2).
      codes: of each entry, uint8: its sign and which magnitude.
      values: what they stand for, float32.
    """

    counts: np.ndarray
    levels: np.ndarray
    codes: np.ndarray
    values: np.ndarray


def quantized(values: np.ndarray, owners: np.ndarray) -> Entries:
    """Two bits for each entry.

    Args:
      values: the entries, float32.
      owners: number of each one's layer, ascending.

    >>> quantized(np.array([-4.0, 1.0, 6.0, 3.0], np.float32), np.array([0, 0, 0, 2])).values
    array([-5.,  1.,  5.,  3.], dtype=float32)
    """
    _, starts, counts = np.unique(owners, return_index=True, return_counts=True)
    levels, high = np.zeros((counts.size, 2), np.float32), np.zeros(values.size, bool)
    magnitudes = np.abs(values)
    for at, (start, count) in enumerate(zip(starts, counts, strict=True)):
        mine = magnitudes[start : start + count]
        above = np.greater(mine, mine.mean(), out=high[start : start + count])
        levels[at] = [part.mean() if part.size else 0.0 for part in (mine[~above], mine[above])]
    codes = ((values < 0) * _MINUS + high * _HIGH).astype(np.uint8)
    return Entries(counts.astype(np.uint32), levels, codes, _values(counts, levels, codes))


def _values(counts: np.ndarray, levels: np.ndarray, codes: np.ndarray) -> np.ndarray:
    layer = np.repeat(np.arange(counts.size), counts)
    magnitudes = levels[layer, codes & _HIGH]
    return np.where(codes & _MINUS, -magnitudes, magnitudes)


def _pack(
    chunk: np.ndarray, runs: list[tuple[int, int]], positions: np.ndarray, entries: Entries
) -> np.ndarray:
    form, written = shortest(positions)
    quarters = np.zeros(-(-positions.size // 4) * 4, np.uint8)
    quarters[: positions.size] = entries.codes
    first, second, third, fourth = quarters.reshape(-1, 4).T
    counts = [len(runs), positions.size, form, entries.counts.size]
    pieces = [
        np.array([chunk.size, _CODED, *counts], np.uint32).view(np.uint8),
        run_table([(start, stop, _FLOAT32) for start, stop in runs]),
        entries.counts.view(np.uint8),
        entries.levels.reshape(-1).view(np.uint8),
        *(chunk[start:stop].view(np.uint8) for start, stop in runs),
        first << 6 | second << 4 | third << 2 | fourth,
        written.view(np.uint8),
    ]
    return np.concatenate(pieces)


def _sum(chunk: SparseChunk) -> np.ndarray:
    header = np.array([chunk.elements, _UNITED], np.uint32)
    return np.concatenate([header.view(np.uint8), pack(chunk)])


def _unpack(payload: np.ndarray) -> SparseChunk:
    reader = Reader(payload, "topk2bit")
    elements, kind = reader.header(2)
    if kind == _UNITED:
        chunk = unpack(reader.take(np.uint8, reader.left), "topk2bit")
        if chunk.elements != elements:
            raise reader.error(f"a sum of {chunk.elements} elements in a chunk of {elements}")
        return chunk
    if kind != _CODED:
        raise reader.error(f"expected an offer or a sum, came {kind}")
    count, size, form, layers = reader.take(np.uint32, 4).tolist()
    if size > elements:
        raise reader.error(f"{size} entries in {elements} elements")
    table = reader.runs(count, elements, (_FLOAT32,))
    counts = reader.take(np.uint32, layers).astype(np.int64)
    levels = reader.take(np.float32, 2 * layers).reshape(-1, 2)
    if counts.sum() != size or not np.isfinite(levels).all():
        raise reader.error(f"{counts.sum()} entries of layers, expected {size}, finite")
    runs = [Run(a, reader.take(np.float32, b - a), _FLOAT32) for a, b, _ in table]
    quarters = reader.take(np.uint8, -(-size // 4))
    codes = (quarters[:, None] >> np.array([6, 4, 2, 0], np.uint8) & 0b11).reshape(-1)[:size]
    positions = read_positions(reader, form, size)
    reader.end()
    check_positions(reader, positions, table, elements)
    return SparseChunk(elements, runs, positions, _values(counts, levels, codes))


def _decode(payload: np.ndarray) -> np.ndarray:
    return dense_of(_unpack(payload))


def _elements(payload: np.ndarray) -> int:
    return _unpack(payload).elements


@CODECS.register("topk2bit", Topk2bitConfig)
def _configured(config: Topk2bitConfig, _: Setting) -> Codec:
    return topk2bit(ratio=config.ratio, block=config.block, decay=config.decay)
