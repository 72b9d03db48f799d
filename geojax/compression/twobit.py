"""2-bit compression: plus, minus or nothing, and the remainder is kept for later."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from geojax.compression.codec import CODECS, Codec, Setting
from geojax.compression.dense import dense
from geojax.compression.layout import Layout, gaps, gather, layout_of, scatter, within
from geojax.compression.payload import Reader, add_up
from geojax.compression.scratch import SLAB, scratch
from geojax.config import CompressionConfig
from geojax.errors import Diverged
from geojax.settings import key

_HEADER = 2
_WORD = 16  # values in a 32-bit word
_IN_BYTE = 4
_PLUS, _MINUS = 0b11, 0b10  # and 00; 01 has no meaning
_CODES = np.arange(256)[:, None] >> np.array([6, 4, 2, 0]) & 0b11  # of the four values in a byte
_SIGNS = np.select([_CODES == _PLUS, _CODES == _MINUS], [1.0, -1.0], 0.0).astype(np.float32)
_LOW_BITS = 0b01010101
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)).reshape(256, 8).astype(np.uint16)
_SPREAD = (_BITS << np.arange(14, -1, -2, dtype=np.uint16)).sum(axis=1)  # eight bits, with gaps
_SENT = (_SPREAD << 1).astype(">u2").view(np.uint16)  # the higher bits of eight codes by their bits
_POSITIVE = _SPREAD.astype(">u2").view(np.uint16)  # the lower ones


@dataclass
class TwobitConfig(CompressionConfig):
    """Keys of ``compression=twobit``."""

    name: str = "twobit"
    threshold: float = key(0.5, "what an element is sent as", above=0)


class Loops(NamedTuple):
    """What runs over all elements.

    Attributes:
      code: ``(values, before, step, codes, left) -> whether all is finite``; see :func:`quantize`.
      value: ``(codes, step, out)``: writes the four float32 that each byte of codes stands for.
      any_unknown: ``(codes) -> whether`` any is 01, which has no meaning.
    """

    code: Callable[[np.ndarray, np.ndarray, np.float32, np.ndarray, np.ndarray], bool]
    value: Callable[[np.ndarray, np.float32, np.ndarray], None]
    any_unknown: Callable[[np.ndarray], bool]


class TwoBitState(NamedTuple):
    """State of :func:`twobit`.

    Attributes:
      layout: where layers and chunks lie.
      residual: what has not been sent yet, float32 (elements of the vector,).
    """

    layout: Layout
    residual: np.ndarray


def twobit(*, threshold: float = 0.5, compiled: bool = False) -> Codec:
    """16 values in a 32-bit word, with error feedback: MXNet's 2-bit compression, as in GeoMX.

    ::

        v ← v + g      send q = t where v ≥ t, -t where v ≤ -t, else 0      v ← v - q

    with codes 11, 10 and 00, the first value of a byte in its highest bits. After Strom (2015),
    "Scalable distributed DNN training using commodity GPU cloud computing", §3. Float model state
    travels whole, as float32. A sum is dense float32 (the pull is not compressed, as in GeoMX).

    Args:
      threshold: t, above 0. The published default, 0.5, suits gradients summed over a batch.
      compiled: take the loops of :mod:`geojax.compression.compiled`, to the same bits.

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
    step, loops = np.float32(threshold), _loops(compiled)

    def encode(vector: np.ndarray, state: TwoBitState) -> tuple[list[np.ndarray], TwoBitState]:
        layout = state.layout
        layout.check(vector)
        residual = np.empty(vector.size, np.float32)
        written = []
        for (start, stop), runs in zip(
            layout.ranges, within(layout.state, layout.ranges), strict=True
        ):
            before, left = state.residual[start:stop], residual[start:stop]
            payload = _pack(vector[start:stop], runs, step, loops, before, left)
            if payload is None:
                raise _diverged(vector, state)
            written.append(payload)
        return written, TwoBitState(layout, residual)

    def decode(payload: np.ndarray) -> np.ndarray:
        return _decode(payload, loops)

    def combine(payloads: Sequence[np.ndarray]) -> np.ndarray:
        return _combine(payloads, decode)

    def elements(payload: np.ndarray) -> int:
        return _unpack(payload, loops.any_unknown).elements

    return Codec("twobit", 5, True, _init, encode, decode, combine, elements, lan=dense())


def _init(layers: Sequence, ranges: Sequence[tuple[int, int]]) -> TwoBitState:
    layout = layout_of(layers, ranges)
    return TwoBitState(layout, np.zeros(layout.size, np.float32))


def _diverged(vector: np.ndarray, state: TwoBitState) -> Diverged:
    for span in state.layout.spans:
        where = slice(span.start, span.stop)
        with np.errstate(over="ignore", invalid="ignore"):
            total = vector[where] + state.residual[where]
        if span.kind == "parameter" and not np.isfinite(total).all():
            break
    return Diverged(f"{span.name}: NaN or infinity, which compression=twobit cannot send")


def _pack(
    chunk: np.ndarray, runs: list[tuple[int, int]], step: np.float32, loops: Loops,
    before: np.ndarray, left: np.ndarray,
) -> np.ndarray | None:  # fmt: skip
    """The payload of a chunk, and ``left`` of it and what was there before; None: it has none."""
    payload, codes = _framed(chunk, runs, step)
    if not runs:
        return payload if loops.code(chunk, before, step, codes, left) else None
    rest = gaps(runs, chunk.size)
    values = gather(rest, chunk)
    remainder = np.empty_like(values)
    if not loops.code(values, gather(rest, before), step, codes, remainder):
        return None
    left[:] = 0.0
    scatter(remainder, rest, left)
    return payload


def _framed(
    chunk: np.ndarray, runs: list[tuple[int, int]], step: np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """A payload in which the codes are still to be written, and these as a view."""
    fields, rest = [], chunk.size
    for start, stop in runs:
        fields += (start, stop - start, 4)
        rest -= stop - start
    at = 4 * (_HEADER + 1 + len(fields))
    begin = at + 4 * (chunk.size - rest)
    payload = np.empty(begin + _code_bytes(rest), np.uint8)
    struct.pack_into(f"=2If{len(fields)}I", payload.data, 0, chunk.size, len(runs), step, *fields)
    for start, stop in runs:
        size = 4 * (stop - start)
        payload[at : at + size] = chunk[start:stop].view(np.uint8)
        at += size
    return payload, payload[begin:]


def _loops(compiled: bool) -> Loops:
    if not compiled:
        return Loops(quantize, _fill, _any_unknown)
    from geojax.compression.compiled import twobit

    return twobit.LOOPS


def quantize(
    values: np.ndarray, before: np.ndarray, step: np.float32, codes: np.ndarray, left: np.ndarray
) -> bool:
    """Writes the codes of ``values + before``, four in a byte, and what they do not say.

    Args:
      values: float32 (n,).
      before: what was not sent before, float32 (n,).
      step: what is sent, or its negative, or nothing.
      codes: gets the codes, uint8; zeros follow them.
      left: gets what is not sent now, float32 (n,).

    Returns:
      Whether all is finite; if it is not, what was written is of no use.
    """
    finite = True
    for start in range(0, values.size, SLAB):
        slab = slice(start, start + SLAB)
        total, some = left[slab], codes[start // _IN_BYTE : (start + SLAB) // _IN_BYTE]
        with np.errstate(over="ignore", invalid="ignore"):  # found below
            np.add(values[slab], before[slab], out=total)
        _code(total, step, some)
        sent = scratch("numbers", _IN_BYTE * some.size)
        _fill(some, step, sent)
        np.subtract(total, sent[: total.size], out=total)
        finite = finite and bool(np.isfinite([total.max(), total.min()]).all())
    return finite


def _code(values: np.ndarray, step: np.float32, codes: np.ndarray) -> None:
    plus, minus = scratch("plus", values.size, np.bool_), scratch("minus", values.size, np.bool_)
    np.greater_equal(values, step, out=plus)
    np.less_equal(values, -step, out=minus)
    np.logical_or(plus, minus, out=minus)
    positive, sent = np.packbits(plus), np.packbits(minus)
    eights = scratch("codes", codes.size // 2, np.uint16)
    eights[sent.size :] = 0
    np.bitwise_or(_SENT[sent], _POSITIVE[positive], out=eights[: sent.size])
    codes[:] = eights.view(np.uint8)


def _fill(codes: np.ndarray, step: np.float32, out: np.ndarray) -> None:
    """Writes what the codes stand for: four float32 of every byte, as 16 bytes of a complex128."""
    table = (_SIGNS * step).view(np.complex128).reshape(-1)
    np.take(table, codes, out=out.view(np.complex128), mode="wrap")


def _any_unknown(codes: np.ndarray) -> bool:
    return bool((codes & ~(codes >> 1) & _LOW_BITS).any())


def _code_bytes(values: int) -> int:
    return -(-values // _WORD) * _WORD // _IN_BYTE


class _Chunk(NamedTuple):
    """A payload taken apart: its runs with their values, and the codes of all other elements."""

    elements: int
    step: np.float32
    runs: list[tuple[int, int]]
    values: list[np.ndarray]
    codes: np.ndarray


def _unpack(payload: np.ndarray, any_unknown: Callable[[np.ndarray], bool]) -> _Chunk:
    reader = Reader(payload, "twobit")
    elements, count = reader.header(_HEADER)
    step = reader.take(np.float32, 1)[0]
    if not np.isfinite(step):
        raise reader.error(f"a threshold of {step}")
    runs = [(start, stop) for start, stop, _ in reader.runs(count, elements, (4,))]
    values = [reader.take(np.float32, stop - start) for start, stop in runs]
    coded = elements - sum(run.size for run in values)
    codes = reader.take(np.uint8, _code_bytes(coded))
    reader.end()
    if any_unknown(codes):
        raise reader.error("the code 01 has no meaning")
    return _Chunk(elements, step, runs, values, codes)


def _decode(payload: np.ndarray, loops: Loops) -> np.ndarray:
    chunk = _unpack(payload, loops.any_unknown)
    values = np.empty(_IN_BYTE * chunk.codes.size, np.float32)
    loops.value(chunk.codes, chunk.step, values)
    if not chunk.runs:
        return values[: chunk.elements]
    whole = np.empty(chunk.elements, np.float32)
    for (start, stop), run in zip(chunk.runs, chunk.values, strict=True):
        whole[start:stop] = run
    scatter(values, gaps(chunk.runs, chunk.elements), whole)
    return whole


def _combine(
    payloads: Sequence[np.ndarray], decode: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    if len(payloads) == 1:
        return payloads[0]
    total = add_up(payloads, decode, "twobit")
    runs = [(0, total.size)] if total.size else []
    return _framed(total, runs, np.float32(0))[0]


@CODECS.register("twobit", TwobitConfig)
def _configured(config: TwobitConfig, setting: Setting) -> Codec:
    return twobit(threshold=config.threshold, compiled=setting.compiled)
