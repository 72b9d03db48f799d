"""2-bit compression: plus, minus or nothing, and the remainder is kept for later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from geojax.compression.codec import CODECS, Codec, Setting
from geojax.compression.dense import dense
from geojax.compression.layout import Layout, gaps, layout_of, within
from geojax.compression.payload import Reader, add_up, run_table
from geojax.config import CompressionConfig
from geojax.errors import Diverged
from geojax.settings import key

_HEADER = 2
_WORD = 16  # values in a 32-bit word
_IN_BYTE = 4
_PLUS, _MINUS, _INVALID = 0b11, 0b10, 0b01
_CODES = np.arange(256)[:, None] >> np.array([6, 4, 2, 0]) & 0b11  # of the four values in a byte
_SIGNS = np.select([_CODES == _PLUS, _CODES == _MINUS], [1.0, -1.0], 0.0).astype(np.float32)
_VALID = (_CODES != _INVALID).all(axis=1)


@dataclass
class TwobitConfig(CompressionConfig):
    """Keys of ``compression=twobit``."""

    name: str = "twobit"
    threshold: float = key(0.5, "what an element is sent as", above=0)


class TwoBitState(NamedTuple):
    """State of :func:`twobit`.

    Attributes:
      layout: where layers and chunks lie.
      residual: what has not been sent yet, float32 (elements of the vector,).
    """

    layout: Layout
    residual: np.ndarray


def twobit(*, threshold: float = 0.5) -> Codec:
    """16 values in a 32-bit word, with error feedback: MXNet's 2-bit compression, as in GeoMX.

    ::

        v ← v + g      send q = t where v ≥ t, -t where v ≤ -t, else 0      v ← v - q

    with codes 11, 10 and 00, the first value of a byte in its highest bits. After Strom (2015),
    "Scalable distributed DNN training using commodity GPU cloud computing", §3. Float model state
    travels whole, as float32. A sum is dense float32 (the pull is not compressed, as in GeoMX).

    Args:
      threshold: t, above 0. The published default, 0.5, suits gradients summed over a batch.

    Raises:
      Diverged: from ``encode``: a layer, which it names, holds NaN or infinity; two bits cannot.

    Example:
      >>> from geojax.center.spec import VectorSpec
      >>> spec = VectorSpec.of([("w", (17,))])
      >>> codec = twobit(threshold=0.5)
      >>> state = codec.init(spec.layers, spec.chunks(17))
      >>> (payload,), state = codec.encode(np.full(17, 0.4, np.float32), state)
      >>> codec.decode(payload).any()
      np.False_
      >>> (payload,), state = codec.encode(np.full(17, -1.0, np.float32), state)
      >>> codec.decode(payload)[0], round(float(state.residual[0]), 6)
      (np.float32(-0.5), -0.1)
      >>> payload.nbytes  # a header of 12 bytes, two words
      20
    """
    step = np.float32(threshold)

    def encode(vector: np.ndarray, state: TwoBitState) -> tuple[list[np.ndarray], TwoBitState]:
        layout = state.layout
        layout.check(vector)
        codes, residual = _quantize(vector, state, step)
        written = []
        runs_of_chunks = within(layout.state, layout.ranges)
        for (start, stop), runs in zip(layout.ranges, runs_of_chunks, strict=True):
            written.append(_pack(vector[start:stop], runs, codes[start:stop], step))
        return written, TwoBitState(layout, residual)

    return Codec("twobit", 5, True, _init, encode, _decode, _combine, _elements, lan=dense())


def _init(layers: Sequence, ranges: Sequence[tuple[int, int]]) -> TwoBitState:
    layout = layout_of(layers, ranges)
    return TwoBitState(layout, np.zeros(layout.size, np.float32))


def _quantize(
    vector: np.ndarray, state: TwoBitState, step: np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """The code of each element, and the new residual."""
    codes, residual = np.zeros(vector.size, np.uint8), np.zeros(vector.size, np.float32)
    for span in state.layout.spans:
        if span.kind != "parameter":
            continue
        where = slice(span.start, span.stop)
        total = np.add(vector[where], state.residual[where], out=residual[where])
        if not np.isfinite(total).all():
            raise Diverged(f"{span.name}: NaN or infinity, which compression=twobit cannot send")
        plus, minus = total >= step, total <= -step
        codes[where] = plus * np.uint8(_PLUS) + minus * np.uint8(_MINUS)
        total -= plus * step
        total += minus * step
    return codes, residual


def _pack(
    chunk: np.ndarray, runs: list[tuple[int, int]], codes: np.ndarray, step: np.float32
) -> np.ndarray:
    coded = codes
    if runs:
        rest = gaps(runs, chunk.size)
        coded = np.concatenate([codes[:0], *(codes[start:stop] for start, stop in rest)])
    quarters = np.zeros(-(-coded.size // _WORD) * _WORD, np.uint8)
    quarters[: coded.size] = coded
    first, second, third, fourth = quarters.reshape(-1, _IN_BYTE).T
    pieces = [
        np.array([chunk.size, len(runs)], np.uint32).view(np.uint8),
        np.array([step], np.float32).view(np.uint8),
        run_table([(start, stop, 4) for start, stop in runs]),
        *(chunk[start:stop].view(np.uint8) for start, stop in runs),
        first << 6 | second << 4 | third << 2 | fourth,
    ]
    return np.concatenate(pieces)


class _Chunk(NamedTuple):
    """A payload taken apart: its runs with their values, and the codes of all other elements."""

    elements: int
    step: np.float32
    runs: list[tuple[int, int]]
    values: list[np.ndarray]
    codes: np.ndarray


def _unpack(payload: np.ndarray) -> _Chunk:
    reader = Reader(payload, "twobit")
    elements, count = reader.header(_HEADER)
    step = reader.take(np.float32, 1)[0]
    if not np.isfinite(step):
        raise reader.error(f"a threshold of {step}")
    runs = [(start, stop) for start, stop, _ in reader.runs(count, elements, (4,))]
    values = [reader.take(np.float32, stop - start) for start, stop in runs]
    coded = elements - sum(run.size for run in values)
    codes = reader.take(np.uint8, -(-coded // _WORD) * _WORD // _IN_BYTE)
    reader.end()
    if not _VALID[codes].all():
        raise reader.error("the code 01 has no meaning")
    return _Chunk(elements, step, runs, values, codes)


def _elements(payload: np.ndarray) -> int:
    return _unpack(payload).elements


def _decode(payload: np.ndarray) -> np.ndarray:
    chunk = _unpack(payload)
    signs = _SIGNS[chunk.codes].reshape(-1)
    signs *= chunk.step
    if not chunk.runs:
        return signs[: chunk.elements]
    whole = np.empty(chunk.elements, np.float32)
    for (start, stop), run in zip(chunk.runs, chunk.values, strict=True):
        whole[start:stop] = run
    at = 0
    for start, stop in gaps(chunk.runs, chunk.elements):
        whole[start:stop] = signs[at : at + stop - start]
        at += stop - start
    return whole


def _combine(payloads: Sequence[np.ndarray]) -> np.ndarray:
    if len(payloads) == 1:
        return payloads[0]
    total = add_up(payloads, _decode, "twobit")
    everything = [(0, total.size)] if total.size else []
    return _pack(total, everything, np.empty(0, np.uint8), np.float32(0))


@CODECS.register("twobit", TwobitConfig)
def _configured(config: TwobitConfig, _: Setting) -> Codec:
    return twobit(threshold=config.threshold)
