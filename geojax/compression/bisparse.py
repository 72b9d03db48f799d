"""Bi-Sparse: large layers as the few largest elements of what has accumulated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from geojax.compression.codec import CODECS, Codec, Setting
from geojax.compression.dense import dense
from geojax.compression.halves import FLOAT16, narrow, refuse_overflow
from geojax.compression.layout import Layout, Span, layout_of, within
from geojax.compression.sparse import (
    Distances,
    Run,
    SparseChunk,
    distances,
    distances_by,
    pack,
    unite,
    unpack,
)
from geojax.compression.sparse import dense as dense_of
from geojax.compression.sparsify import Kernel, draw, host_kernel
from geojax.config import CompressionConfig
from geojax.settings import key

GRADIENT_MOMENTUM = 0.9


@dataclass
class BisparseConfig(CompressionConfig):
    """Keys of ``compression=bisparse``."""

    name: str = "bisparse"
    ratio: float = key(0.01, "share of elements kept", above=0, most=1)
    bound: int = key(1000, "layers of fewer elements travel whole", least=0)
    momentum: float | None = key(
        None, "of momentum correction; null: 0.9 for gradients, 0 for deltas", least=0, below=1
    )
    exact: bool = key(False, "the exact top-k instead of a sampled threshold")

    def momentum_for(self, setting: Setting) -> float:
        """The configured momentum, or the published one (DGC's and GeoMX's) for gradients."""
        if self.momentum is not None:
            return self.momentum
        return GRADIENT_MOMENTUM if setting.gradients else 0.0


class BiSparseState(NamedTuple):
    """State of :func:`bisparse`.

    Attributes:
      layout: where layers and chunks lie.
      round: how many vectors were encoded, int64 (); with the seed, it draws the samples.
      decayed: m·u of each large layer; of no elements if m is 0.
      residual: v of each large layer.
    """

    layout: Layout
    round: np.ndarray
    decayed: tuple[np.ndarray, ...]
    residual: tuple[np.ndarray, ...]


class Sparsity(NamedTuple):
    """Settings of a codec that sends large layers sparsely and small ones whole.

    Attributes are those of :func:`bisparse`; ``distances`` writes positions, ``width`` is the bytes
    of a small layer's element (2: binary16), and ``overflow`` that of
    :func:`geojax.compression.half.fp16`.
    """

    ratio: float
    bound: int
    momentum: float
    exact: bool
    seed: int
    kernel: Kernel
    distances: Distances
    width: int
    overflow: str


def bisparse(
    *,
    ratio: float = 0.01,
    bound: int = 1000,
    momentum: float = 0.9,
    exact: bool = False,
    seed: int = 0,
    kernel: Kernel | None = None,
    compiled: bool = False,
) -> Codec:
    """Sparse in both directions, with momentum correction: Bi-Sparse of GeoMX (Li et al., 2023).

    For every layer of N ≥ ``bound`` parameters, after Lin et al. (2018), "Deep Gradient
    Compression", §3.1, equation 5, and §3.2 (momentum factor masking)::

        u ← m·u + g      v ← v + u      b = t-th largest |v| of s sampled elements
        send v where |v| ≥ b, at most K = ⌊N·r⌋ elements; there u = v = 0

    with s = ⌊0.005·N⌋ (⌊10/r⌋ if that has fewer than ten among the r·N largest) and t = ⌊s·r⌋.
    Smaller layers, and float model state, travel whole as float32. A sum of chunks unites their
    entries (addition in float32, in the given order): what comes back is sparse, too, and nothing
    is lost. A chunk turns dense where that is no longer. See :mod:`geojax.compression.sparse`.

    Where GeoMX does otherwise: it takes the first K elements in index order that pass, and so skips
    those of high index; here the K largest of those that pass. It samples the same positions in
    every round, and may sample beyond a small layer; here they are drawn anew from ``seed`` and the
    round, without replacement. It writes positions as float32, exact to 2²⁴ only, and pads. Of DGC,
    gradient clipping and the warm-up of the ratio are left out, as in GeoMX.

    Momentum correction is for gradients: u takes the place of the momentum of the optimizer that
    receives them. An offered *delta* is a whole displacement already: with m, one that waits for
    w rounds is sent as 1 + m + ... + mʷ times itself, up to 1/(1 - m), ten times at m = 0.9, and
    overshoots. Deltas take m = 0, which leaves plain error feedback.

    Args:
      ratio: r, share of a large layer's elements that are sent, in (0, 1].
      bound: elements from which a layer is large.
      momentum: m, in [0, 1).
      exact: take the exact K largest instead of a sampled threshold.
      seed: of the sampled positions; every member may use the same.
      kernel: accumulates and picks; ``geojax.center.sparsify.jax_kernel`` does it on the device.
        None: the host does.
      compiled: take the loops of :mod:`geojax.compression.compiled`, to the same bits.

    Example:
      >>> from geojax.center.spec import VectorSpec
      >>> spec = VectorSpec.of([("w", (100,)), ("b", (2,))])
      >>> codec = bisparse(ratio=0.02, bound=10, momentum=0.0)
      >>> state = codec.init(spec.layers, spec.chunks(102))
      >>> vector = np.arange(102, dtype=np.float32)
      >>> (payload,), state = codec.encode(vector, state)
      >>> payload.nbytes
      46
      >>> np.flatnonzero(codec.decode(payload))
      array([ 98,  99, 100, 101])
      >>> state.residual[0][97:]
      array([97.,  0.,  0.], dtype=float32)
    """
    how = Sparsity(
        ratio, bound, momentum, exact, seed, kernel or host_kernel(compiled),
        distances_by(compiled), width=4, overflow="saturate",
    )  # fmt: skip
    return sparse_codec("bisparse", 3, how, lan=dense())


def sparse_codec(name: str, wire: int, how: Sparsity, lan: Codec) -> Codec:
    """A codec of these settings: Bi-Sparse, or MPQ."""

    def init(layers: Sequence, ranges: Sequence[tuple[int, int]]) -> BiSparseState:
        return _first_state(layout_of(layers, ranges), how)

    def encode(vector: np.ndarray, state: BiSparseState) -> tuple[list[np.ndarray], BiSparseState]:
        layout = state.layout
        layout.check(vector)
        small = small_layers(layout, how.bound)
        if how.overflow == "stop":
            refuse_overflow(vector, small, FLOAT16)
        state, positions, values = _sparsify(vector, state, how)
        cuts = np.searchsorted(positions, [stop for _, stop in layout.ranges])
        payloads, first = [], 0
        for (start, stop), spans, last in zip(
            layout.ranges, within(places(small), layout.ranges), cuts.tolist(), strict=True
        ):
            chunk = vector[start:stop]
            runs = [Run(begin, chunk[begin:end], how.width) for begin, end in spans]
            entries = positions[first:last] - start, values[first:last]
            payloads.append(pack(SparseChunk(chunk.size, runs, *entries), distances=how.distances))
            first = last
        return payloads, state

    return Codec(
        name, wire, True, init, encode, *receiving(name, how.overflow, how.distances), lan=lan
    )


def is_large(span: Span, bound: int) -> bool:
    """Whether a layer is sent sparsely. The one rule of the bound, for Bi-Sparse and MPQ alike."""
    return span.kind == "parameter" and span.size >= max(bound, 1)


def small_layers(layout: Layout, bound: int) -> list[Span]:
    """The layers that travel whole."""
    return [span for span in layout.spans if not is_large(span, bound)]


def places(spans: Sequence[Span]) -> list[tuple[int, int]]:
    """Where layers lie."""
    return [(span.start, span.stop) for span in spans]


def _first_state(layout: Layout, how: Sparsity) -> BiSparseState:
    sizes = [span.size for span in layout.spans if is_large(span, how.bound)]
    return BiSparseState(
        layout,
        np.array(0, np.int64),
        tuple(np.zeros(size if how.momentum else 0, np.float32) for size in sizes),
        tuple(np.zeros(size, np.float32) for size in sizes),
    )


def _sparsify(
    vector: np.ndarray, state: BiSparseState, how: Sparsity
) -> tuple[BiSparseState, np.ndarray, np.ndarray]:
    """Accumulates a vector; the next state, and what its large layers send.

    Returns:
      State, positions in the vector (ascending int64), and values (float32).
    """
    large = [span for span in state.layout.spans if is_large(span, how.bound)]
    decayed, residual = [], []
    positions, values = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for number, span in enumerate(large):
        random = np.random.default_rng([how.seed, int(state.round), number])
        one = how.kernel(
            vector[span.start : span.stop], state.decayed[number], state.residual[number],
            draw(span.size, how.ratio, how.exact, random), how.momentum,
        )  # fmt: skip
        decayed.append(one.decayed)
        residual.append(one.residual)
        positions.append(one.positions + span.start)
        values.append(one.values)
    following = BiSparseState(state.layout, state.round + 1, tuple(decayed), tuple(residual))
    return following, np.concatenate(positions), np.concatenate(values)


def receiving(
    name: str, overflow: str, distances: Distances = distances
) -> tuple[
    Callable[[np.ndarray], np.ndarray],
    Callable[[Sequence[np.ndarray]], np.ndarray],
    Callable[[np.ndarray], int],
]:
    """``decode``, ``combine`` and ``elements`` of the codecs that send runs and entries."""

    def to_half(values: np.ndarray) -> np.ndarray:
        return narrow(values, FLOAT16, overflow)

    def decode(payload: np.ndarray) -> np.ndarray:
        return dense_of(unpack(payload, name))

    def combine(members: Sequence[np.ndarray]) -> np.ndarray:
        if len(members) == 1:
            return members[0]
        return pack(unite([unpack(payload, name) for payload in members], name), to_half, distances)

    def elements(payload: np.ndarray) -> int:
        return unpack(payload, name).elements

    return decode, combine, elements


@CODECS.register("bisparse", BisparseConfig)
def _configured(config: BisparseConfig, setting: Setting) -> Codec:
    return bisparse(
        ratio=config.ratio, bound=config.bound, momentum=config.momentum_for(setting),
        exact=config.exact, seed=setting.seed, kernel=setting.kernel,
        compiled=setting.compiled,
    )  # fmt: skip
