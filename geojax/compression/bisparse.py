"""Bi-Sparse: large layers as the few largest elements of what has accumulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from geojax.compression.codec import Codec
from geojax.compression.dense import dense
from geojax.compression.halves import FLOAT16, narrow
from geojax.compression.layout import Layout, Span, layout_of, within
from geojax.compression.sparse import Parts, Run, pack, unite, unpack
from geojax.compression.sparse import dense as dense_of
from geojax.compression.sparsify import Kernel, draw, numpy_kernel
from geojax.errors import ConfigError


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


def bisparse(
    *,
    ratio: float = 0.01,
    bound: int = 1000,
    momentum: float = 0.9,
    exact: bool = False,
    seed: int = 0,
    kernel: Kernel = numpy_kernel,
) -> Codec:
    """Sparse both ways, with momentum correction: Bi-Sparse of GeoMX (Li et al., 2023).

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

    Raises:
      ConfigError: a setting is out of its range.

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
    check_sparsity(ratio, bound, momentum)

    def init(layers: Sequence, ranges: Sequence[tuple[int, int]]) -> BiSparseState:
        return sparse_state(layout_of(layers, ranges), bound, momentum)

    def encode(vector: np.ndarray, state: BiSparseState) -> tuple[list[np.ndarray], BiSparseState]:
        state, positions, values = sparsify(
            vector, state, ratio=ratio, bound=bound, momentum=momentum, exact=exact, seed=seed,
            kernel=kernel,
        )  # fmt: skip
        return list(payloads(vector, state.layout, bound, 4, positions, values)), state

    return Codec("bisparse", 3, True, init, encode, *receiving("bisparse", "saturate"), lan=dense())


def check_sparsity(ratio: float, bound: int, momentum: float) -> None:
    """Refuses settings out of their range.

    Raises:
      ConfigError: names the key.
    """
    if not 0.0 < ratio <= 1.0:
        raise ConfigError("compression.ratio", ratio, "a share of elements, above 0 and at most 1")
    if bound < 0:
        raise ConfigError("compression.bound", bound, "a number of elements, 0 or more")
    if not 0.0 <= momentum < 1.0:
        raise ConfigError("compression.momentum", momentum, "at least 0 and below 1")


def is_large(span: Span, bound: int) -> bool:
    """Whether a layer is sent sparsely. The one rule of the bound, for Bi-Sparse and MPQ alike."""
    return span.kind == "parameter" and span.size >= max(bound, 1)


def sparse_state(layout: Layout, bound: int, momentum: float) -> BiSparseState:
    """The first state: nothing has accumulated."""
    sizes = [span.size for span in layout.spans if is_large(span, bound)]
    return BiSparseState(
        layout,
        np.array(0, np.int64),
        tuple(np.zeros(size if momentum else 0, np.float32) for size in sizes),
        tuple(np.zeros(size, np.float32) for size in sizes),
    )


def sparsify(
    vector: np.ndarray,
    state: BiSparseState,
    *,
    ratio: float,
    bound: int,
    momentum: float,
    exact: bool,
    seed: int,
    kernel: Kernel,
) -> tuple[BiSparseState, np.ndarray, np.ndarray]:
    """Accumulates a vector; the next state, and what its large layers send.

    Returns:
      State, positions in the vector (ascending int64), and values (float32).

    Raises:
      ValueError: the vector is no update of the state's layout.
    """
    state.layout.check(vector)
    large = [span for span in state.layout.spans if is_large(span, bound)]
    decayed, residual = [], []
    positions, values = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for number, span in enumerate(large):
        random = np.random.default_rng([seed, int(state.round), number])
        one = kernel(
            vector[span.start : span.stop], state.decayed[number], state.residual[number],
            draw(span.size, ratio, exact, random), momentum,
        )  # fmt: skip
        decayed.append(one.decayed)
        residual.append(one.residual)
        positions.append(one.positions + span.start)
        values.append(one.values)
    following = BiSparseState(state.layout, state.round + 1, tuple(decayed), tuple(residual))
    return following, np.concatenate(positions), np.concatenate(values)


def payloads(
    vector: np.ndarray,
    layout: Layout,
    bound: int,
    width: int,
    positions: np.ndarray,
    values: np.ndarray,
    to_half: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Iterator[np.ndarray]:
    """The payload of each chunk: entries of large layers, and all others as runs of ``width``."""
    small = [(span.start, span.stop) for span in layout.spans if not is_large(span, bound)]
    cuts = np.searchsorted(positions, [start for start, _ in layout.ranges]).tolist()
    cuts.append(positions.size)
    runs_of_chunks = within(small, layout.ranges)
    for number, ((start, stop), spans) in enumerate(
        zip(layout.ranges, runs_of_chunks, strict=True)
    ):
        chunk = vector[start:stop]
        mine = slice(cuts[number], cuts[number + 1])
        runs = [Run(first, chunk[first:last], width) for first, last in spans]
        parts = Parts(stop - start, runs, positions[mine] - start, values[mine])
        yield pack(parts, to_half) if to_half else pack(parts)


def receiving(
    name: str, overflow: str
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
        return pack(unite([unpack(payload, name) for payload in members], name), to_half)

    def elements(payload: np.ndarray) -> int:
        return unpack(payload, name).elements

    return decode, combine, elements
