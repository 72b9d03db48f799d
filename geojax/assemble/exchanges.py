"""A node's part in the exchanges of its groups, put together from the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import permutations
from typing import Any

import numpy as np

from geojax.assemble.agreement import Agreement, answer_codec, build_lan_outer, build_outer
from geojax.assemble.allowances import of_centers, of_lan
from geojax.assemble.setup import Setup
from geojax.center.outer import OuterOptimizer
from geojax.center.spec import VectorSpec
from geojax.compression.codec import Codec
from geojax.config import RunConfig
from geojax.hips.cluster import WAN_GROUP
from geojax.hips.context import NodeContext
from geojax.hips.exchange.base import Exchange
from geojax.hips.exchange.contribution import Allowances, ChunkSums
from geojax.hips.exchange.cuts import Cuts
from geojax.hips.exchange.push_pull import PushPullExchange
from geojax.hips.exchange.shard import shard_maker
from geojax.hips.exchange.shard_server import ShardServer
from geojax.hips.exchange.tree import TreeExchange
from geojax.hips.routing.multipath import MultipathSender
from geojax.hips.storage.snapshots import Snapshots
from geojax.overlay.policy.planning import relays
from geojax.sync.algorithm import SyncAlgorithm
from geojax.sync.lan_tier import in_center
from geojax.sync.registry import build_sync
from geojax.telemetry.recorder import Recorder

Context = NodeContext[Setup]


def holds_parameters(config: RunConfig) -> bool:
    """Whether global servers hold the parameters, because centers exchange one by one."""
    return build_sync(config.sync).admission.exchange == "server"


def counts_steps(algorithm: SyncAlgorithm, group: int) -> bool:
    """Whether an offer's number of local steps is more than the plan says, and so is recorded.

    It is where steps, or exchanges before an offer, are decided while a round runs, and where so
    many offers of whichever workers make one of their center.
    """
    decided = algorithm.local_steps.in_round is not None or algorithm.inner is not None
    return decided or (algorithm.lan is not None and group == WAN_GROUP)


def chunk_sums(context: Context, algorithm: SyncAlgorithm, group: int, codec: Codec) -> ChunkSums:
    """Sums a group's payloads at a node."""
    counts = _step_counts(context.recorder, algorithm, group)
    return ChunkSums(codec, context.machine, counts)


def _step_counts(
    recorder: Recorder, algorithm: SyncAlgorithm, group: int
) -> Callable[[int, Mapping[str, int]], None] | None:
    """Records how many local steps came from whom, at the root of a tree exchange; None: not."""
    if not counts_steps(algorithm, group):
        return None
    if group == WAN_GROUP:
        return lambda number, steps: recorder.event("merged", round=number, steps=dict(steps))
    per = algorithm.lan_rounds

    def within(number: int, steps: Mapping[str, int]) -> None:
        several = {"lan_round": number} if per > 1 else {}
        recorder.event("lan_merged", round=number // per, **several, steps=dict(steps))

    return within


def has_tables(setup: Setup) -> bool:
    """Whether chunks may take other paths than packets do: auxiliary ones, or the fastest."""
    config, servers = setup.config, setup.cluster.servers
    if config.overlay.auxiliary != "none":
        return True
    linked = all(pair in setup.view.rate for pair in permutations(servers, 2))
    trees = not holds_parameters(config)
    return trees and not linked and relays(config.overlay, setup.cluster.global_servers)


def build_multipath(context: Context, plan: Agreement) -> MultipathSender | None:
    """Sends for a center's exchange over the WAN, where the run has auxiliary routes."""
    options = context.setup.config.overlay
    if not has_tables(context.setup):
        return None
    setup = context.setup
    relayed = relays(options, setup.cluster.global_servers)
    linked = setup.view.neighbours(context.name) if relayed else None
    return MultipathSender(
        context.name, context.transport, context.setup.cluster.servers,
        primary_busy=options.primary_busy, auxiliary_queue=options.auxiliary_queue,
        asks_again=options.auxiliary_rule == "again", linked=linked,
        priorities=plan.priorities, recorder=context.recorder,
    )  # fmt: skip


def wan_exchange(
    context: Context, plan: Agreement, snapshots: Snapshots, *,
    multipath: MultipathSender | None = None, cuts: Cuts | None = None, kept: dict[str, Any],
) -> Exchange:  # fmt: skip
    """A node's part in the exchange over the WAN, of the kind that the algorithm needs."""
    setup, config, algorithm = context.setup, context.setup.config, plan.algorithm
    if not holds_parameters(config):
        return tree_exchange(
            context, WAN_GROUP, plan, codec=plan.codec, held=setup.resume.round,
            sender=multipath,
        )  # fmt: skip
    start = kept["vector"] if "vector" in kept else setup.initial()
    server = _shard_server(
        context, plan, algorithm, plan.codec, lambda spec: build_outer(config, algorithm, spec),
        counts=counts_steps(algorithm, WAN_GROUP),
    )  # fmt: skip
    server.watcher = snapshots
    engine = _push_pull(context, WAN_GROUP, plan, start, server, codec=plan.codec, cuts=cuts)
    engine.go_on(setup.resume.of(context.name), kept or None)
    return engine


def async_lan_exchange(
    context: Context, group: int, plan: Agreement, *, cuts: Cuts | None, kept: dict[str, Any]
) -> PushPullExchange:
    """A node's part in the exchange of a center whose workers go at their own paces.

    ``kept``: what its checkpoint has of it; empty at the start of a run.
    """
    setup, config, codec = context.setup, context.setup.config, plan.lan_codec
    algorithm = in_center(plan.algorithm, setup.cluster.node(context.name).center)
    server = _shard_server(
        context, plan, algorithm, codec, lambda spec: build_lan_outer(config, algorithm, spec),
        event="lan_applied",
    )  # fmt: skip
    start = kept["vector"] if "vector" in kept else setup.initial()
    engine = _push_pull(context, group, plan, start, server, codec=codec, cuts=cuts)
    engine.go_on(setup.resume.of(context.name), kept or None)
    return engine


def _shard_server(
    context: Context, plan: Agreement, algorithm: SyncAlgorithm, codec: Codec,
    outer: Callable[[VectorSpec], OuterOptimizer], **options: Any,
) -> ShardServer:  # fmt: skip
    """The shards that a node may come to serve in a group."""
    make_shard = shard_maker(
        algorithm, plan.ranges, plan.spec.parameters, outer,
        workers=len(context.setup.cluster.trainers),
    )  # fmt: skip
    return ShardServer(
        codec=codec, answers=answer_codec(codec), make_shard=make_shard, machine=context.machine,
        recorder=context.recorder, admission=algorithm.admission, **options,
    )  # fmt: skip


def _push_pull(
    context: Context, group: int, plan: Agreement, start: np.ndarray, server: ShardServer,
    **options: Any,
) -> PushPullExchange:  # fmt: skip
    return PushPullExchange(
        context.name, group, values=[start[first:stop] for first, stop in plan.ranges],
        transport=context.transport, server=server, recorder=context.recorder,
        layers=plan.layers, priorities=plan.priorities,
        allowances=_allowances(context.setup, group, plan), **options,
    )  # fmt: skip


def _allowances(setup: Setup, group: int, plan: Agreement) -> Allowances:
    if group == WAN_GROUP:
        return of_centers(setup, plan.algorithm)
    return of_lan(setup, setup.cluster.servers[group - 1], plan.algorithm)


def tree_exchange(
    context: Context, group: int, plan: Agreement, *, held: int,
    codec: Codec, sender: MultipathSender | None = None,
) -> TreeExchange:  # fmt: skip
    """A node's part in an exchange along trees, whose last done round is ``held``."""
    engine = TreeExchange(
        context.name, group, sizes=[stop - start for start, stop in plan.ranges],
        transport=sender or context.transport, recorder=context.recorder,
        priorities=plan.priorities, layers=plan.layers, turns=plan.turns,
        allowances=_allowances(context.setup, group, plan),
        sums=chunk_sums(context, plan.algorithm, group, codec),
    )  # fmt: skip
    engine.skip_to(held)
    return engine
