"""The roles of one node, put together from the configuration."""

from __future__ import annotations

from asyncio import create_task, sleep
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from geojax.assemble.agreement import (
    WORTH_LOADING,
    Agreement,
    answer_codec,
    build_outer,
    compiled_loops,
    sync_of,
)
from geojax.assemble.allowances import of_centers, worker_weight
from geojax.assemble.clients import client_trainer
from geojax.assemble.contributors import contributors_of
from geojax.assemble.exchanges import (
    Context,
    async_lan_exchange,
    build_multipath,
    chunk_sums,
    has_tables,
    holds_parameters,
    tree_exchange,
    wan_exchange,
)
from geojax.assemble.fleets import fleet_trainer, has_devices
from geojax.assemble.held_out import batches_of, build_judge, divided
from geojax.assemble.setup import Setup
from geojax.awareness.link_meter import LinkMeter
from geojax.awareness.probing import Awareness, Prober
from geojax.awareness.views import MeasuredView, OracleView, WanView
from geojax.center.pace import build_pace, relative_speeds
from geojax.center.trainer import Trainer, build_trainer
from geojax.compression.registry import build_codec
from geojax.config import RunConfig
from geojax.errors import GeojaxError
from geojax.hips.cluster import SCHEDULER, START, WAN_GROUP
from geojax.hips.control.member import Membership
from geojax.hips.control.round_numbers import RoundNumbers
from geojax.hips.exchange.async_lan import AsyncDownlink
from geojax.hips.exchange.base import Exchange
from geojax.hips.exchange.buckets import Turns
from geojax.hips.exchange.cuts import Cut, Cuts
from geojax.hips.exchange.lan import DirectLink, Downlink, LanDownlink, LanUplink
from geojax.hips.exchange.tree import TreeExchange
from geojax.hips.roles.center_exchanges import CenterExchanges, Decided
from geojax.hips.roles.center_offers import CenterOffers, OuterStep, Pulled, Update
from geojax.hips.roles.center_state import CenterState
from geojax.hips.roles.chosen import Chosen
from geojax.hips.roles.global_server import GlobalServer
from geojax.hips.roles.lan_rounds import SERVICE as LAN_ROUNDS
from geojax.hips.roles.lan_rounds import LanRounds
from geojax.hips.roles.local_server import LocalServer
from geojax.hips.roles.local_steps import LocalSteps
from geojax.hips.roles.scheduler import Scheduler
from geojax.hips.roles.worker import Worker, WorkerNode
from geojax.hips.storage.checkpoint import Checkpoints, Within, most_bytes
from geojax.hips.storage.cut_checkpoints import CutCheckpoints
from geojax.hips.storage.snapshots import Snapshots
from geojax.machine.waits import first_failure
from geojax.models.registry import SYNTHETIC
from geojax.overlay.policy.planning import plan_tables, propose
from geojax.overlay.registry import build_overlay
from geojax.sync.algorithm import LocalStepPolicy, SyncAlgorithm
from geojax.sync.registry import build_sync
from geojax.sync.service import Service
from geojax.telemetry.report import counters, keep_counters, restore
from geojax.wire.push_meter import PushMeter


async def run_node(context: Context) -> None:
    """Runs one node from joining to the end of the run."""
    if context.name == SCHEDULER:
        await _scheduler(context).run()
        return
    build = {"worker": _worker_node, "server": _server_node, "global": _global_node}
    member, role = build[context.setup.cluster.node(context.name).role](context)
    main = create_task(role, name=f"{context.name} main")
    limit = create_task(_at_the_limit(context), name=f"{context.name} limit")
    pump = member.pump()
    watch = create_task(_watch(member), name=f"{context.name} watch")
    main.add_done_callback(lambda _: (pump.cancel(), watch.cancel()))
    try:
        await first_failure((main, pump, watch))
    finally:
        limit.cancel()
        member.close()


async def _at_the_limit(context: Context) -> None:
    """What a node has counted when the run's time is over is what counts."""
    limit = context.setup.config.max_time_s
    if limit is None:
        return
    await context.clock.started.wait()
    await sleep(max(0.0, limit - context.clock()))
    keep_counters(context.recorder, context.transport, context.machine)


async def _watch(member: Membership) -> None:
    await member.failed


def _scheduler(context: Context) -> Scheduler:
    setup, cluster = context.setup, context.setup.cluster
    wan_view, awareness = _wan_view(context)
    config, algorithm = setup.config.overlay, build_sync(setup.config.sync)
    numbers = RoundNumbers(
        algorithm.lan_rounds, skips=algorithm.inner is not None,
        independent=holds_parameters(setup.config), workers_alone=algorithm.lan is not None,
    )  # fmt: skip
    overlay = build_overlay(config, cluster.servers, cluster.global_servers)
    return Scheduler(
        context,
        propose=partial(propose, config, cluster.servers, cluster.global_servers),
        replans=overlay.follows_rates and config.replan and not numbers.independent,
        wan_view=wan_view, awareness=awareness,
        plan_tables=partial(
            plan_tables, config, cluster.global_servers, seed=setup.config.seed,
        ) if has_tables(setup) else None,
        numbers=numbers, services=_services(setup, at_scheduler=True),
    )  # fmt: skip


def _services(setup: Setup, *, at_scheduler: bool) -> dict[str, Service]:
    """What members may ask the scheduler or, otherwise, the local server of their center."""
    algorithm = sync_of(setup.config, setup.cluster.trainers, setup.resume.round + 1)
    needed = algorithm.services
    return {each.name: each.build() for each in needed if each.at_scheduler == at_scheduler}


def _wan_view(context: Context) -> tuple[WanView, Awareness | None]:
    """The scheduler's view of the WAN: the true rates, or those that the members measure."""
    setup, oracle = context.setup, context.oracle
    config, cluster = setup.config.overlay, setup.cluster
    if config.awareness == "oracle":
        return OracleView(lambda: oracle.view), None
    members = [*cluster.servers, *cluster.global_servers]
    center_of = {name: cluster.node(name).center for name in members}
    wan_view = MeasuredView(setup.view, center_of)
    node_at = {center: name for name, center in reversed(center_of.items())}
    prober = Prober(config, wan_view, node_at, setup.view.rate, setup.connections_between)
    return wan_view, Awareness(wan_view, prober, context.recorder)


def _meter(context: Context) -> LinkMeter | None:
    """Times messages of the other members of the WAN group, where rates are measured."""
    if context.setup.config.overlay.awareness == "oracle":
        return None
    cluster = context.setup.cluster
    others = [n for n in (*cluster.servers, *cluster.global_servers) if n != context.name]
    return LinkMeter(context.transport, others)


def _local_steps(
    context: Context,
    plan: Agreement,
    member: Membership,
    group: int,
    policy: LocalStepPolicy,
    **options: Any,
) -> LocalSteps:
    """How many steps a node takes before it offers to a group."""
    asks, meter = None, PushMeter(group)
    if policy.in_round is not None:
        context.transport.observers.append(meter)
        (service,) = (s for s in plan.algorithm.services if s.name == policy.in_round.service)
        center = context.setup.cluster.node(context.name).center
        host = SCHEDULER if service.at_scheduler else center
        asks = member.asks(host) if host != context.name else None
    return LocalSteps(
        policy, asks=asks, push_s=meter.seconds, clock=context.clock, recorder=context.recorder,
        **options,
    )  # fmt: skip


def _following(
    context: Context, plan: Agreement, member: Membership, told: LanRounds | None
) -> Any:
    """Says which LAN round follows one: as is ``told`` in this process, or by the local server."""
    if plan.algorithm.inner is None:
        return None
    center, per = context.setup.cluster.node(context.name).center, plan.algorithm.lan_rounds

    async def following(number: int) -> int:
        if told is not None:
            return told.following(number)
        answer = await member.request(LAN_ROUNDS, {"round": number}, host=center)
        found = answer.get("following")
        if type(found) is not int or found not in (number + 1, (number // per + 1) * per):
            raise GeojaxError(f"{center} says that after LAN round {number} comes {found!r}")
        return found

    return following


def _worker(
    context: Context, plan: Agreement, member: Membership, group: int, told: LanRounds | None = None
) -> Worker:
    name, setup, config = context.name, context.setup, context.setup.config
    plan = _at_its_speed(context, plan)
    trainer = _trainer(name, setup, plan.algorithm)
    inner = plan.algorithm.offer.inner
    trainer.warm_up(gradient=not inner, step=inner)
    worker = Worker(
        trainer, plan.algorithm, plan.buckets, plan.stages,
        weight=worker_weight(name, setup, plan.algorithm), skip=config.nonfinite == "skip",
        machine=context.machine, clock=context.clock, recorder=context.recorder,
        pace=build_pace(config, setup.cluster.trainers, name),
        local_steps=_local_steps(
            context, plan, member, group, plan.algorithm.local_steps,
            lan_rounds=plan.algorithm.lan_rounds,
        ),
        following=_following(context, plan, member, told),
        contributes=_contributes(context, plan),
        chosen=_chosen(context, plan, member, group, trainer),
    )  # fmt: skip
    worker.outer.warm_up()
    member.position = lambda: worker.position
    return worker


def _trainer(name: str, setup: Setup, algorithm: SyncAlgorithm) -> Trainer:
    if algorithm.client is not None:
        return client_trainer(setup, name, algorithm.client)
    if has_devices(setup.config):
        return fleet_trainer(setup, name, algorithm)
    features = labels = np.zeros(0, np.float32)
    if setup.config.model.name != SYNTHETIC:
        held_out = 0 if algorithm.choice is None else algorithm.choice.held_out
        mine = divided(setup, name, held_out)[0] if held_out else setup.part(name)
        features, labels = setup.dataset().train_x[mine], setup.dataset().train_y[mine]
    return build_trainer(
        setup.config,
        features=features,
        labels=labels,
        worker_index=setup.cluster.trainers.index(name),
        worker_count=len(setup.cluster.trainers),
        proximal=algorithm.proximal,
    )


def _contributes(context: Context, plan: Agreement) -> Callable[[int], bool]:
    """Whether the center of this node contributes to a round."""
    if plan.algorithm.choice is not None:
        return lambda _: False  # none is known before
    contributors = contributors_of(context.setup, plan.algorithm)
    if contributors is None:
        return lambda _: True
    center = context.setup.cluster.node(context.name).center
    return lambda number: center in contributors(number)


def _chosen(
    context: Context, plan: Agreement, member: Membership, group: int, trainer: Trainer
) -> Chosen | None:
    """Asks whether the center of this worker contributes, where a service decides that."""
    choice, setup = plan.algorithm.choice, context.setup
    if choice is None:
        return None
    meter, count = PushMeter(group), choice.held_out
    context.transport.observers.append(meter)
    right = build_judge(setup, context.name, count) if count else None
    pace = build_pace(setup.config, setup.cluster.trainers, context.name)

    async def judge(vector: np.ndarray, number: int) -> tuple[int, int]:
        if right is None:
            raise GeojaxError(f"{context.name} holds out no samples, and is asked to judge by them")
        start = context.clock()
        seconds = pace(trainer.steps, start) * batches_of(setup.config, count)
        found = await context.machine.compute(partial(right, vector), seconds, ends=0)
        context.recorder.span("judge", start, context.clock(), round=number)
        return found, count

    return Chosen(
        choice, asks=member.asks(SCHEDULER), push_s=meter.seconds, judge=judge,
        clock=context.clock, recorder=context.recorder,
    )  # fmt: skip


def _at_its_speed(context: Context, plan: Agreement) -> Agreement:
    """The agreement with the local-step policy of this worker, where it goes by speeds."""
    policy, config = plan.algorithm.local_steps, context.setup.config
    if policy.for_speed is None:
        return plan
    speed = relative_speeds(config, context.setup.cluster.trainers)[context.name]
    algorithm = plan.algorithm._replace(local_steps=policy.for_speed(speed))
    return replace(plan, algorithm=algorithm)


def _worker_node(context: Context) -> tuple[Membership, Any]:
    setup, config = context.setup, context.setup.config
    plan = Agreement.of(config, setup.cluster.trainers)
    group = setup.cluster.lan_group(setup.cluster.node(context.name).center)
    per = plan.algorithm.lan_rounds
    first = (setup.resume.of(context.name) + 1) * per
    checkpoints, kept = _checkpoints(context)
    engine: Exchange
    holds = answers = None
    if plan.algorithm.lan is None:
        engine = tree_exchange(context, group, plan, codec=plan.lan_codec, held=first - 1)
    else:
        cuts = _lan_cuts(context)
        engine = async_lan_exchange(context, group, plan, cuts=cuts, kept=kept)
        answers = answer_codec(plan.lan_codec)
        holds = partial(engine.contains, setup.cluster.node(context.name).center)
        if cuts is not None:
            cuts.keep = checkpoints.ask
    member = Membership(context, engines={group: engine}, lan_rounds=per, holds=holds)
    member.on_keep = partial(checkpoints.ask, beside={})
    worker = _worker(context, plan, member, group)
    if plan.algorithm.lan is not None:
        member.counted = worker.counted
    vector = kept["vector"] if kept else setup.initial()
    if kept:
        worker.load_state(kept["trainer"])
    member.states.most = most_bytes({"vector": vector})
    link = LanUplink(
        engine, plan.lan_codec, plan.buckets, timeouts=config.timeouts, clock=context.clock,
        recorder=context.recorder, lan_rounds=per, answers=answers,
        event="round" if answers is None else "lan_round",
    )  # fmt: skip
    node = WorkerNode(
        context, worker, vector, link=link, member=member, checkpoints=checkpoints, first=first
    )
    return member, node.run()


def _server_node(context: Context) -> tuple[Membership, Any]:
    name, setup, config = context.name, context.setup, context.setup.config
    machine = context.machine
    plan = Agreement.of(config, setup.cluster.trainers)
    per, held = plan.algorithm.lan_rounds, setup.resume.of(name)
    multipath = build_multipath(context, plan)
    snapshots = _snapshots(context, plan)
    checkpoints, kept = _checkpoints(context, snapshots)
    cuts = _cuts(context)
    wan = wan_exchange(context, plan, snapshots, multipath=multipath, cuts=cuts, kept=kept)
    engines: dict[int, Exchange] = {WAN_GROUP: wan}
    worker, direct = None, DirectLink()
    link: Downlink = direct
    lan_part: Within | None = None
    if plan.algorithm.lan is not None:
        group = setup.cluster.lan_group(name)
        engines[group] = pushed = async_lan_exchange(
            context, group, plan, cuts=_lan_cuts(context), kept=kept.get("lan", {})
        )
        link = down = AsyncDownlink(
            pushed, plan.lan_codec, plan.buckets[0], setup.initial(),
            offers=plan.algorithm.lan.offers, machine=machine, timeouts=config.timeouts,
        )  # fmt: skip
        if kept:
            down.load(kept["lan"])
        lan_part = _lan_part(context, down)
    elif setup.cluster.workers(name):
        group = setup.cluster.lan_group(name)
        first = (held + 1) * per
        engines[group] = lan = tree_exchange(
            context, group, plan, codec=plan.lan_codec, held=first - 1
        )
        streams = plan.lan_codec is plan.codec and per == 1 and plan.algorithm.weights != "centers"
        streams = streams and plan.algorithm.inner is None
        link = LanDownlink(
            lan, plan.lan_codec, plan.buckets, machine=machine, timeouts=config.timeouts,
            wan=wan if streams else None, first=first,
        )  # fmt: skip
    services = _services(setup, at_scheduler=False)
    told = None if plan.algorithm.inner is None else LanRounds()
    if told is not None:
        services[LAN_ROUNDS] = told
    member = Membership(
        context, engines=engines, lan_rounds=per, multipath=multipath, meter=_meter(context),
        services=services,
    )  # fmt: skip
    if not setup.cluster.workers(name):
        worker = (_worker(context, plan, member, WAN_GROUP, told), direct)
    _keep_cuts(context, cuts, checkpoints, snapshots, member, lan_part)
    offers = CenterOffers(plan.algorithm, plan.buckets, plan.codec, machine)
    update = _update(config, plan)
    state = CenterState(
        context, kept["vector"] if kept else setup.initial(), offers=offers, update=update,
        worker=worker and worker[0], wan=wan, checkpoints=checkpoints, held=held,
    )  # fmt: skip
    if kept:
        state.load(kept)
    member.on_state_wanted, member.states.most = state.promise, state.most_bytes
    decided, policy = None, plan.algorithm.inner
    if told is not None and policy is not None:
        options = {"policy": policy, "event": "inner_rounds"}
        decided = Decided(_local_steps(context, plan, member, WAN_GROUP, **options), told)
    within = CenterExchanges(
        context.clock, plan.buckets, link=link, offers=offers, most=per, decided=decided
    )
    server = LocalServer(
        context, Turns(plan.buckets, plan.algorithm.fragmentation.fragments > 1), state=state,
        offers=offers, update=update, wan=wan, link=link, worker=worker, member=member,
        snapshots=snapshots, within=within,
    )  # fmt: skip
    return member, server.run()


def _global_node(context: Context) -> tuple[Membership, Any]:
    """A global server on a site of its own; one that only sums loads no model, and so no JAX."""
    config = context.setup.config
    snapshots = checkpoints = cuts = None
    if holds_parameters(config):
        plan = Agreement.of(config, context.setup.cluster.trainers)
        snapshots = _snapshots(context, plan)
        checkpoints, kept = _checkpoints(context, snapshots)
        cuts = _cuts(context)
        engine: Exchange = wan_exchange(context, plan, snapshots, cuts=cuts, kept=kept)
    else:
        algorithm = sync_of(config, context.setup.cluster.trainers)
        codec = build_codec(  # to sum with it, nothing else, chunks of a model of unknown size
            config.compression, compiled=compiled_loops(config, WORTH_LOADING)
        )
        engine = TreeExchange(
            context.name, WAN_GROUP, sizes=(), transport=context.transport,
            recorder=context.recorder, allowances=of_centers(context.setup, algorithm),
            sums=chunk_sums(context, algorithm, WAN_GROUP, codec),
        )  # fmt: skip
        engine.skip_to(context.setup.resume.round)
    member = Membership(context, engines={WAN_GROUP: engine}, meter=_meter(context))
    if snapshots is not None and checkpoints is not None:
        _keep_cuts(context, cuts, checkpoints, snapshots, member)
    server = GlobalServer(
        member=member, clock=context.clock, snapshots=snapshots, checkpoints=checkpoints
    )
    return member, server.run()


def _update(config: RunConfig, plan: Agreement) -> Update:
    """How a center turns the results of a round into parameters."""
    if holds_parameters(config):
        return Pulled(answer_codec(plan.codec))
    outers = [build_outer(config, plan.algorithm, bucket.spec) for bucket in plan.buckets]
    return OuterStep(plan.algorithm, plan.codec, outers)


def _snapshots(context: Context, plan: Agreement) -> Snapshots:
    """Keeps models for evaluation: whole ones, or the shards that global servers hold."""
    setup, config = context.setup, context.setup.config
    return Snapshots(
        config.eval_every_s, setup.evaluator(), pieces=setup.pieces_of(context.name),
        recorder=context.recorder, chunks=len(plan.ranges) if holds_parameters(config) else 0,
        machine=context.machine, clock=context.clock, folder=setup.models,
        timeouts=config.timeouts, since=setup.resume.time, limit=partial(_limit, context),
    )  # fmt: skip


def _limit(context: Context) -> float | None:
    """Experiment time after which nothing counts, s, as far as it is known; None: there is none."""
    reached = context.oracle.reached
    return context.setup.config.max_time_s if reached is None else reached


def _cuts(context: Context) -> Cuts | None:
    """The cuts of an asynchronous run with checkpoints."""
    config = context.setup.config
    if not (config.checkpoint_every and holds_parameters(config)):
        return None
    centers, most = context.setup.cluster.servers, _most_merges(context)
    return Cuts(config.checkpoint_every, clock=context.clock, centers=centers, most=most)


def _most_merges(context: Context) -> int:
    """Merges of a shard up to the end of the run, at most: of every push that is still made."""
    setup = context.setup
    return max(setup.resume.round, 0) + setup.config.rounds * len(setup.cluster.servers)


def _lan_cuts(context: Context) -> Cuts | None:
    """The cuts of a center whose workers go at their own paces: those of the WAN, no others."""
    setup, name = context.setup, context.name
    center = setup.cluster.node(name).center
    if not setup.config.checkpoint_every:
        return None
    members, most = (center, *setup.cluster.workers(center)), _most_merges(context)
    return Cuts(0, clock=context.clock, centers=members, most=most)


def _lan_part(context: Context, link: AsyncDownlink) -> Within:
    """Takes a local server's part in a cut of its LAN.

    What it has sent to its workers is of that instant, unlike all else that it counts: they are
    answered while no round of the WAN ends.
    """
    workers = context.setup.cluster.workers(context.name)

    def within(cut: Cut) -> dict[str, Any]:
        sent = counters(context.recorder, context.transport, context.machine)["sent"]
        mine = {name: counted for name, counted in sent.items() if name in workers}
        return {**link.part_of(cut), "sent": mine}

    return within


def _keep_cuts(
    context: Context, cuts: Cuts | None, checkpoints: Checkpoints,
    snapshots: Snapshots, member: Membership, within: Within | None = None,
) -> None:  # fmt: skip
    """A node's part of a cut goes into a checkpoint, and its workers are told.

    ``within``: takes the part of a LAN whose workers count rounds of their own, and tells them.
    """
    if cuts is None:
        return

    def keep(cut: Cut, held: int | None, state: Mapping[str, Any]) -> None:
        snapshots.note()
        checkpoints.ask(cut, held, state, within)
        if held is not None and within is None:
            member.tell_workers(cut, held)

    cuts.keep = keep
    cuts.whole = lambda: [*context.setup.cluster.workers(context.name)] == member.workers


def _checkpoints(
    context: Context, snapshots: Snapshots | None = None
) -> tuple[Checkpoints, dict[str, Any]]:
    """A node's checkpoints, and the state to go on from.

    It is empty at the start of a run, and for a node that comes back when newer checkpoints have
    replaced the one that the run went on from: others have what it needs.
    """
    setup, measured = context.setup, (context.recorder, context.transport, context.machine)
    kind: Any = Checkpoints
    if holds_parameters(setup.config):
        flush = _nothing if snapshots is None else snapshots.flush
        kind = partial(CutCheckpoints, machine=context.machine, before=flush)
    checkpoints: Checkpoints = kind(
        setup.checkpoints, context.name, setup.config.checkpoint_every,
        counters=lambda: counters(*measured),
    )  # fmt: skip
    replaced = context.restarted and setup.resume.round not in checkpoints.rounds()
    if setup.resume == START or replaced:
        return checkpoints, {}
    _, kept = checkpoints.read(setup.resume.round)
    if not context.restarted:
        kept["counters"]["sent"].update(kept.get("lan", {}).get("sent", {}))
        restore(kept["counters"], *measured)
    return checkpoints, kept


async def _nothing() -> None:
    """What a checkpoint of a node without shards waits for."""
