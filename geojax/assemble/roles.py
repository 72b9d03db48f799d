"""The roles of one node, put together from the configuration."""

from __future__ import annotations

from asyncio import create_task
from functools import partial
from typing import Any

import numpy as np

from geojax.assemble.agreement import Agreement, answer_codec, build_outer
from geojax.assemble.setup import Setup
from geojax.awareness.link_meter import LinkMeter
from geojax.awareness.probing import Awareness, Prober
from geojax.awareness.views import MeasuredView, OracleView, WanView
from geojax.center.pace import build_pace
from geojax.center.trainer import build_trainer
from geojax.compression.registry import build_codec
from geojax.config import RunConfig
from geojax.hips.cluster import SCHEDULER, WAN_GROUP
from geojax.hips.control.member import Membership
from geojax.hips.exchange.base import Exchange
from geojax.hips.exchange.lan import DirectLink, LanDownlink, LanUplink
from geojax.hips.exchange.push_pull import PushPullExchange
from geojax.hips.exchange.shard import shard_maker
from geojax.hips.exchange.shard_server import ShardServer
from geojax.hips.exchange.tree import TreeExchange
from geojax.hips.roles.center_offers import CenterOffers, OuterStep, Pulled, Update
from geojax.hips.roles.global_server import GlobalServer
from geojax.hips.roles.local_server import LocalServer
from geojax.hips.roles.scheduler import Scheduler
from geojax.hips.roles.worker import Worker, WorkerNode
from geojax.hips.routing.multipath import MultipathSender
from geojax.hips.storage.checkpoint import START, Checkpoints
from geojax.hips.storage.snapshots import Snapshots
from geojax.machine.machine import Machine
from geojax.machine.waits import first_failure
from geojax.models.registry import SYNTHETIC
from geojax.overlay.policy.planning import propose
from geojax.overlay.registry import build_overlay
from geojax.overlay.routes.auxiliary import path_tables
from geojax.sync.algorithm import SyncAlgorithm
from geojax.sync.registry import build_sync
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder
from geojax.telemetry.report import counters, restore
from geojax.wire.transport import Transport


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
    place = setup.cluster.node(name)
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
    cluster = setup.cluster
    wan_view, awareness = _wan_view(setup, recorder)
    config, independent = setup.config.overlay, _holds_parameters(setup.config)
    overlay = build_overlay(config, cluster.servers, cluster.global_servers)
    return Scheduler(
        setup.config, cluster, transport=transport, machine=machine, recorder=recorder,
        propose=partial(propose, config, cluster.servers, cluster.global_servers),
        replans=overlay.follows_rates and config.replan and not independent,
        wan_view=wan_view, awareness=awareness, clock=clock, resume=setup.resume,
        plan_tables=None if config.auxiliary == "none" else partial(
            path_tables, kind=config.auxiliary, elements=config.chunk_elements,
            seed=setup.config.seed,
        ),
        lan_rounds=build_sync(setup.config.sync).lan_rounds, independent=independent,
        enough=lambda: setup.enough,
    )  # fmt: skip


def _wan_view(setup: Setup, recorder: Recorder) -> tuple[WanView, Awareness | None]:
    """What the scheduler goes by: the true rates, or what the members measure."""
    config, cluster = setup.config.overlay, setup.cluster
    if config.awareness == "oracle":
        return OracleView(lambda: setup.view), None
    members = [*cluster.servers, *cluster.global_servers]
    center_of = {name: cluster.node(name).center for name in members}
    wan_view = MeasuredView(setup.view, center_of)
    node_at = {center: name for name, center in reversed(center_of.items())}
    return wan_view, Awareness(
        wan_view, Prober(config, wan_view, node_at, setup.view.rate), recorder
    )


def _meter(name: str, setup: Setup, transport: Transport) -> LinkMeter | None:
    """Times what comes from the other members of the WAN group, if anybody wants to know."""
    if setup.config.overlay.awareness == "oracle":
        return None
    cluster = setup.cluster
    others = [n for n in (*cluster.servers, *cluster.global_servers) if n != name]
    return LinkMeter(transport, others)


def _worker(
    name: str, setup: Setup, plan: Agreement, machine: Machine, clock: Clock, recorder: Recorder
) -> Worker:
    config = setup.config
    index = setup.cluster.trainers.index(name)
    features = labels = np.zeros(0, np.float32)
    if config.model.name != SYNTHETIC:
        mine = setup.part(name)
        features, labels = setup.dataset().train_x[mine], setup.dataset().train_y[mine]
    trainer = build_trainer(
        config,
        features=features,
        labels=labels,
        worker_index=index,
        worker_count=len(setup.cluster.trainers),
    )
    inner = plan.algorithm.offer.inner
    trainer.warm_up(gradient=not inner, step=inner)
    return Worker(
        trainer, plan.algorithm, plan.buckets, plan.stages,
        weight=_weight(name, setup, plan.algorithm), skip=config.nonfinite == "skip",
        machine=machine, clock=clock, recorder=recorder,
        pace=build_pace(config, setup.cluster.trainers, name),
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
    plan = Agreement.of(config)
    worker = _worker(name, setup, plan, machine, clock, recorder)
    group = setup.cluster.lan_group(setup.cluster.node(name).center)
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
        engine, plan.lan_codec, plan.buckets, timeouts=config.timeouts, clock=clock,
        recorder=recorder, lan_rounds=per,
    )  # fmt: skip
    node = WorkerNode(
        worker, vector, link=link, member=member, machine=machine, clock=clock,
        checkpoints=checkpoints, timeouts=config.timeouts, first=first,
    )  # fmt: skip
    return member, node.run()


def _server_node(
    name: str, setup: Setup, transport: Transport, machine: Machine, clock: Clock,
    recorder: Recorder,
) -> tuple[Membership, Any]:  # fmt: skip
    config = setup.config
    plan = Agreement.of(config)
    per, held = plan.algorithm.lan_rounds, setup.resume.round
    multipath = _multipath(name, setup, plan, transport, recorder)
    snapshots = _snapshots(name, setup, plan, machine, clock, recorder)
    wan = _wan_engine(
        name, setup, plan, transport, machine, recorder, snapshots, multipath=multipath
    )
    engines: dict[int, Exchange] = {WAN_GROUP: wan}
    worker = None
    if setup.cluster.workers(name):
        group = setup.cluster.lan_group(name)
        first = (held + 1) * per
        engines[group] = lan = _engine(
            name, group, plan, transport, machine, recorder, codec=plan.lan_codec,
            held=first - 1, contributes=False,
        )  # fmt: skip
        streams = plan.lan_codec is plan.codec and per == 1 and plan.algorithm.weights != "centers"
        link = LanDownlink(
            lan, plan.lan_codec, plan.buckets, machine=machine, timeouts=config.timeouts,
            wan=wan if streams else None, first=first,
        )  # fmt: skip
    else:
        link = DirectLink()
        worker = (_worker(name, setup, plan, machine, clock, recorder), link)
    member = Membership(
        name, transport=transport, engines=engines, timeouts=config.timeouts, recorder=recorder,
        lan_rounds=per, multipath=multipath, meter=_meter(name, setup, transport),
    )  # fmt: skip
    checkpoints, kept = _checkpoints(name, setup, transport, machine, recorder)
    server = LocalServer(
        config, plan.algorithm, kept["vector"] if kept else setup.initial(), plan.buckets,
        offers=CenterOffers(plan.algorithm, plan.buckets, plan.codec, machine),
        update=_update(config, plan), wan=wan, link=link, worker=worker,
        member=member, machine=machine,
        clock=clock, recorder=recorder, snapshots=snapshots, checkpoints=checkpoints,
        first=held + 1,
    )  # fmt: skip
    if kept:
        server.load(kept)
    return member, server.run()


def _global_node(
    name: str, setup: Setup, transport: Transport, machine: Machine, clock: Clock,
    recorder: Recorder,
) -> tuple[Membership, Any]:  # fmt: skip
    """A global server on a site of its own; one that only sums loads no model, and so no JAX."""
    config = setup.config
    snapshots = None
    if _holds_parameters(config):
        plan = Agreement.of(config)
        snapshots = _snapshots(name, setup, plan, machine, clock, recorder)
        engine: Exchange = _wan_engine(
            name, setup, plan, transport, machine, recorder, snapshots, contributes=False
        )
    else:
        engine = TreeExchange(
            name, WAN_GROUP, sizes=(), transport=transport, machine=machine, recorder=recorder,
            codec=build_codec(config.compression),  # to sum with it, nothing else
            contributes=False, held=setup.resume.round,
        )  # fmt: skip
    member = Membership(
        name, transport=transport, engines={WAN_GROUP: engine}, timeouts=config.timeouts,
        recorder=recorder, meter=_meter(name, setup, transport),
    )  # fmt: skip
    return member, GlobalServer(member=member, clock=clock, snapshots=snapshots).run()


def _holds_parameters(config: RunConfig) -> bool:
    """Whether global servers hold the parameters, because centers exchange one by one."""
    return build_sync(config.sync).admission.exchange == "server"


def _multipath(
    name: str, setup: Setup, plan: Agreement, transport: Transport, recorder: Recorder
) -> MultipathSender | None:
    """Between a center's exchange over the WAN and its transport, where it has several ways."""
    options = setup.config.overlay
    if options.auxiliary == "none":
        return None
    return MultipathSender(
        name, transport, setup.cluster.servers, primary_busy=options.primary_busy,
        auxiliary_queue=options.auxiliary_queue, priorities=plan.priorities, recorder=recorder,
    )  # fmt: skip


def _wan_engine(
    name: str, setup: Setup, plan: Agreement, transport: Transport, machine: Machine,
    recorder: Recorder, snapshots: Snapshots, *, multipath: MultipathSender | None = None,
    **options: Any,
) -> Exchange:  # fmt: skip
    """A node's part in the exchange over the WAN, of the kind that the algorithm needs."""
    config, algorithm = setup.config, plan.algorithm
    if not _holds_parameters(config):
        return _engine(
            name, WAN_GROUP, plan, multipath or transport, machine, recorder, codec=plan.codec,
            held=setup.resume.round, **options,
        )  # fmt: skip
    start = setup.initial()
    make_shard = shard_maker(
        algorithm, plan.ranges, plan.spec.parameters,
        lambda spec: build_outer(config, algorithm, spec),
    )  # fmt: skip
    server = ShardServer(
        codec=plan.codec, answers=answer_codec(plan.codec), make_shard=make_shard,
        machine=machine, recorder=recorder, bound=algorithm.admission.bound,
    )  # fmt: skip
    server.watcher = snapshots
    return PushPullExchange(
        name, WAN_GROUP, values=[start[first:stop] for first, stop in plan.ranges],
        transport=transport, codec=plan.codec, server=server, recorder=recorder,
        held=setup.resume.round, layers=plan.layers, priorities=plan.priorities, **options,
    )  # fmt: skip


def _update(config: RunConfig, plan: Agreement) -> Update:
    """What a center makes of the results of a round."""
    if _holds_parameters(config):
        return Pulled(answer_codec(plan.codec))
    outers = [build_outer(config, plan.algorithm, bucket.spec) for bucket in plan.buckets]
    return OuterStep(plan.algorithm, plan.codec, outers)


def _snapshots(
    name: str, setup: Setup, plan: Agreement, machine: Machine, clock: Clock, recorder: Recorder
) -> Snapshots:
    """Keeps models for evaluation: whole ones, or the shards that global servers hold."""
    config = setup.config
    return Snapshots(
        config.eval_every_s, setup.evaluator(), pieces=setup.pieces_of(name), recorder=recorder,
        chunks=len(plan.ranges) if _holds_parameters(config) else 0, machine=machine,
        clock=clock, folder=setup.models, timeouts=config.timeouts, since=setup.resume.time,
    )  # fmt: skip


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
    name: str, group: int, plan: Agreement, transport: Transport | MultipathSender,
    machine: Machine, recorder: Recorder, **options: Any,
) -> TreeExchange:  # fmt: skip
    sizes = [stop - start for start, stop in plan.ranges]
    return TreeExchange(
        name, group, sizes=sizes, transport=transport, machine=machine, recorder=recorder,
        priorities=plan.priorities, layers=plan.layers, **options,
    )  # fmt: skip
