"""The configuration of one run, as plain dataclasses.

These are the schema: Hydra composes YAML files into them, every node of a run receives one as
JSON, and a key or a type that is not here is refused. Each group is one axis or one part of the
run. Here stand the keys that every member of an axis reads; a member has a dataclass of its own,
derived from these, beside its factory (see :mod:`geojax.registry`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

from geojax.errors import ConfigError
from geojax.settings import Settings, key

WHOLE = 2**32  # seeds lie below it


FASTEST = "fastest"  # see overlay.routes


@dataclass
class ModelConfig(Settings):
    """What is trained."""

    name: str = key("demo_cnn", "the model")
    pace_s: float | None = key(
        None, "emulated duration of one step of one batch; null: the model's own", unit="s", least=0
    )


@dataclass
class DataConfig(Settings):
    """What it is trained on, and evaluated with."""

    name: str = key("fashion_mnist", "the data set")
    train_samples: int | None = key(None, "train on so many samples only; null: all", least=1)
    test_samples: int | None = key(None, "evaluate on so many samples only; null: all", least=1)


@dataclass
class PartitionConfig(Settings):
    """Who holds which part of the training data.

    ``partition`` deals all samples to the workers; ``device_partition`` deals those of a worker to
    the devices behind it, where it has some.
    """

    name: str = key("iid", "how the samples are dealt")
    seed: int | None = key(None, "of the draws; null: the run's seed", least=0, below=WHOLE)


@dataclass
class DevicesConfig(Settings):
    """Devices that hold the data of a worker, which is their base station.

    They live in its process. What they send to it does not cross the LAN or the WAN: it is charged
    from the table of ``rate`` and ``rtt``, and counted as internal bytes.
    """

    count: Any = key(
        0, "behind each worker: a number, or {center: number}; 0: none, the worker holds its data "
        "itself; null: one a writer (device_partition=by_writer)",
    )  # fmt: skip
    gradient: str = key(
        "union", "of a step: one on the batches of all chosen devices together (union), or one of "
        "each device, summed in order (each)", choices=("each", "union"),
    )  # fmt: skip
    rate: float = key(
        100.0, "of a device's link to its base station, each way", unit="Mbit/s", above=0
    )
    rtt: float = key(5.0, "round trip between a device and its base station", unit="ms", least=0)


@dataclass
class OptimizerConfig(Settings):
    """An optax optimizer.

    ``optimizer`` makes a worker's steps; ``outer_optimizer`` moves the parameters by what an
    exchange has merged. ``outer_optimizer=auto``: as the synchronization algorithm says.
    """

    name: str = key("sgd", "the optimizer")
    lr: float | None = key(None, "learning rate; null: the run's", above=0)
    weight_decay: float = key(0.0, "share of the weights that a step takes away", least=0)
    clip_norm: float | None = key(
        None, "gradients are clipped to this Euclidean norm; null: they are not", above=0
    )


@dataclass
class LanConfig(Settings):
    """Defaults for every center's LAN; a center in a WAN file may state its own."""

    rate: float = key(1000.0, "of each host, each way", unit="Mbit/s", above=0)
    rtt: float = key(0.2, "round trip between two hosts of a center", unit="ms", least=0)
    workers: int = key(1, "workers per center", least=1)


@dataclass
class WanConfig(Settings):
    """A WAN: either ``centers`` and ``links`` written out, or a ``generator`` with its numbers."""

    name: str = key("three_centers", "what it is called in tables")
    generator: str | None = key(None, "makes centers and links; null: they are written out")
    centers: Any = key(
        None, "list of names or of {name, workers, egress, ingress}; for generators: their number"
    )
    links: list[Any] = key(
        [], "list of {between: [A, B], rate, rtt, jitter, loss}, or of {from: A, to: B, …}"
    )
    rate: float | None = key(None, "of every link that states none", unit="Mbit/s")
    rtt: float | None = key(None, "of every link that states none", unit="ms")
    jitter: Any = key(
        None, "of every link that states none: a number, or {ms, distribution}", unit="ms"
    )
    loss: float | None = key(None, "share of packets lost on every link that states none")
    egress: float | None = key(
        None, "access cap of every center that states none: out over all its links", unit="Mbit/s"
    )
    ingress: float | None = key(None, "likewise, into it", unit="Mbit/s")
    draw: Any = key(None, "rates drawn at random: {low, high}", unit="Mbit/s")
    dynamics: Any = key(
        None, "how rates change: {kind, …}, or a list of these; null: they do not; see "
        "testbed/wan/dynamics",
    )  # fmt: skip
    seed: int | None = key(None, "of all draws; null: the run's seed")
    bandwidth_scale: float = key(1.0, "factor of all rates of the WAN")
    delay_scale: float = key(1.0, "factor of all round trips of the WAN")
    connections: Any = key(
        1, "TCP connections from each node to each one in another center (not the scheduler's), "
        "over which its frames go side by side: a number, or auto: as many as the paths' rates, "
        "round trips and losses ask for",
    )  # fmt: skip
    server_center: str | None = key(
        None, "where the scheduler is; null: in the first center; external: on a site without "
        "data, with the global servers of star and multigps",
    )  # fmt: skip
    external: Any = key(None, "{rate, rtt} of the links of server_center=external, Mbit/s and ms")
    provenance: Any = key(None, "where the numbers come from")


@dataclass
class PaceConfig(Settings):
    """Emulated durations of steps.

    ``encode_gbps`` to ``plan_s`` are the table from which host work is charged in simulation; real
    testbeds do that work and charge nothing.
    """

    name: str = key("model", "what it is called in tables")
    factor: float = key(1.0, "of every step's duration", least=0)
    centers: dict[str, float] = key({}, "further factors of single centers, {center: factor}")
    profile: Any = key(
        None, "how workers differ and how their paces change: {kind, …}, or a list of these whose "
        "factors multiply; null: they do not; see geojax/center/paces.py",
    )  # fmt: skip
    grid_s: float | None = key(
        None, "steps end at a multiple of so many seconds; null: when they are done", unit="s",
        above=0,
    )  # fmt: skip
    encode_gbps: float = key(4.0, "simulated: float32 encoded or decoded", unit="GB/s", above=0)
    sum_gbps: float = key(4.0, "simulated: float32 summed", unit="GB/s", above=0)
    outer_gbps: float = key(
        2.0, "simulated: parameters that the outer optimizer moves", unit="GB/s", above=0
    )
    plan_s: float = key(0.01, "simulated: duration of one planning", unit="s", least=0)


@dataclass
class SyncConfig(Settings):
    """When centers exchange, and how an exchange is merged."""

    name: str = key("fsa", "the synchronization algorithm")
    p3: bool = key(
        False, "layer by layer: a layer's gradient leaves when its own backward pass is done (fsa)"
    )

    @property
    def splits_batches(self) -> bool:
        """A worker's devices share each batch; else each of them trains clients of its own."""
        return True


@dataclass
class OverlayConfig(Settings):
    """Along which routes chunks travel between centers, and within them."""

    name: str = key("star", "the overlay")
    chunk_elements: int = key(
        65_536, "elements of a chunk, the piece of a vector that travels by itself", least=1
    )
    pieces: int = key(
        1, "parts of the vector that are merged, applied and given to the workers one by one, so "
        "that LANs and WAN work side by side", least=1,
    )  # fmt: skip
    lan: str = key(
        "star", "where a center's offers are summed: all at its local server, or shares of the "
        "chunks at each of its workers, which pass the sums on to it",
        choices=("sharded", "star"),
    )  # fmt: skip
    awareness: str = key(
        "oracle", "plans go by the true rates, or by measured ones", choices=("measured", "oracle")
    )
    replan: bool = key(True, "plan again when the rates have changed")
    replan_at: str = key(
        "round", "a new plan holds from the next round on that is not granted yet, or takes over "
        "the rounds under way at once: their chunks that some center lacks go by it",
        choices=("chunk", "round"),
    )  # fmt: skip
    hysteresis: float = key(
        0.1, "change only to a plan that is estimated to save this share of time", least=0
    )
    probe_after: int = key(
        5, "measured: rounds without a sample until a link is probed; 0: never", least=0
    )
    probe_share: float = key(
        0.01, "measured: most bytes that probes may be, as a share of all", least=0, below=1
    )
    routes: str = key(
        FASTEST, "between centers without a link of their own: chunks are relayed by the fastest "
        "path (least sum of 1/rate, as believed), or packets take the fewest hops",
        choices=(FASTEST, "fewest_hops"),
    )  # fmt: skip
    auxiliary: str = key(
        "none", "further paths for chunks while a tree's link is busy, see "
        "geojax/overlay/routes/auxiliary.py",
        choices=("none", "fastest", "paced", "random"),
    )  # fmt: skip
    auxiliary_rule: str = key(
        "again", "auxiliary: a chunk's path is chosen once, when it is sent, as in NetStorm's "
        "release, or again whenever a message has left (ours)",
        choices=("again", "once"),
    )  # fmt: skip
    primary_busy: int = key(
        2, "auxiliary: chunks waiting for a link, above which others are looked at", least=0
    )
    auxiliary_queue: int = key(
        1, "auxiliary: chunks waiting for a path, from which on it is full", least=1
    )


@dataclass
class CompressionConfig(Settings):
    """What travels over the WAN."""

    name: str = key("dense", "the codec")
    lan: str | None = key(
        None, "what travels over the LANs; null: as the codec says",
        choices=("bf16", "dense", "fp16"),  # without residuals: a worker may come and go
    )  # fmt: skip


@dataclass
class SelectionConfig(Settings):
    """Who takes part."""

    name: str = key("everyone", "the selection")


@dataclass
class TimeoutsConfig(Settings):
    """Every bound on a wait, in seconds of the run's clock."""

    start: float = key(180.0, "until all nodes have joined", unit="s", above=0)
    connect: float = key(10.0, "until a TCP connection stands", unit="s", above=0)
    heartbeat: float = key(0.5, "between two heartbeats of a member", unit="s", above=0)
    dead: float = key(5.0, "silence after which a member counts as dead", unit="s", above=0)
    round: float = key(600.0, "until an exchange is done", unit="s", above=0)
    warn: float = key(30.0, "a wait is logged after so long", unit="s", above=0)


@dataclass
class TestbedConfig(Settings):
    """Where the run happens."""

    __test__ = False  # not a test, whatever pytest thinks of the name
    name: str = key("simulated", "which testbed", choices=("simulated", "local", "emulated"))
    goodput_factor: float = key(
        0.95, "simulated: share of a link's rate that TCP's payload gets", above=0, most=1
    )
    rtt_bias: float = key(
        0.5, "simulated: TCP's shares of a bottleneck are in proportion to round trip ** -rtt_bias"
    )
    devices: int = key(
        1,
        "CPU devices of a process, which share each batch, or the clients of a federated round; "
        "accelerators are taken as found",
        least=1,
    )
    cores: int | None = key(
        None,
        "simulated: how many compute the steps of different workers side by side, and evaluate, to "
        "the same bytes as one (it is one with testbed.devices above 1 and in federated rounds); a "
        "sweep divides them among the jobs that run at once; null: all that the process may use",
        least=1,
    )
    congestion_control: str = key("cubic", "emulated: that of TCP, as Linux names it")
    verify_tolerance: float = key(
        0.15, "emulated: largest relative error of a measured link rate", least=0
    )
    cpu_limit: Any = key(
        None, "local, emulated: share of a core that a node may use, or {center: share}"
    )
    faults: list[Any] = key([], "list of {at, kind, node, …}, see testbed/faults.py")

    def check(self) -> None:
        """See :meth:`geojax.settings.Settings.check`."""
        if self.cores is not None and self.name != "simulated":
            fix = (
                f"every node of testbed={self.name} is a process of its own, on whatever core is "
                "free; leave it out, or use testbed=simulated"
            )
            raise ConfigError("testbed.cores", self.cores, fix)


@dataclass
class TrackersConfig(Settings):
    """Who is told of a run beside its directory: nobody yet."""

    name: str = key("none", "who is told", choices=("none",))


@dataclass
class RunConfig(Settings):
    """One run: its groups and the run's own keys."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    devices: DevicesConfig = field(default_factory=DevicesConfig)
    device_partition: PartitionConfig = field(default_factory=PartitionConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    outer_optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(name="auto"))
    wan: WanConfig = field(default_factory=WanConfig)
    lan: LanConfig = field(default_factory=LanConfig)
    pace: PaceConfig = field(default_factory=PaceConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    overlay: OverlayConfig = field(default_factory=OverlayConfig)
    compression: CompressionConfig = field(default_factory=CompressionConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    center_selection: SelectionConfig = field(default_factory=SelectionConfig)
    testbed: TestbedConfig = field(default_factory=TestbedConfig)
    trackers: TrackersConfig = field(default_factory=TrackersConfig)
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    plugins: list[str] = key([], "modules that register members; see docs/extending.md")
    experiment: str = key("default", "a name for the tables")
    seed: int = key(0, "of everything that is drawn", least=0, below=WHOLE)
    rounds: int = key(100, "rounds of the run", least=1)
    warmup_rounds: int = key(
        0, "first rounds, which sync times and the like leave out; fewer than rounds", least=0
    )
    max_time_s: float | None = key(
        None,
        "experiment time after which nothing counts: no round starts, and the last model merged "
        "before is the final one; null: no limit",
        unit="s",
        above=0,
    )
    batch_size: int = key(
        32, "samples per worker and step; a multiple of testbed.devices, where they share batches",
        least=1,
    )  # fmt: skip
    lr: float = key(0.01, "learning rate of optimizers that state none", above=0)
    loss: str = key(
        "cross_entropy",
        "what training makes small: cross_entropy, mse, next_token, or your own",
    )
    eval_every_s: float = key(5.0, "experiment time between evaluations", unit="s", above=0)
    target_accuracy: float = key(0.8, "share of right answers to reach", above=0, most=1)
    target_over: str = key(
        "models", "the mean of three is over models, each once, or over evaluations",
        choices=("evaluations", "models"),
    )  # fmt: skip
    stop_at_target: bool = key(
        False,
        "simulated: the run ends when the target accuracy is reached; nothing counts after that",
    )
    nonfinite: str = key(
        "stop",
        "an offer that holds NaN or infinity is left out, or stops the run",
        choices=("skip", "stop"),
    )
    hash_every: int = key(
        10, "rounds between two comparisons of the centers' parameters; 0: never", least=0
    )
    events: str = key(
        "round",
        "events.jsonl has lines for each round, or for each chunk too",
        choices=("chunk", "round"),
    )
    checkpoint_every: int = key(
        0, "rounds between two checkpoints, or merges where centers have rounds of their own; "
        "0: none", least=0,
    )  # fmt: skip
    resume: bool = key(False, "go on with a broken run, and skip finished ones")

    def rate_of(self, optimizer: OptimizerConfig) -> float:
        """An optimizer's learning rate: its own, or the run's."""
        return self.lr if optimizer.lr is None else optimizer.lr

    @property
    def mesh_size(self) -> int:
        """CPU devices of a process that share each batch."""
        return self.testbed.devices if self.sync.splits_batches else 1

    def check(self) -> None:
        """See :meth:`geojax.settings.Settings.check`."""
        if self.warmup_rounds >= self.rounds:
            fix = f"give a number from 0 to rounds - 1 = {self.rounds - 1}: one round must count"
            raise ConfigError("warmup_rounds", self.warmup_rounds, fix)


def to_dict(config: object) -> dict[str, Any]:
    """The configuration as plain JSON-ready values."""
    return asdict(config)  # type: ignore[call-overload]


def groups() -> dict[str, Any]:
    """The default settings of each group of :class:`RunConfig`, by name, in its order."""
    values = vars(RunConfig()).items()
    return {name: value for name, value in values if is_dataclass(value)}
