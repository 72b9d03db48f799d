"""What the compatibility matrix is made of: codecs, synchronization modes, servers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, NamedTuple

from geojax.axes import change
from geojax.config import RunConfig, WanConfig
from geojax.sync.registry import build_sync

Settings = Mapping[str, Any]
"""Keys of the configuration as on the command line: ``sync: hfa`` chooses a group's member."""

SPARSE = {"compression.ratio": 0.05, "compression.bound": 100}  # the model is small
DGT = {"compression": "dgt", "compression.block_bytes": 1024}
HIERARCHY = {"sync.local_steps": 2, "sync.lan_rounds": 2}

CODECS: dict[str, Settings] = {
    "dense": {"compression": "dense"},
    "fp16": {"compression": "fp16"},
    "bf16": {"compression": "bf16"},
    "bisparse": {"compression": "bisparse", **SPARSE},
    "mpq": {"compression": "mpq", **SPARSE},
    "twobit": {"compression": "twobit", "compression.threshold": 0.02},
    "topk2bit": {"compression": "topk2bit", "compression.ratio": 0.1},
    "e3m0": {"compression": "e3m0"},
    "int8": {"compression": "int8"},
    "int4": {"compression": "int4"},
    "dgt, tcp": DGT,
    "dgt, udp": {**DGT, "compression.channel": "udp"},
    "dgt, udp, last": {**DGT, "compression.channel": "udp", "compression.lost": "last"},
    "dgt, 4bit": {**DGT, "compression.tail": "4bit"},
    "dgt, adaptive": {**DGT, "compression.adaptive": True},
}
MODES: dict[str, Settings] = {
    "fsa": {"sync": "fsa"},
    "fsa, p3": {"sync": "fsa", "sync.p3": True},
    "local_steps": {"sync": "local_steps", "sync.local_steps": 2},
    "diloco": {"sync": "diloco", "sync.local_steps": 2},
    "streaming_diloco": {
        "sync": "streaming_diloco", "sync.local_steps": 2, "sync.fragments": 2, "sync.overlap": 1,
    },
    "hfa": {"sync": "hfa", **HIERARCHY},
    "hierfavg": {"sync": "hierfavg", **HIERARCHY},
    "mixed_sync": {"sync": "mixed_sync"},
    "mixed_sync, bounded": {"sync": "mixed_sync", "sync.staleness": 1},
    "dcasgd": {"sync": "mixed_sync", "sync.compensation": "constant"},
    "dcasgd_adaptive": {"sync": "mixed_sync", "sync.compensation": "adaptive"},
    "ssp": {"sync": "ssp", "sync.s": 1},
    "fedasync": {"sync": "fedasync", "sync.local_steps": 2},
    "fedbuff": {"sync": "fedbuff", "sync.local_steps": 2},
    "async_diloco": {"sync": "async_diloco", "sync.local_steps": 2},
    "halos": {
        "sync": "halos", "sync.local_steps": 2, "sync.offers": 4, "sync.share": 0.5,
        "sync.local_lr": 0.5, "sync.local_buffer": 4, "sync.global_lr": 0.5, "lan.workers": 2,
    },
    "fedat": {"sync": "fedat", "sync.local_steps": 2},
    "quorum": {"sync": "quorum", "sync.local_steps": 2},
    "tifl": {"sync": "tifl", "sync.local_steps": 2, "sync.profiling_rounds": 1},
    "dc_aha": {"sync": "dc_aha", "sync.local_steps": 2},
    "esync": {"sync": "esync"},
    "esync, in flight": {"sync": "esync", "sync.variant": "preprint", "sync.query": "in_flight"},
}  # fmt: skip
SEVERAL: dict[str, Settings] = {
    "esync": {"sync.level": "workers"},
    "esync, in flight": {"sync.level": "both", "sync.max_lan_rounds": 2},
}
"""What modes set besides with several workers in a center."""
SERVERS: dict[str, Settings] = {
    "one server, in a center": {"overlay": "star"},
    "two servers, in centers": {"overlay": "multigps", "overlay.servers": 2},
    "a server in every center": {"overlay": "sharded_star"},
    "one server, on a site of its own": {"overlay": "star", "wan.server_center": "external"},
    "two servers, on a site of their own": {
        "overlay": "multigps", "overlay.servers": 2, "overlay.placement": "geomx",
        "wan.server_center": "external",
    },
}  # fmt: skip
WITH_DEVICES = ("fedgs",)
"""Algorithms whose workers are base stations: never several in a center, so not in the matrix."""
STEPS = 8  # of every worker in a run
WORKERS = (1, 2)  # per center: in its local server's process, or on the LAN

# Settings that no matrix above has, and that do not go together.
REFUSED: tuple[Settings, ...] = (
    *({"sync.p3": True, "sync": name} for name in ("local_steps", "hfa", "hierfavg", "mixed_sync")),
    {"sync.p3": True, "optimizer.clip_norm": 1.0},
    {"sync.p3": True, "nonfinite": "skip"},
    *({"nonfinite": "skip", "sync": name} for name in ("local_steps", "hfa", "hierfavg")),
    {"sync": "mixed_sync", "overlay": "multigps", "overlay.servers": 2, "optimizer.clip_norm": 1.0},
    {
        "sync": "mixed_sync",
        "checkpoint_every": 10,
        "compression": "size_only",
        "model": "synthetic",
    },
    {"sync": "fedbuff", "sync.buffer": 4},
    {"sync": "halos", "lan.workers": 1},
    {"sync": "fedasync", "outer_optimizer": "adam"},
    {"sync": "fedasync", "overlay": "ring"},
    {"sync": "fsa", "sync.local_steps": 2},
    {"sync": "mixed_sync", "sync.local_steps": 2},
    {"sync": "fsa", "sync.lan_rounds": 2},
    {"overlay": "star", "overlay.servers": 2},
    {"compression": "size_only", "model": "mlp"},
    {"sync": "esync", "sync.level": "centers", "lan.workers": 2},
    {"sync": "esync", "sync.level": "workers", "lan.workers": 1},
    {"sync": "esync", "sync.min_local_steps": 4, "sync.max_local_steps": 2},
    {"sync": "esync", "sync.max_lan_rounds": 5, "sync.level": "centers"},
    {"sync": "tifl", "sync.policy": "vanilla", "sync.tiers": 3},
    {"sync": "tifl", "sync.policy": "vanilla", "sync.profiling_rounds": 2},
    {"sync": "tifl", "sync.profiling_rounds": 0, "sync.timeout_s": 5.0},
    {"sync": "tifl", "sync.credits": 5},
    {"sync": "tifl", "sync.policy": "adaptive", "model": "synthetic"},
    {"sync": "tifl", "sync.policy": "adaptive", "devices.count": 4},
    *({"center_selection": "random", "sync": name} for name in ("esync", "fedasync", "scaffold")),
    {"sync": "fsa", "optimizer": "muon"},
    {"sync": "streaming_diloco", "sync.local_steps": 10, "sync.fragments": 3},
    {"sync": "streaming_diloco", "sync.local_steps": 10, "sync.fragments": 2, "sync.overlap": 6},
    {"sync": "streaming_diloco", "sync.local_steps": 10, "sync.overlap": 10},
    {"compression": "e3m0", "compression.sums": "e3m0", "overlay": "ring"},
    {"compression.lan": "bisparse"},
    {"compression": "dgt", "compression.lost": "last"},
    {"sync": "fedgs", "sync.local_steps": 2},
    {"selection": "random"},
    {"devices.count": 4, "lan.workers": 2},
    {"devices.count": 4, "sync.p3": True},
    {"devices.count": 4, "model": "synthetic"},
    {"devices.count": 4, "pace.grid_s": 0.5},
    {"devices.count": 4, "selection": "random", "selection.devices": 5},
)


class Case(NamedTuple):
    """One member of each axis, and the workers per center."""

    codec: str
    mode: str
    servers: str
    workers: int

    @property
    def settings(self) -> dict[str, Any]:
        """What it sets."""
        more = SEVERAL.get(self.mode, {}) if self.workers > 1 else {}
        return {**CODECS[self.codec], **MODES[self.mode], **more, **SERVERS[self.servers]}


def everything() -> list[Case]:
    """The whole product."""
    return [Case(*each) for each in product(CODECS, MODES, SERVERS, WORKERS)]


def pairs() -> list[Case]:
    """Every codec with every mode, both with every kind of servers, all with 1 and 2 workers.

    >>> chosen = pairs()
    >>> len(chosen) == len(CODECS) * len(MODES) == len({case[:2] for case in chosen})
    True
    >>> len({case[1:3] for case in chosen}) == len(MODES) * len(SERVERS)
    True
    """
    servers = tuple(SERVERS)
    return [
        Case(codec, mode, servers[(one + other) % len(servers)], WORKERS[one % 2 ^ other // 2 % 2])
        for one, codec in enumerate(CODECS)
        for other, mode in enumerate(MODES)
    ]


def written(settings: Settings) -> str:
    """Settings as one types them."""
    return " ".join(f"{key}={_value(value)}" for key, value in settings.items())


def config_of(settings: Settings, *, workers: int = 1) -> RunConfig:
    """A short training run with these settings.

    An MLP on the digits, three centers, and links so slow and lossy that DGT's late blocks are
    late, or get lost.
    """
    config = RunConfig(batch_size=16, lr=0.2, eval_every_s=2.0, hash_every=1)
    config.model.name, config.data.name = "mlp", "digits"
    config.wan = WanConfig(
        name="uniform", generator="uniform", centers=3, rate=3.0, rtt=20.0, loss=0.01
    )
    config.lan.workers = workers
    config.overlay.chunk_elements = 1000
    change(config, settings)
    algorithm = build_sync(config.sync)
    config.rounds = max(1, STEPS // (algorithm.local_steps.steps(0) * algorithm.lan_rounds))
    return config


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def overlaps(cases: Iterable[Case]) -> set[tuple[str, str]]:
    """All pairs of members of two axes that some case has."""
    return {
        pair
        for case in cases
        for pair in ((case.codec, case.mode), case[1:3], (case.codec, case.servers))
    }
