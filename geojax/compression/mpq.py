"""MPQ, mixed-precision quantization: small layers in FP16, large ones by Bi-Sparse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geojax.compression.bisparse import (
    BisparseConfig,
    Sparsity,
    places,
    receiving,
    small_layers,
    sparse_codec,
)
from geojax.compression.codec import CODECS, Codec, Setting
from geojax.compression.halves import FLOAT16, OVERFLOWS, refuse_overflow
from geojax.compression.layout import Layout, layout_of, within
from geojax.compression.layout import gaps as gaps_of
from geojax.compression.sparse import Run, SparseChunk, distances_by, pack
from geojax.compression.sparsify import Kernel, host_kernel
from geojax.settings import key

_WIRE = 4


@dataclass
class MpqConfig(BisparseConfig):
    """Keys of ``compression=mpq``."""

    name: str = "mpq"
    overflow: str = key("saturate", "what becomes of too large values", choices=OVERFLOWS)


def mpq(
    *,
    ratio: float = 0.01,
    bound: int = 1000,
    momentum: float = 0.9,
    exact: bool = False,
    overflow: str = "saturate",
    seed: int = 0,
    kernel: Kernel | None = None,
    compiled: bool = False,
) -> Codec:
    """FP16 for layers below ``bound`` and for float state, Bi-Sparse in float32 for all others.

    MPQ of GeoMX (Li et al., 2023): rounding hurts small layers (biases, normalization) less than
    dropping elements does, and large ones less. Over the LAN small layers travel in
    binary16 and large ones in float32, see :func:`mpq_lan`.

    Where GeoMX does otherwise: its workers take a layer of exactly ``bound`` elements for small and
    its servers for large; here there is one rule, a layer is large from ``bound`` on. Sums are made
    in float32 (those of small layers rounded to binary16 once), and overflow is handled, as in
    :func:`geojax.compression.half.fp16`.

    Args:
      ratio: as of :func:`geojax.compression.bisparse.bisparse`; so are the others.
      bound: elements from which a layer is large.
      momentum: of the large layers.
      exact: the exact top-k instead of a sampled threshold.
      overflow: what becomes of small layers' elements beyond 65504: ``saturate`` or ``stop``.
      seed: of the sampled positions.
      kernel: accumulates and picks; None: the host does.
      compiled: as of :func:`geojax.compression.bisparse.bisparse`.

    Raises:
      Diverged: from ``encode`` and ``combine``, with ``stop``; names the layer where it is known.

    Example:
      >>> from geojax.center.spec import VectorSpec
      >>> spec = VectorSpec.of([("w", (100,)), ("b", (2,))])
      >>> codec = mpq(ratio=0.02, bound=10)
      >>> state = codec.init(spec.layers, spec.chunks(102))
      >>> (payload,), state = codec.encode(np.arange(102, dtype=np.float32), state)
      >>> payload.nbytes  # 4 fewer than Bi-Sparse
      42
    """
    how = Sparsity(
        ratio, bound, momentum, exact, seed, kernel or host_kernel(compiled),
        distances_by(compiled), width=2, overflow=overflow,
    )  # fmt: skip
    return sparse_codec("mpq", _WIRE, how, lan=mpq_lan(bound=bound, overflow=overflow))


def mpq_lan(*, bound: int = 1000, overflow: str = "saturate") -> Codec:
    """What MPQ sends over a LAN: small layers and float state in binary16, large ones in float32.

    Its payloads have the form of :func:`mpq`'s, hence its number on the wire. Arguments and errors
    are those of :func:`mpq`.
    """

    def encode(vector: np.ndarray, layout: Layout) -> tuple[list[np.ndarray], Layout]:
        layout.check(vector)
        small = small_layers(layout, bound)
        if overflow == "stop":
            refuse_overflow(vector, small, FLOAT16)
        none, empty = np.empty(0, np.int64), np.empty(0, np.float32)
        written = []
        runs_of_chunks = within(places(small), layout.ranges)
        for (start, stop), spans in zip(layout.ranges, runs_of_chunks, strict=True):
            chunk = vector[start:stop]
            halves = [Run(first, chunk[first:last], 2) for first, last in spans]
            rest = [Run(first, chunk[first:last], 4) for first, last in gaps_of(spans, chunk.size)]
            runs = sorted([*halves, *rest], key=lambda run: run.start)
            written.append(pack(SparseChunk(chunk.size, runs, none, empty)))
        return written, layout

    return Codec("mpq_lan", _WIRE, True, layout_of, encode, *receiving("mpq_lan", overflow))


@CODECS.register("mpq", MpqConfig)
def _configured(config: MpqConfig, setting: Setting) -> Codec:
    return mpq(
        ratio=config.ratio, bound=config.bound, momentum=config.momentum_for(setting),
        exact=config.exact, overflow=config.overflow, seed=setting.seed,
        kernel=setting.kernel, compiled=setting.compiled,
    )  # fmt: skip
