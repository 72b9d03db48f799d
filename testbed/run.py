"""One run, on the testbed that its configuration names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from geojax.assemble import Setup
from geojax.assemble import check as check_setup
from geojax.assemble.fleets import check_fleets, has_devices
from geojax.axes import complete
from geojax.config import RunConfig
from geojax.errors import ConfigError
from geojax.hips.cluster import START, Cluster, NodeSpec, shard_name
from geojax.hips.storage.checkpoint import forget_after, resume_point
from geojax.models.registry import SYNTHETIC
from geojax.overlay.planners.multigps import server_count
from geojax.settings import check_values
from geojax.sync.registry import build_sync
from geojax.telemetry.recorder import Span, jsonl_sink, write_trace
from geojax.telemetry.spans import SPANS, SpanStore
from geojax.telemetry.summary import Event, summarize, time_to_target, until
from geojax.wire.message import DATA_KINDS, Kind
from testbed.compiled import compile_cache
from testbed.faults import Fault, apply_faults
from testbed.figures.view_error import view_error
from testbed.local.cpu_limits import read_limits
from testbed.progress import RunProgress
from testbed.sessions import TRACE, Sessions, earlier_events, earlier_spans
from testbed.simulated.cores import cores_of
from testbed.wan.build import Wan, build_wan
from testbed.wan.connections import connections_of
from testbed.wan.dynamics.kept_traces import keep_traces, with_kept_traces
from testbed.wan.hops import hops


def prepare(config: RunConfig, run_dir: Path) -> tuple[Setup, Wan, tuple[Fault, ...]]:
    """Validates everything and lays out the nodes; touches no file.

    Raises:
      ConfigError: names the key, the value and the fix.
    """
    complete(config)
    check_values("testbed", config.testbed)
    servers = server_count(config.overlay)
    wan = build_wan(config.wan, config.lan, config.seed, servers)
    config, faults = apply_faults(config, wan.edges, [node.name for node in wan.nodes()])
    wan = build_wan(config.wan, config.lan, config.seed, servers)
    read_limits(config.testbed.cpu_limit, config.testbed.name, wan.center_names)
    cluster = Cluster(tuple(NodeSpec(node.name, node.center, node.role) for node in wan.nodes()))
    inline = config.testbed.name == "simulated"
    kept = run_dir / "checkpoints"
    if inline:
        cores = cores_of(config, len(cluster.trainers))
        config = replace(config, testbed=replace(config.testbed, cores=cores))
    check_setup(config, cluster, wan.view())
    keepers = (*cluster.servers, *cluster.trainers)
    served = build_sync(config.sync).admission.exchange == "server"
    if served:
        keepers += cluster.global_servers
    resume = resume_point(kept, [*dict.fromkeys(keepers)]) if config.resume else START
    alone = shard_name(cluster.servers[0], 0, within=True) in resume.versions
    kinds = (served, build_sync(config.sync).lan is not None)
    if resume != START and (bool(resume.held), alone) != kinds:
        whose = "every worker's own" if alone else "every center's own"
        kind = f"rounds of {whose}" if resume.held else "common rounds"
        fix = f"{kept} has {kind}, unlike sync={config.sync.name}; start anew in another folder"
        raise ConfigError("resume", True, fix)
    connections = connections_of(config.wan, wan, config.testbed.congestion_control)
    view, models = wan.view(), run_dir / "models"
    setup = Setup(config, cluster, view, models, kept, inline, resume, connections)
    if config.testbed.name != "local":
        _check_silence(config, wan, cluster)
    return setup, wan, faults


def _check_silence(config: RunConfig, wan: Wan, cluster: Cluster) -> None:
    """A member must be able to join and be heard before its silence counts as death.

    Joining takes a connection and an answer, two round trips to the scheduler; the next heartbeat
    comes after ``timeouts.heartbeat``.
    """
    crossed, timeouts = hops(wan, cluster), config.timeouts
    delay = {link.edge: link.delay for link in wan.links}  # those of the scheduler's site too
    for node in cluster.all:
        there, back = crossed[node.name, "scheduler"], crossed["scheduler", node.name]
        round_trip = sum(delay[link] for link in (*there, *back))
        least = timeouts.heartbeat + 2 * round_trip
        if timeouts.dead < least:
            raise ConfigError(
                "timeouts.dead",
                timeouts.dead,
                f"must be at least {least:g} s: timeouts.heartbeat, and twice the round trip of "
                f"{round_trip:g} s between {node.name} and the scheduler; else a member that "
                "lives is declared dead",
            )


def check(config: RunConfig) -> None:
    """Raises ``ConfigError`` if the run could not start."""
    prepare(config, Path())


def run(config: RunConfig, run_dir: Path, name: str = "", *, bar: bool = True) -> dict[str, Any]:
    """Runs a configuration and leaves events, trace and logs in ``run_dir``.

    Args:
      config: what to run.
      run_dir: the directory.
      name: of the run, where it is one of several, for what it tells of how far it is.
      bar: show a bar that moves, on a terminal.

    Returns:
      The measured part of ``summary.json``.

    Raises:
      GeojaxError: the run could not start, or failed.
    """
    os.environ.setdefault("NPROC", "1")  # one XLA thread: replicas must agree bit for bit
    config = replace(
        config, wan=replace(config.wan, dynamics=with_kept_traces(config.wan.dynamics, run_dir))
    )
    setup, wan, faults = prepare(config, run_dir)
    sessions = Sessions(run_dir, setup.resume)
    keep_traces(config.wan.dynamics, run_dir)
    if config.model.name != SYNTHETIC:
        setup.parts()  # missing data, or too little of it, is found before any node starts
    if has_devices(config):
        check_fleets(setup)
    faults = tuple(fault for fault in faults if fault.at >= setup.resume.time)
    for part in setup.models.glob("*.part"):  # a broken run's, to be kept up to this one's start
        point = part.name.rsplit(".", 2)[0]
        if setup.resume == START or point == "final" or float(point) >= setup.resume.time:
            part.unlink()
    forget_after(setup.checkpoints, setup.resume)
    setup.models.mkdir(parents=True, exist_ok=True)
    title = f"{name}: " if name else ""
    title += f"{config.experiment}: {config.sync.name} on {config.wan.name}, {config.testbed.name}"
    events, earlier = earlier_events(run_dir, setup.resume), earlier_spans(run_dir, setup.resume)
    with (
        RunProgress(title, config.rounds, config.max_time_s, bar=bar) as progress,
        (run_dir / "events.jsonl").open("w", buffering=1) as stream,
        (run_dir / SPANS).open("w") as lines,
    ):
        write, kept = jsonl_sink(stream), SpanStore(run_dir / SPANS, lines)
        for event in events:
            write(event)
        for name, done in earlier.items():
            for span in done:
                kept.take(name, span)
        kept.flush()
        (run_dir / TRACE).unlink(missing_ok=True)

        def sink(event: dict[str, Any]) -> None:
            events.append(event)
            write(event)
            kept.flush()
            progress.take(event)

        so_far = tuple(events)
        reports, spans, extra = _execute(
            setup, wan, faults, run_dir, sink, kept, progress.say, so_far
        )
        if spans is None:
            spans = kept.stored([place.name for place in setup.cluster.all])
        else:
            spans = {name: [*earlier.get(name, ()), *found] for name, found in spans.items()}
        events.sort(key=lambda event: event["t"])
        stream.seek(0)
        for event in events:
            write(event)
    partial = (run_dir / TRACE).with_suffix(".partial")
    with partial.open("w") as trace:
        write_trace(trace, spans)
    partial.rename(run_dir / TRACE)
    summary = _summary(setup, wan, events, reports, spans, extra)
    for written in (run_dir / SPANS, *run_dir.glob(f"nodes/*/{SPANS}")):
        written.unlink(missing_ok=True)  # the trace has them all
    return {**summary, "wall_s": sessions.wall_s, **extra}


def _summary(
    setup: Setup,
    wan: Wan,
    events: Sequence[Event],
    reports: Mapping[str, Mapping[str, Any]],
    spans: Mapping[str, Iterable[Span]],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """What follows from the events, reports and spans of a run."""
    from testbed.figures.efficiency import efficiency  # its SciPy is slow to load; checks need none

    config = setup.config
    limit = _limit(config, events)
    counted = until(events, limit)
    return {
        **summarize(
            events,
            reports,
            trainers=setup.cluster.trainers,
            hops=hops(wan, setup.cluster),
            target=config.target_accuracy,
            data_kinds=DATA_KINDS,
            spans=spans,
            warmup_rounds=config.warmup_rounds,
            limit=limit,
            target_over=config.target_over,
            test_samples=None if config.model.name == SYNTHETIC else setup.test_samples(),
            probe_kind=Kind.PROBE if config.overlay.awareness == "measured" else None,
            offer_kind=Kind.OFFER,
            train_samples=None if config.model.name == SYNTHETIC else setup.train_samples(),
        ),
        **efficiency(config, wan.view(), counted, setup.cluster, extra.get("goodput_factor")),
        **view_error(wan.view(), counted, extra.get("goodput_factor")),
        **_rate_changes(config, counted),
        **({} if config.wan.connections == 1 else {"connections": setup.connections.told()}),
    }


def _limit(config: RunConfig, events: Sequence[Event]) -> float | None:
    """Experiment time after which nothing counts, s; None: all of the run does."""
    if config.stop_at_target:
        evaluations = [event for event in events if event["event"] == "evaluation"]
        reached, _ = time_to_target(evaluations, config.target_accuracy, config.target_over)
        if reached is not None:
            return reached
    return config.max_time_s


def _rate_changes(config: RunConfig, events: Sequence[Event]) -> dict[str, int]:
    """How often rates of links changed, where ``wan.dynamics`` says that they do."""
    if not config.wan.dynamics:
        return {}
    return {"rate_changes": sum(event["event"] == "rates" for event in events)}


def _execute(
    setup: Setup,
    wan: Wan,
    faults: tuple[Fault, ...],
    run_dir: Path,
    sink: Callable[[dict[str, Any]], None],
    kept: SpanStore,
    say: Callable[[str], None],
    earlier: Sequence[Event],
) -> tuple[dict[str, dict[str, Any]], dict[str, list[Span]] | None, dict[str, Any]]:
    """Runs on the configured testbed: reports, spans, and figures of that testbed alone.

    The spans are None where ``kept`` has taken them.
    """
    testbed = setup.config.testbed
    if testbed.name == "simulated":
        from testbed.simulated.run import simulate

        # Each core needs the same programs, and so do the next run and the other jobs of a sweep.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = compile_cache()
        reports, _ = simulate(setup, wan, faults, sink, kept.take, earlier)
        peak = max(node.get("peak_memory_bytes", 0) for node in reports.values())
        extra = {"goodput_factor": testbed.goodput_factor, "peak_memory_bytes": peak}
        return reports, None, extra
    if testbed.name == "local":
        from testbed.local.run import run_processes

        return run_processes(setup, wan, faults, run_dir, sink, say)
    from testbed.emulated.run import run_emulated

    return run_emulated(setup, wan, faults, run_dir, sink, say)
