"""What every training node of a run agrees on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from geojax.center.fragments import Pieces, fragments_of
from geojax.center.optimizers import NESTEROV, OUTER_OPTIMIZERS
from geojax.center.outer import OuterOptimizer, PlainSgd, build_outer_optimizer
from geojax.center.pace import relative_speeds
from geojax.center.spec import VectorSpec
from geojax.center.stages import Stage, build_stages
from geojax.center.trainer import build_spec
from geojax.compression import compiled
from geojax.compression.codec import CODECS, Codec
from geojax.compression.dense import dense
from geojax.compression.registry import build_codec
from geojax.config import OptimizerConfig, OverlayConfig, RunConfig
from geojax.federated import build as federated
from geojax.hips.exchange.buckets import Bucket, Chunks, buckets_of
from geojax.hollow import SIZE_ONLY
from geojax.models.registry import SYNTHETIC
from geojax.overlay.policy.cutting import Ranges, chunk_ranges, even_pieces
from geojax.sync.algorithm import RunFacts, SyncAlgorithm
from geojax.sync.registry import build_sync

WORTH_LOADING = 1 << 20  # elements: of fewer, many hundred offers are encoded while numba loads


@dataclass
class Agreement:
    """What every training node of a run agrees on.

    Attributes:
      spec: layout of the vector.
      stages: of the model, if it is trained layer by layer (P3); else none.
      layers: elements of each layer.
      ranges: the chunks.
      buckets: the pieces of the vector that are exchanged on their own.
      priorities: of each chunk, smaller first.
      algorithm: the synchronization algorithm.
      codec: what travels over the WAN.
      lan_codec: what travels over the LANs.
    """

    spec: VectorSpec
    stages: tuple[Stage, ...]
    layers: tuple[int, ...]
    ranges: Ranges
    buckets: tuple[Bucket, ...]
    priorities: tuple[int, ...]
    algorithm: SyncAlgorithm
    codec: Codec
    lan_codec: Codec

    @property
    def turns(self) -> list[Chunks]:
        """The chunks that rounds exchange in turn; empty: every round exchanges all."""
        if self.algorithm.fragmentation.fragments == 1:
            return []
        return [bucket.chunks for bucket in self.buckets]

    @classmethod
    def of(cls, config: RunConfig, trainers: Sequence[str] = ()) -> Agreement:
        """The agreement that follows from the configuration, the same at every node.

        Args:
          config: the run.
          trainers: names of all workers, in their order; algorithms may go by their paces.
        """
        algorithm = sync_of(config, trainers)
        spec = build_spec(config)
        if algorithm.client is not None:
            spec = federated.build_model(config, algorithm.client).spec
        codec = wan_codec(config, spec.size)
        stages = build_stages(config) if config.sync.p3 else ()
        parts = _parts(spec, stages, algorithm, config.overlay)
        layers = tuple(layer.size for layer in spec.layers)
        stops = [stop for part in parts for _, stop in part]
        ranges = chunk_ranges(config.overlay, layers, stops)
        buckets = buckets_of(spec, parts, ranges)
        # Model state has no stage of its own to compute and is small: it goes first.
        idle = [bucket for bucket, stage in zip(buckets, stages, strict=False) if not stage.forward]
        first = [chunk for bucket in idle for chunk in bucket.chunks]
        order = [*first, *(chunk for chunk in range(len(ranges)) if chunk not in set(first))]
        priorities = tuple(int(place) for place in np.argsort(order))
        lan = lan_codec(config, codec, spec.size)
        return cls(spec, stages, layers, ranges, buckets, priorities, algorithm, codec, lan)


def sync_of(config: RunConfig, trainers: Sequence[str], first: int = 0) -> SyncAlgorithm:
    """The configured algorithm, complete with what it wants to know of the run.

    Args:
      config: the run.
      trainers: names of all workers, in their order; none: it stays as it is.
      first: the round with which the run goes on.
    """
    algorithm = build_sync(config.sync)
    if algorithm.for_run is None or not trainers:
        return algorithm
    centers = tuple(dict.fromkeys(name.partition("/")[0] for name in trainers))
    lr = config.rate_of(config.optimizer)
    speeds = relative_speeds(config, trainers)
    return algorithm.for_run(RunFacts(speeds, centers, lr, config.seed, config.rounds, first))


def _parts(
    spec: VectorSpec, stages: Sequence[Stage], algorithm: SyncAlgorithm, overlay: OverlayConfig
) -> Sequence[Pieces]:
    """Where the buckets lie: the model's stages, the algorithm's fragments, or equal pieces."""
    if stages:
        return [((stage.start, stage.stop),) for stage in stages]
    fragmentation = algorithm.fragmentation
    if fragmentation.fragments > 1:
        return fragments_of(spec, fragmentation.fragments, fragmentation.pattern)
    return [(piece,) for piece in even_pieces(spec.size, overlay.chunk_elements, overlay.pieces)]


def wan_codec(config: RunConfig, elements: int) -> Codec:
    """What travels over the WAN, of vectors of so many elements."""
    kernel = None
    if config.model.name != SYNTHETIC:
        from geojax.center.sparsify import center_kernel

        kernel = center_kernel()
    return build_codec(
        config.compression, kernel=kernel, seed=config.seed,
        compiled=compiled_loops(config, elements),
        gradients=build_sync(config.sync).offer.name == "gradient",
    )  # fmt: skip


def lan_codec(config: RunConfig, codec: Codec, elements: int) -> Codec:
    """What travels over the LANs: what the WAN's codec says, unless the configuration does."""
    if config.compression.lan is None:
        return codec.lan or codec
    if config.compression.lan == config.compression.name:
        return codec
    other = CODECS.instead(config.compression, config.compression.lan)
    return build_codec(other, compiled=compiled_loops(config, elements))


def compiled_loops(config: RunConfig, elements: int) -> bool:
    """Whether codecs of a run take compiled loops: the one place that decides.

    They do where numba is installed, for real models of :data:`WORTH_LOADING` elements or more.
    Results are the same, bit for bit; ``versions`` in ``summary.json`` say whether numba was there.
    """
    return config.model.name != SYNTHETIC and elements >= WORTH_LOADING and compiled.installed()


def answer_codec(codec: Codec) -> Codec:
    """The codec by which global servers send parameters back, where centers exchange one by one.

    Half precision if pushes have it; else dense, since parameters are not sparse.
    """
    return codec if codec.name in ("fp16", "bf16", SIZE_ONLY) else dense()


def build_outer(config: RunConfig, algorithm: SyncAlgorithm, spec: VectorSpec) -> OuterOptimizer:
    """The outer optimizer.

    ``outer_optimizer=auto`` stands for what the algorithm's definition has: the run's own
    optimizer where gradients are merged, plain averaging (a step of length one) where deltas are,
    DiLoCo's Nesterov step, or one of its own. A synthetic model is always averaged. A federated
    algorithm may have a server rule before it.
    """
    outer = config.outer_optimizer
    synthetic = config.model.name == SYNTHETIC
    if algorithm.client is not None:
        return federated.build_outer(config, algorithm.client, spec)
    if outer.name == "auto" and (synthetic or algorithm.outer_default == "average"):
        return PlainSgd(1.0, spec)
    if outer.name == "auto" and algorithm.outer_default == "optimizer":
        outer = config.optimizer
    elif outer.name == "auto" and algorithm.outer_default == "nesterov":
        outer = NESTEROV
    elif outer.name == "auto":
        outer = OUTER_OPTIMIZERS.settings(algorithm.outer_default, **algorithm.outer_keys)
    return build_outer_optimizer(outer, config.rate_of(outer), spec, synthetic=synthetic)


def build_lan_outer(
    config: RunConfig, algorithm: SyncAlgorithm, spec: VectorSpec
) -> OuterOptimizer:
    """The outer optimizer of a local server that waits for none of its workers.

    It is the algorithm's own; ``outer_optimizer`` is that of the WAN's servers.
    """
    auto = replace(config, outer_optimizer=OptimizerConfig(name="auto"))
    return build_outer(auto, algorithm, spec)
