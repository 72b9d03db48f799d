"""The configuration of one run, as plain dataclasses.

These are the schema: Hydra composes YAML files into them, every node of a run receives one as
JSON, and a key or a type that is not here is refused. Each group is one axis or one part of the
run; ``name`` chooses the member, the other fields are its settings.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any


@dataclass
class ModelConfig:
    """What is trained. ``bytes`` sizes the synthetic model; ``pace_s`` replaces the model's own."""

    name: str = "demo_cnn"
    bytes: int = 10_000_000
    pace_s: float | None = None  # emulated duration of one step of one batch; None: model's own
    stages: int = 1  # synthetic: parts in which it is trained under sync.p3
    stage_paces: Any = None  # synthetic: [forward_s, backward_s] of each stage; None: equal, 1:2
    stage_bytes: Any = None  # synthetic: bytes of each stage; None: equal


@dataclass
class DataConfig:
    """On what. ``path``: npz: the file, else a folder to look in first; ``*_samples``: so many."""

    name: str = "fashion_mnist"
    path: str | None = None
    train_samples: int | None = None
    test_samples: int | None = None
    download: bool = True  # fetch the official files into a cache when found nowhere else


@dataclass
class PartitionConfig:
    """Which center and worker holds which part of the data."""

    name: str = "iid"
    alpha: float = 0.5  # dirichlet: concentration; smaller is more skewed
    shards: int = 2  # shards: label-sorted pieces per worker
    skew: float = 2.0  # size_skew: largest part ÷ smallest part
    seed: int | None = None  # None: the run's seed


@dataclass
class OptimizerConfig:
    """An optax optimizer. ``lr`` None: the run's. ``auto`` (outer): see ``geojax.assemble``."""

    name: str = "sgd"
    lr: float | None = None
    momentum: float = 0.0
    nesterov: bool = False
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None


@dataclass
class LanConfig:
    """Defaults for every center's LAN; a center in a WAN file may state its own."""

    rate: float = 1000.0  # Mbit/s, each host, each way
    rtt: float = 0.2  # ms between two hosts of a center
    workers: int = 1  # workers per center


@dataclass
class WanConfig:
    """A WAN: either ``centers`` and ``links`` written out, or a ``generator`` with its numbers."""

    name: str = "three_centers"
    generator: str | None = None  # None: written out; else a member of testbed.wan.generators
    centers: Any = None  # list of names or {name, workers, egress, ingress}; generators: a number
    links: list[Any] = field(default_factory=list)
    rate: float | None = None  # Mbit/s, generators
    rtt: float | None = None  # ms, default of every link
    jitter: Any = None  # ms, default of every link; or {ms, distribution}
    loss: float | None = None  # share of packets lost, default of every link
    degree: int | None = None  # neighbours of a center, generators of sparse WANs
    draw: Any = None  # rates drawn at random: {low, high}
    dynamics: Any = None  # how rates change: {kind, ...}, or a list of such scripts
    seed: int | None = None  # None: the run's seed
    bandwidth_scale: float = 1.0
    delay_scale: float = 1.0
    server_center: str | None = None  # of the scheduler; None: first center; or "external": a
    # site without data, for the scheduler, and for the global server(s) of star and multigps
    external: Any = None  # server_center=external: {rate, rtt} of its links (Mbit/s, ms)
    provenance: Any = None  # where the numbers come from


@dataclass
class PaceConfig:
    """Emulated durations: ``factor`` scales every step; ``centers`` scales single centers.

    ``profile`` says how workers differ and how their paces change: None (they do not), ``{kind,
    ...}`` or a list of these, whose factors multiply; see :mod:`geojax.center.paces`. ``grid_s``
    stretches every step so that it ends at a multiple of so many seconds of experiment time: where
    rounds last less, all members make their offers at one instant.

    The ``*_gbps`` and ``*_s`` fields are the table from which host work is charged in simulation
    (gigabytes per second, seconds); real testbeds do that work and charge nothing.
    """

    name: str = "model"
    factor: float = 1.0
    centers: dict[str, float] = field(default_factory=dict)
    profile: Any = None
    grid_s: float | None = None  # None: steps end when they are done
    encode_gbps: float = 4.0
    sum_gbps: float = 4.0
    outer_gbps: float = 2.0
    plan_s: float = 0.01


@dataclass
class SyncConfig:
    """When centers exchange, and how an exchange is merged."""

    name: str = "fsa"
    local_steps: int = 1  # before an exchange over the LAN (GeoMX's K1)
    lan_rounds: int = 1  # hfa, hierfavg: exchanges over the LAN in one over the WAN (GeoMX's K2)
    compensation: str = "none"  # mixed_sync: none, constant or adaptive (DC-ASGD)
    lam: float | None = None  # mixed_sync: λ of the compensation; None: the published one
    staleness: int | None = None  # mixed_sync: rounds that a center may be ahead; None: no bound
    p3: bool = False  # layer by layer: a layer's gradient leaves when its own backward is done


@dataclass
class OverlayConfig:
    """Along which routes. ``root`` None: the first center, or the external global server."""

    name: str = "star"
    root: str | None = None
    chunk_elements: int = 65_536
    servers: Any = None  # multigps: how many global servers, or the names of their centers
    placement: str = "bytes"  # multigps: chunks to servers by "bytes", or by "geomx" key hash
    roots: int | None = None  # netstorm: how many of the best roots serve; None: every center
    arity: int = 2  # mlnet: children of a center
    order: str = (
        "tsp"  # ring: least sum of 1 / rate ("tsp"), or fastest slowest edge ("bottleneck")
    )
    greed: float = 0.9  # tsengine: cap on the probability of taking the best link known
    faithful: bool = False  # tsengine: with the quirks of the release
    seed: int = 0  # tsengine: of its random choices
    max_trees: int | None = None  # packing: at most so many trees; None: as many as serve
    gap: float = 1e-3  # packing: how far from the optimum planning may stop, as a share of it
    awareness: str = "oracle"  # the rates that plans go by: the "oracle"'s, or "measured" ones
    replan: bool = True  # plan again, between rounds, when the rates have changed
    hysteresis: float = 0.1  # change only to a plan that is estimated to save this share of time
    probe_after: int = 5  # measured: rounds without a sample until a link is probed; 0: never
    probe_share: float = 0.01  # measured: most bytes that probes may be, as a share of all
    auxiliary: str = "none"  # ways beside a tree's links: "none", "fastest", "paced" or "random"
    primary_busy: int = 2  # auxiliary: chunks waiting for a link, above which others are looked at
    auxiliary_queue: int = 1  # auxiliary: chunks waiting for a route, from which on it is full


@dataclass
class CompressionConfig:
    """What travels over the WAN; each codec names the keys that it reads."""

    name: str = "dense"
    lan: str | None = None  # what travels over the LANs: dense, fp16 or bf16; None: as name says
    ratio: float = 0.01  # bisparse, mpq: share of elements kept
    bound: int = 1000  # bisparse, mpq: layers of fewer elements travel whole
    momentum: float | None = None  # bisparse, mpq; None: 0.9 for gradients, 0 for deltas
    exact: bool = False  # bisparse, mpq: the exact top-k instead of a sampled threshold
    overflow: str = "saturate"  # fp16, mpq: what becomes of too large values, or "stop"
    threshold: float = 0.5  # twobit
    k: float = 0.8  # dgt: share of blocks that are important
    adaptive: bool = False  # dgt: k falls with the loss, not below k_min
    k_min: float = 0.2
    alpha: float = 0.3  # dgt: weight of the past in a block's contribution
    block_bytes: int = 4096  # dgt
    channel: str = "tcp"  # dgt: how the unimportant blocks travel, "tcp" or "udp"
    lost: str = "zero"  # dgt over udp: a lost block counts as "zero", or as its "last" value
    tail: str = "float32"  # dgt: the unimportant blocks as "float32" or "4bit"


@dataclass
class SelectionConfig:
    """Who takes part."""

    name: str = "everyone"


@dataclass
class TimeoutsConfig:
    """Every bound on a wait, in seconds of the run's clock."""

    start: float = 180.0  # all nodes have joined
    connect: float = 10.0  # one TCP connection
    heartbeat: float = 0.5  # between two heartbeats
    dead: float = 5.0  # silence after which a member is dead
    round: float = 600.0  # one exchange
    warn: float = 30.0  # a wait is logged after so long


@dataclass
class TestbedConfig:
    """Where the run happens. ``goodput_factor``: TCP payload ÷ link rate of the simulated WAN."""

    __test__ = False  # not a test, whatever pytest thinks of the name
    name: str = "simulated"
    goodput_factor: float = 0.95
    rtt_bias: float = 0.5  # simulated: TCP's shares of a bottleneck ∝ round trip ** -rtt_bias
    devices: int = 1  # local devices per worker process (CPU); accelerators are taken as found
    congestion_control: str = "cubic"
    verify_tolerance: float = 0.15  # emulated: largest relative error of a measured link rate
    cpu_limit: Any = None  # share of a core that a node may use, or {center: share}; not simulated
    faults: list[Any] = field(default_factory=list)  # [{at, kind, node}], on experiment time


@dataclass
class TrackersConfig:
    """Who else is told. ``none``: only the run directory."""

    name: str = "none"


@dataclass
class RunConfig:
    """One run: the groups above and the run's own keys."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    outer_optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(name="auto"))
    wan: WanConfig = field(default_factory=WanConfig)
    lan: LanConfig = field(default_factory=LanConfig)
    pace: PaceConfig = field(default_factory=PaceConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    overlay: OverlayConfig = field(default_factory=OverlayConfig)
    compression: CompressionConfig = field(default_factory=CompressionConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    testbed: TestbedConfig = field(default_factory=TestbedConfig)
    trackers: TrackersConfig = field(default_factory=TrackersConfig)
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    experiment: str = "default"  # a name for the tables
    seed: int = 0
    rounds: int = 100
    warmup_rounds: int = 0  # first rounds that sync times and the like leave out
    max_time_s: float | None = None  # experiment time after which no round starts
    batch_size: int = 32  # per worker and step
    lr: float = 0.01
    loss: str = "cross_entropy"  # what training makes small; or next_token, mse, an own one
    eval_every_s: float = 5.0  # experiment time
    target_accuracy: float = 0.8
    target_over: str = "evaluations"  # what the mean of three is over; or "models", each once
    stop_at_target: bool = False  # simulated: the run ends when the target accuracy is reached
    nonfinite: str = "stop"  # or "skip": what becomes of an offer that holds NaN or infinity
    hash_every: int = 10  # rounds between two comparisons of the centers' parameters
    events: str = "round"  # "round" or "chunk": how fine events.jsonl is
    checkpoint_every: int = 0  # rounds; 0: no checkpoint
    resume: bool = False

    def rate_of(self, optimizer: OptimizerConfig) -> float:
        """An optimizer's learning rate: its own, or the run's."""
        return self.lr if optimizer.lr is None else optimizer.lr


def to_dict(config: object) -> dict[str, Any]:
    """The configuration as plain JSON-ready values."""
    return asdict(config)  # type: ignore[call-overload]


def from_dict(cls: type, values: dict[str, Any]) -> Any:
    """Rebuilds a configuration dataclass from :func:`to_dict`'s output."""
    built = cls()
    for item in fields(cls):
        if item.name in values:
            current = getattr(built, item.name)
            value = values[item.name]
            nested = is_dataclass(current) and isinstance(value, dict)
            setattr(built, item.name, from_dict(type(current), value) if nested else value)
    return built
