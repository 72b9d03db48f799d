"""Puts the parts of one node together: configuration in, roles out."""

from __future__ import annotations

from asyncio import create_task
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from geojax.center.optimizers import check_optimizer
from geojax.center.outer import OuterOptimizer, PlainSgd, build_outer_optimizer
from geojax.center.pace import build_pace
from geojax.center.spec import VectorSpec
from geojax.center.trainer import build_spec, build_trainer, initial_vector
from geojax.compression.codec import Codec
from geojax.compression.registry import build_codec
from geojax.config import OptimizerConfig, RunConfig
from geojax.data.dataset import Dataset, load_dataset
from geojax.data.partitions import PARTITIONS, partition
from geojax.errors import ConfigError
from geojax.hips.checkpoint import START, Checkpoints, ResumePoint
from geojax.hips.exchange import TreeExchange
from geojax.hips.global_server import GlobalServer
from geojax.hips.links import DirectLink, LanDownlink, LanUplink
from geojax.hips.local_server import LocalServer
from geojax.hips.machine import Machine
from geojax.hips.member import Membership
from geojax.hips.parts import Part, parts_of
from geojax.hips.places import SCHEDULER, WAN_GROUP, Places
from geojax.hips.scheduler import Scheduler
from geojax.hips.snapshots import Snapshots
from geojax.hips.waits import first_failure
from geojax.hips.worker import Worker, WorkerNode
from geojax.hollow import SIZE_ONLY, is_hollow
from geojax.models.registry import SYNTHETIC, model_info
from geojax.overlay.cutting import Ranges, chunk_ranges
from geojax.overlay.policy import Policy
from geojax.overlay.registry import build_overlay
from geojax.overlay.star import star
from geojax.overlay.view import NetworkView
from geojax.selection.registry import build_selection
from geojax.sync.algorithm import SyncAlgorithm
from geojax.sync.registry import build_sync
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder
from geojax.telemetry.report import counters, restore
from geojax.wire.transport import Transport


@dataclass
class Setup:
    """What all nodes of a run know, and what nodes of one process share (data, evaluator).

    Attributes:
      config: the run.
      places: all nodes.
      view: the WAN as the scheduler believes it to be.
      models: folder of the final model, and of models that wait for evaluation.
      inline: evaluate at once, while the clock stands still (simulation).
      checkpoints: folder of the nodes' checkpoints.
      resume: where the run goes on, if it continues a broken one.
    """

    config: RunConfig
    places: Places
    view: NetworkView
    models: Path
    checkpoints: Path
    inline: bool = False
    resume: ResumePoint = START
    _cache: dict[str, Any] = field(default_factory=dict)

    def dataset(self) -> Dataset:
        """The data set, loaded once per process."""
        return self._once("dataset", lambda: load_dataset(self.config.data))

    def train_samples(self) -> int:
        """Size of the training set."""
        return len(self.dataset().train_y)

    def part(self, name: str) -> np.ndarray:
        """Indices of the training samples that trainer ``name`` holds."""
        return self.parts()[name]

    def parts(self) -> dict[str, np.ndarray]:
        """The same for all trainers."""
        config = self.config
        labels = self.dataset().train_y
        seed = config.seed if config.partition.seed is None else config.partition.seed
        return self._once(
            "parts", lambda: partition(config.partition, labels, self.places.trainers, seed)
        )

    def initial(self) -> np.ndarray:
        """The initial vector: the same in every process, from the run's seed."""
        vector = self._once("initial", lambda: initial_vector(self.config))
        return vector if is_hollow(vector) else vector.copy()

    def evaluator(self) -> Callable[[np.ndarray], dict[str, float]] | None:
        """Accuracy and loss of a vector on the test set; None for a synthetic model."""
        if self.config.model.name == SYNTHETIC:
            return None
        from geojax.center.evaluate import build_evaluator

        data = self.dataset()
        return self._once(
            "evaluator", lambda: build_evaluator(self.config, data.test_x, data.test_y)
        )

    def evaluated(self) -> set[float] | None:
        """Grid points whose model has been evaluated; None where models wait for the end."""
        return self._once("evaluated", set) if self.inline else None

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]


def check(config: RunConfig, places: Places, view: NetworkView) -> None:
    """Finds what is wrong with a configuration before any process starts.

    Raises:
      ConfigError: names the key, the value and the fix.
    """
    _check_numbers(config)
    if config.batch_size % config.testbed.devices:
        raise ConfigError(
            "batch_size", config.batch_size, f"must divide by testbed.devices = "
            f"{config.testbed.devices}",
        )  # fmt: skip
    if config.events not in ("round", "chunk"):
        raise ConfigError("events", config.events, "valid: round, chunk")
    for center in config.pace.centers:
        if center not in places.servers:
            raise ConfigError("pace.centers", center, f"valid: {', '.join(places.servers)}")
    check_optimizer(config.optimizer, _rate(config, config.optimizer))
    if config.outer_optimizer.name != "auto":
        outer = config.outer_optimizer
        check_optimizer(outer, _rate(config, outer), key="outer_optimizer")
    algorithm = build_sync(config.sync)
    codec = build_codec(config.compression)
    simulated = config.testbed.name == "simulated" and config.model.name == SYNTHETIC
    if codec.name == SIZE_ONLY and not simulated:
        raise ConfigError(
            "compression.name", codec.name,
            "moves no content: use it with testbed=simulated and model=synthetic, or "
            "compression=dense",
        )  # fmt: skip
    build_selection(config.selection)
    overlay = build_overlay(config.overlay, places.servers, places.global_servers)
    policy = overlay.plan(view, places.groups(places.members)[WAN_GROUP], (1,), 0)
    depth = max(_depth(policy, member) for member in policy.members)
    if depth > 1 and not codec.exact_combine:
        raise ConfigError(
            "compression.name", config.compression.name,
            f"cannot be summed exactly on the deep trees of overlay={config.overlay.name}; "
            "use overlay=star or compression=dense",
        )  # fmt: skip
    if algorithm.admission.exchange != "tree":
        raise ConfigError("sync.name", config.sync.name, "needs the server exchange")
    for name in places.trainers:
        build_pace(config, places.trainers, name)
    model_info(config.model.name)
    if config.model.name != SYNTHETIC:
        PARTITIONS[config.partition.name]


def _check_numbers(config: RunConfig) -> None:
    positive = {
        "rounds": config.rounds,
        "batch_size": config.batch_size,
        "eval_every_s": config.eval_every_s,
        "overlay.chunk_elements": config.overlay.chunk_elements,
        "testbed.devices": config.testbed.devices,
        "model.bytes": config.model.bytes,
        "lr": config.lr,
        **{f"timeouts.{key}": value for key, value in vars(config.timeouts).items()},
    }
    for key, value in positive.items():
        if not value > 0:
            raise ConfigError(key, value, "give a number greater than 0")
    shares = {
        "target_accuracy": config.target_accuracy,
        "testbed.goodput_factor": config.testbed.goodput_factor,
    }
    for key, value in shares.items():
        if not 0 < value <= 1:
            raise ConfigError(key, value, "give a share: more than 0, at most 1")


def _depth(policy: Policy, member: str) -> int:
    def steps(parent: Any, node: str) -> int:
        return 0 if node not in parent else 1 + steps(parent, parent[node])

    return max(steps(tree.parent, member) for tree in policy.trees)


async def run_node(
    name: str,
    setup: Setup,
    *,
    transport: Transport,
    machine: Machine,
    clock: Clock,
    recorder: Recorder,
) -> None:
    """Runs one node from joining to the end of the run."""
    place = setup.places.place(name)
    if name == SCHEDULER:
        await _scheduler(setup, transport, machine, clock, recorder).run()
        return
    build = {"worker": _worker_node, "server": _server_node, "global": _global_node}
    member, role = build[place.role](name, setup, transport, machine, clock, recorder)
    main = create_task(role, name=f"{name} main")
    pump = create_task(member.pump(), name=f"{name} pump")
    watch = create_task(_watch(member), name=f"{name} watch")
    main.add_done_callback(lambda _: (pump.cancel(), watch.cancel()))
    try:
        await first_failure((main, pump, watch))
    finally:
        member.close()


async def _watch(member: Membership) -> None:
    await member.failed


def _scheduler(
    setup: Setup, transport: Transport, machine: Machine, clock: Clock, recorder: Recorder
) -> Scheduler:
    places = setup.places
    overlay = build_overlay(setup.config.overlay, places.servers, places.global_servers)

    def plan_lan(members: Sequence[str], sizes: Sequence[int], version: int) -> Policy:
        return star(root=members[0]).plan(setup.view, members, sizes, version)

    def plan_wan(members: Sequence[str], sizes: Sequence[int], version: int) -> Policy:
        return overlay.plan(setup.view, members, sizes, version)

    return Scheduler(
        setup.config, places, transport=transport, machine=machine, recorder=recorder,
        plan_wan=plan_wan, plan_lan=plan_lan, clock=clock, resume=setup.resume,
        lan_rounds=build_sync(setup.config.sync).lan_rounds,
    )  # fmt: skip


@dataclass
class _Plan:
    """What every training node of a run agrees on: parts, chunks, algorithm and codecs."""

    spec: VectorSpec
    stages: tuple[Any, ...]
    layers: tuple[int, ...]  # their sizes
    ranges: Ranges
    parts: tuple[Part, ...]
    priorities: tuple[int, ...]
    algorithm: SyncAlgorithm
    codec: Codec
    lan_codec: Codec

    @classmethod
    def of(cls, config: RunConfig) -> _Plan:
        spec = build_spec(config)
        algorithm = build_sync(config.sync)
        codec = _codec(config)
        stages = ()
        stops = [spec.size]
        layers = tuple(layer.size for layer in spec.layers)
        ranges = chunk_ranges(config.overlay, layers, stops)
        parts = parts_of(spec, stops, ranges)
        # Model state has no stage of its own to compute and is small: it goes first.
        idle = [part for part, stage in zip(parts, stages, strict=False) if not stage.forward]
        first = [chunk for part in idle for chunk in part.chunks]
        order = [*first, *(chunk for chunk in range(len(ranges)) if chunk not in set(first))]
        priorities = tuple(int(place) for place in np.argsort(order))
        lan_codec = _lan_codec(config, codec)
        return cls(spec, stages, layers, ranges, parts, priorities, algorithm, codec, lan_codec)


def _codec(config: RunConfig) -> Codec:
    """What travels over the WAN."""
    gradients = build_sync(config.sync).offer.name == "gradient"
    if config.model.name == SYNTHETIC:
        return build_codec(config.compression, gradients=gradients)
    from geojax.center.sparsify import center_kernel

    return build_codec(config.compression, gradients=gradients, kernel=center_kernel())


def _lan_codec(config: RunConfig, codec: Codec) -> Codec:
    """What travels over the LANs: what the WAN's codec says, unless the configuration does."""
    if config.compression.lan is None:
        return codec.lan or codec
    return build_codec(replace(config.compression, name=config.compression.lan))


def _worker(
    name: str, setup: Setup, plan: _Plan, machine: Machine, clock: Clock, recorder: Recorder
) -> Worker:
    config = setup.config
    index = setup.places.trainers.index(name)
    features = labels = np.zeros(0, np.float32)
    if config.model.name != SYNTHETIC:
        mine = setup.part(name)
        features, labels = setup.dataset().train_x[mine], setup.dataset().train_y[mine]
    trainer = build_trainer(
        config,
        features=features,
        labels=labels,
        worker_index=index,
        worker_count=len(setup.places.trainers),
    )
    inner = plan.algorithm.offer.inner
    trainer.warm_up(gradient=not inner, step=inner)
    return Worker(
        trainer, plan.algorithm, plan.parts, plan.stages,
        weight=_weight(name, setup, plan.algorithm), skip=config.nonfinite == "skip",
        machine=machine, clock=clock, recorder=recorder,
        pace=build_pace(config, setup.places.trainers, name),
    )  # fmt: skip


def _weight(name: str, setup: Setup, algorithm: SyncAlgorithm) -> float:
    """What a worker's offers count: relative to its fellows', so that sums stay of one size."""
    if algorithm.weights != "samples" or setup.config.model.name == SYNTHETIC:
        return 1.0
    sizes = {trainer: len(part) for trainer, part in setup.parts().items()}
    return sizes[name] * len(sizes) / sum(sizes.values())


def _worker_node(
    name: str, setup: Setup, transport: Transport, machine: Machine, clock: Clock,
    recorder: Recorder,
) -> tuple[Membership, Any]:  # fmt: skip
    config = setup.config
    plan = _Plan.of(config)
    worker = _worker(name, setup, plan, machine, clock, recorder)
    group = setup.places.lan_group(setup.places.place(name).center)
    per = plan.algorithm.lan_rounds
    first = (setup.resume.round + 1) * per
    engine = _engine(
        name, group, plan, transport, machine, recorder, codec=plan.lan_codec, held=first - 1
    )
    member = Membership(
        name, transport=transport, engines={group: engine}, timeouts=config.timeouts,
        recorder=recorder, lan_rounds=per,
    )  # fmt: skip
    checkpoints, kept = _checkpoints(name, setup, transport, machine, recorder)
    vector = kept["vector"] if kept else setup.initial()
    if kept:
        worker.trainer.load_state(kept["trainer"])
    link = LanUplink(
        engine, plan.lan_codec, plan.parts, timeouts=config.timeouts, clock=clock,
        recorder=recorder, lan_rounds=per,
    )  # fmt: skip
    node = WorkerNode(
        worker, vector, link=link, member=member, machine=machine, clock=clock,
        checkpoints=checkpoints, first=first,
    )  # fmt: skip
    return member, node.run()


def _server_node(
    name: str, setup: Setup, transport: Transport, machine: Machine, clock: Clock,
    recorder: Recorder,
) -> tuple[Membership, Any]:  # fmt: skip
    config = setup.config
    plan = _Plan.of(config)
    per, held = plan.algorithm.lan_rounds, setup.resume.round
    wan = _engine(name, WAN_GROUP, plan, transport, machine, recorder, codec=plan.codec, held=held)
    engines = {WAN_GROUP: wan}
    link: DirectLink | LanDownlink = DirectLink()
    worker = None
    if setup.places.workers(name):
        group = setup.places.lan_group(name)
        first = (held + 1) * per
        engines[group] = _engine(
            name, group, plan, transport, machine, recorder, codec=plan.lan_codec,
            held=first - 1, contributes=False,
            at_root=lambda *merged: link.merged(*merged),  # noqa: PLW0108 (made below)
        )  # fmt: skip
        streams = plan.lan_codec is plan.codec and per == 1 and plan.algorithm.weights != "centers"
        link = LanDownlink(
            engines[group], plan.lan_codec, plan.parts, machine=machine,
            timeouts=config.timeouts, pass_on=wan.offer if streams else None, first=first,
        )  # fmt: skip
    else:
        worker = _worker(name, setup, plan, machine, clock, recorder)
    member = Membership(
        name, transport=transport, engines=engines, timeouts=config.timeouts, recorder=recorder,
        lan_rounds=per,
    )  # fmt: skip
    checkpoints, kept = _checkpoints(name, setup, transport, machine, recorder)
    snapshots = Snapshots(
        config.eval_every_s, setup.evaluator(), recorder=recorder, machine=machine,
        folder=setup.models, evaluated=setup.evaluated(),
    )  # fmt: skip
    server = LocalServer(
        config, plan.algorithm, kept["vector"] if kept else setup.initial(), plan.parts,
        outers=[build_outer(config, plan.algorithm, part.spec) for part in plan.parts],
        codec=plan.codec, wan=wan, link=link, worker=worker, member=member, machine=machine,
        clock=clock, recorder=recorder, snapshots=snapshots, checkpoints=checkpoints,
        first=held + 1,
    )  # fmt: skip
    if kept:
        server.load(kept)
        snapshots.due(setup.resume.time)
    return member, server.run()


def _global_node(
    name: str, setup: Setup, transport: Transport, machine: Machine, clock: Clock,
    recorder: Recorder,
) -> tuple[Membership, Any]:  # fmt: skip
    """A global server on a site of its own; it loads no model, and so no JAX."""
    config = setup.config
    codec = build_codec(config.compression)
    engine = TreeExchange(
        name, WAN_GROUP, sizes=(), transport=transport, codec=codec, machine=machine,
        recorder=recorder, contributes=False, held=setup.resume.round,
    )  # fmt: skip
    member = Membership(
        name, transport=transport, engines={WAN_GROUP: engine}, timeouts=config.timeouts,
        recorder=recorder,
    )  # fmt: skip
    return member, GlobalServer(member=member, clock=clock).run()


def _checkpoints(
    name: str, setup: Setup, transport: Transport, machine: Machine, recorder: Recorder
) -> tuple[Checkpoints, dict[str, Any]]:
    """A node's checkpoints, and the state to go on from (empty at the start of a run)."""
    checkpoints = Checkpoints(
        setup.checkpoints, name, setup.config.checkpoint_every,
        counters=lambda: counters(recorder, transport, machine),
    )  # fmt: skip
    if setup.resume == START:
        return checkpoints, {}
    _, kept = checkpoints.read(setup.resume.round)
    restore(kept["counters"], recorder, transport, machine)
    return checkpoints, kept


def _engine(
    name: str, group: int, plan: _Plan, transport: Transport, machine: Machine,
    recorder: Recorder, **options: Any,
) -> TreeExchange:  # fmt: skip
    sizes = [stop - start for start, stop in plan.ranges]
    return TreeExchange(
        name, group, sizes=sizes, transport=transport, machine=machine, recorder=recorder,
        priorities=plan.priorities, layers=plan.layers, **options,
    )  # fmt: skip


def build_outer(config: RunConfig, algorithm: SyncAlgorithm, spec: VectorSpec) -> OuterOptimizer:
    """The outer optimizer.

    ``outer_optimizer=auto`` stands for what the algorithm's definition has: the run's own
    optimizer where gradients are merged, plain averaging (a step of length one) where deltas are.
    A synthetic model is always averaged.
    """
    outer = config.outer_optimizer
    synthetic = config.model.name == SYNTHETIC
    if outer.name == "auto" and (synthetic or algorithm.outer_default == "average"):
        return PlainSgd(1.0, spec)
    if outer.name == "auto":
        outer = config.optimizer
    return build_outer_optimizer(outer, _rate(config, outer), spec, synthetic=synthetic)


def _rate(config: RunConfig, optimizer: OptimizerConfig) -> float:
    return config.lr if optimizer.lr is None else optimizer.lr
