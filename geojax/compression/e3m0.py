"""4-bit floats: a sign and an exponent of three bits for every element, scaled block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from geojax.compression.codec import CODECS, Codec, Setting
from geojax.compression.dense import dense
from geojax.compression.halves import BFLOAT16, narrow, widen
from geojax.compression.layout import Layout, gaps, layout_of, within
from geojax.compression.payload import Reader, add_up, run_table
from geojax.config import CompressionConfig
from geojax.errors import Diverged
from geojax.settings import key

SUMS = ("float32", "bf16", "e3m0")
_HEADER = 3
_LARGEST = 7  # code of the largest magnitude; 0 is zero
_NEGATIVE = 8
_FLOAT32, _BFLOAT16 = 4, 2  # bytes per element of a run
_POWERS = np.ldexp(np.float32(1), np.arange(8) - _LARGEST).astype(np.float32)
_POWERS[0] = 0.0
_VALUES = np.concatenate([_POWERS, -_POWERS]).astype(np.float32)  # by code


@dataclass
class E3m0Config(CompressionConfig):
    """Keys of ``compression=e3m0``."""

    name: str = "e3m0"
    block: int = key(256, "elements with a scale of their own", least=1)
    error_feedback: bool = key(False, "what rounding took is added to the next offer")
    sums: str = key("float32", "how a sum of offers travels", choices=SUMS)


class E3m0State(NamedTuple):
    """State of :func:`e3m0`.

    Attributes:
      layout: where layers and chunks lie.
      residual: what has not been sent yet, float32 (elements of the vector,); (0,) without error
        feedback.
    """

    layout: Layout
    residual: np.ndarray


def e3m0(*, block: int = 256, error_feedback: bool = False, sums: str = "float32") -> Codec:
    """Outer gradients of 4 bits, E3M0, as Streaming DiLoCo sends them; accumulated in float32.

    In a block of ``block`` elements of a chunk with largest magnitude s, an element becomes the
    nearest of 0 and ±s·2ᵏ⁻⁷, k = 1 … 7 (ties to the larger one). A payload has a float32 s for
    each block and 4 bits for each element. Float model state travels whole, as float32.

    The paper (Douillard et al., 2025, §2.4, arXiv 2501.18512) says E3M0 for what is sent, float32
    for sums, and no error feedback; how it scales is not said there, so the scale by the largest
    magnitude of a block is *reconstructed*.

    Args:
      block: elements with a scale of their own, at least 1.
      error_feedback: v ← v + x, send q(v), v ← v - q(v), instead of q(x).
      sums: how a sum of offers travels on, and back: as it is (``float32``), in two bytes an
        element (``bf16``), or as 4-bit floats again (``e3m0``: rounded once at the root; refused on
        deeper trees, where every hop would round it).

    Raises:
      Diverged: from ``encode``: a layer, which it names, holds NaN or infinity.

    Example:
      >>> from geojax.center.spec import VectorSpec
      >>> spec = VectorSpec.of([("w", (6,))])
      >>> codec = e3m0(block=4)
      >>> state = codec.init(spec.layers, spec.chunks(6))
      >>> vector = np.array([8.0, -3.1, 0.05, 0.4, 0.0, 7.0], np.float32)
      >>> (payload,), state = codec.encode(vector, state)
      >>> codec.decode(payload).tolist()
      [8.0, -4.0, 0.0, 0.5, 0.0, 7.0]
      >>> payload.nbytes  # a header of 12 bytes, two scales, three bytes of codes
      23
    """

    def init(layers: Sequence, ranges: Sequence[tuple[int, int]]) -> E3m0State:
        layout = layout_of(layers, ranges)
        return E3m0State(layout, np.zeros(layout.size if error_feedback else 0, np.float32))

    def encode(vector: np.ndarray, state: E3m0State) -> tuple[list[np.ndarray], E3m0State]:
        layout = state.layout
        layout.check(vector)
        _refuse_nonfinite(vector, layout)
        total = vector + state.residual if error_feedback else vector
        if error_feedback:
            for first, last in layout.state:
                total[first:last] = 0.0  # it travels whole, as it is in ``vector``
        residual = total.copy() if error_feedback else state.residual
        written = []
        runs_of_chunks = within(layout.state, layout.ranges)
        for (start, stop), runs in zip(layout.ranges, runs_of_chunks, strict=True):
            payload = _pack(_Chunk(vector[start:stop], runs, _FLOAT32, block), total[start:stop])
            written.append(payload)
            if error_feedback:
                left = residual[start:stop]
                left -= _decode(payload)
                for first, last in runs:
                    left[first:last] = 0.0
        return written, E3m0State(layout, residual)

    def combine(payloads: Sequence[np.ndarray]) -> np.ndarray:
        if len(payloads) == 1:
            return payloads[0]
        total = add_up(payloads, _decode, "e3m0")
        everything = [(0, total.size)] if total.size else []
        if sums == "float32":
            return _pack(_Chunk(total, everything, _FLOAT32, block), total)
        if sums == "bf16":
            return _pack(_Chunk(total, everything, _BFLOAT16, block), total)
        whole = [_unpack(payload)[0].runs for payload in payloads]
        return _pack(_Chunk(total, whole[0], _FLOAT32, block), total)

    exact = sums != "e3m0"
    return Codec("e3m0", 8, exact, init, encode, _decode, combine, _elements, lan=dense())


def quantized(values: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """The scale of each block, and the code of each element (uint8, 0 to 15).

    >>> scales, codes = quantized(np.array([1.0, -0.75, 0.7, 1 / 128, 0.007], np.float32), 8)
    >>> scales.tolist(), codes.tolist()
    ([1.0], [7, 15, 6, 1, 0])
    """
    blocks = -(-values.size // block)
    padded = np.zeros((blocks, block), np.float32)
    padded.reshape(-1)[: values.size] = values
    magnitudes = np.abs(padded)
    scales = magnitudes.max(axis=1, initial=0.0)
    divisors = np.where(scales > 0, scales, np.float32(1))
    mantissa, exponent = np.frexp(magnitudes / divisors[:, None])  # of [0.5, 1) times a power
    codes = np.clip(exponent + (_LARGEST - 1) + (mantissa >= 0.75), 0, _LARGEST)
    codes[magnitudes == 0] = 0
    small = (codes == 0) & (magnitudes >= divisors[:, None] * (_POWERS[1] / 2))
    codes = np.where(small, 1, codes).astype(np.uint8)
    codes += ((padded < 0) & (codes > 0)) * np.uint8(_NEGATIVE)
    return scales, codes.reshape(-1)[: values.size]


class _Chunk(NamedTuple):
    """A chunk: its values, and the runs of them that travel at ``width`` bytes an element."""

    values: np.ndarray
    runs: list[tuple[int, int]]
    width: int
    block: int


def _pack(chunk: _Chunk, total: np.ndarray) -> np.ndarray:
    """The payload of a chunk; what lies in no run is ``total``, as 4-bit floats."""
    rest = gaps(chunk.runs, total.size)
    coded = np.concatenate([total[:0], *(total[start:stop] for start, stop in rest)])
    scales, codes = quantized(coded, chunk.block)
    pairs = np.zeros(-(-codes.size // 2) * 2, np.uint8)
    pairs[: codes.size] = codes
    runs = [np.ascontiguousarray(chunk.values[start:stop]) for start, stop in chunk.runs]
    if chunk.width == _BFLOAT16:
        runs = [narrow(run, BFLOAT16, "saturate") for run in runs]
    pieces = [
        np.array([total.size, len(runs), chunk.block], np.uint32).view(np.uint8),
        run_table([(start, stop, chunk.width) for start, stop in chunk.runs]),
        scales.view(np.uint8),
        *(run.view(np.uint8) for run in runs),
        pairs[::2] << 4 | pairs[1::2],
    ]
    return np.concatenate(pieces)


def _unpack(payload: np.ndarray) -> tuple[_Chunk, list[np.ndarray], np.ndarray]:
    """A payload taken apart: sizes and runs; the runs' values; the values of all the rest."""
    reader = Reader(payload, "e3m0")
    elements, count, block = reader.header(_HEADER)
    if block < 1:
        raise reader.error("blocks of no element")
    table = reader.runs(count, elements, (_FLOAT32, _BFLOAT16))
    coded = elements - sum(stop - start for start, stop, _ in table)
    scales = reader.take(np.float32, -(-coded // block))
    if not np.isfinite(scales).all():
        raise reader.error("a scale that is not finite")
    values = []
    for start, stop, width in table:
        if width == _FLOAT32:
            values.append(reader.take(np.float32, stop - start))
        else:
            values.append(widen(reader.take(np.uint16, stop - start), BFLOAT16))
    pairs = reader.take(np.uint8, -(-coded // 2))
    reader.end()
    codes = np.stack([pairs >> 4, pairs & 15], axis=1).reshape(-1)[:coded]
    rest = _VALUES[codes] * np.repeat(scales, min(block, coded))[:coded]
    runs = [(start, stop) for start, stop, _ in table]
    return _Chunk(np.empty(elements, np.float32), runs, _FLOAT32, block), values, rest


def _decode(payload: np.ndarray) -> np.ndarray:
    chunk, values, rest = _unpack(payload)
    whole = chunk.values
    for (start, stop), run in zip(chunk.runs, values, strict=True):
        whole[start:stop] = run
    at = 0
    for start, stop in gaps(chunk.runs, whole.size):
        whole[start:stop] = rest[at : at + stop - start]
        at += stop - start
    return whole


def _elements(payload: np.ndarray) -> int:
    return _unpack(payload)[0].values.size


def _refuse_nonfinite(vector: np.ndarray, layout: Layout) -> None:
    for span in layout.spans:
        if span.kind == "parameter" and not np.isfinite(vector[span.start : span.stop]).all():
            raise Diverged(f"{span.name}: NaN or infinity, which compression=e3m0 cannot send")


@CODECS.register("e3m0", E3m0Config)
def _configured(config: E3m0Config, _: Setting) -> Codec:
    return e3m0(block=config.block, error_feedback=config.error_feedback, sums=config.sums)
