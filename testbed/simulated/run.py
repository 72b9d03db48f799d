"""Runs every node of a run in one process, on virtual time."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geojax.assemble import Setup, run_node
from geojax.errors import ConfigError, GeojaxError, MembershipError
from geojax.hips.cluster import SCHEDULER
from geojax.hips.context import NodeContext, Oracle
from geojax.machine.collector import SELDOM
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder, Span
from geojax.telemetry.report import counted, counters, last_words, report, restore
from geojax.telemetry.summary import Event, TargetWatch
from geojax.wire.send_spans import SendSpans
from testbed.faults import PROCESS_KINDS, Fault, restarted
from testbed.simulated.cores import open_cores
from testbed.simulated.loop import run_virtual, virtual_loop
from testbed.simulated.machine import VirtualMachine
from testbed.simulated.routes import NodeRoutes, resources
from testbed.simulated.transport import SimulatedNetwork, SimulatedTransport
from testbed.wan.build import Wan
from testbed.wan.dynamics.base import change_event

AT_TARGET = "at_target.json"  # what nodes had counted, beside the checkpoints

Outcome = tuple[dict[str, dict[str, Any]], dict[str, list[Span]]]


def simulate(
    setup: Setup,
    wan: Wan,
    faults: tuple[Fault, ...],
    sink: Callable[[dict[str, Any]], None],
    kept: Callable[[str, Span], None] | None = None,
    earlier: Sequence[Event] = (),
) -> Outcome:
    """Runs the whole run; returns the nodes' reports, and their spans if nothing takes them.

    The reports of a run that ends at its target (``stop_at_target``) are of the instant of the
    evaluation by which it reached it.

    Args:
      setup: configuration, nodes and view.
      wan: the WAN that is simulated.
      faults: what breaks, and when.
      sink: takes every event as it happens.
      kept: takes every span as it ends, with its node's name.
      earlier: events of the run that this one continues.

    Raises:
      GeojaxError: the run failed.
    """
    cores = open_cores(setup.config)
    before = gc.get_threshold()  # it keeps many objects and makes few cycles
    gc.set_threshold(*SELDOM)
    try:
        return run_virtual(_simulate(cores, setup, wan, faults, sink, kept, earlier))
    finally:
        for core in cores:
            core.shutdown(cancel_futures=True)
        gc.set_threshold(*before)


async def _simulate(
    cores: Sequence[Executor],
    setup: Setup,
    wan: Wan,
    faults: tuple[Fault, ...],
    sink: Callable[[dict[str, Any]], None],
    kept: Callable[[str, Span], None] | None,
    earlier: Sequence[Event],
) -> Outcome:
    config = setup.config
    oracle = Oracle(setup.view)
    target = _Target(setup, oracle, sink, earlier) if config.stop_at_target else None
    sink = sink if target is None else target.take
    factor = config.testbed.goodput_factor
    capacities = {key: rate * factor for key, rate in resources(wan, setup.cluster).items()}
    network = SimulatedNetwork(
        capacities,
        NodeRoutes(wan, setup.cluster, setup.connections),
        virtual_loop(),
        congestion_control=config.testbed.congestion_control,
        rtt_bias=config.testbed.rtt_bias,
        seed=config.seed if config.wan.seed is None else config.wan.seed,
    )
    nodes = _Nodes(setup, oracle, network, cores, sink, kept)
    clock = nodes.living[SCHEDULER].clock
    count = None if target is None else target.count(clock, setup.resume.time, nodes)
    scripts = [
        asyncio.create_task(_faults(clock, faults, nodes), name="faults"),
        asyncio.create_task(_changes(clock, wan, network, oracle, factor, sink), name="changes"),
    ]
    if count is not None:
        scripts.append(asyncio.create_task(count, name="target"))
    try:
        await nodes.over
    finally:
        for script in scripts:
            script.cancel()
        nodes.end()
    return nodes.reports({} if target is None else target.counted), nodes.spans


class _Target:
    """Notes when the run reaches its target accuracy, and what every node has counted by then.

    An evaluation is of a grid point that is over, so what was counted is kept at each of them. At
    the one that reaches the target it is written beside the checkpoints: a run that is continued
    from a later one needs it.

    Attributes:
      counted: by node, at the grid point at which the target was reached; empty: it was not, or by
        the last model, when the run was over.

    Raises:
      ConfigError: the continued run had reached its target, and what it counted is not known.
    """

    def __init__(
        self,
        setup: Setup,
        oracle: Oracle,
        sink: Callable[[dict[str, Any]], None],
        earlier: Sequence[Event],
    ):
        config = setup.config
        self._every, self._oracle, self._sink = config.eval_every_s, oracle, sink
        self._path = setup.checkpoints / AT_TARGET if config.checkpoint_every else None
        self._watch = TargetWatch(config.target_accuracy, config.target_over)
        self._at: dict[float, dict[str, dict[str, Any]]] = {}  # of grid points to be evaluated
        self._newest = 0.0  # of the grid points that were kept
        self.counted: dict[str, dict[str, Any]] = {}
        for event in sorted(earlier, key=lambda event: event["t"]):
            if event["event"] != "evaluation" or oracle.reached is not None:
                continue
            if self._watch.take(event["accuracy"], event["round"]):
                oracle.reached, self.counted = event["t"], _kept_counts(self._path, event["t"])

    def take(self, event: dict[str, Any]) -> None:
        """Takes every event as it happens."""
        self._sink(event)
        if event["event"] != "evaluation" or self._oracle.reached is not None:
            return
        point = event["t"]
        if self._watch.take(event["accuracy"], event["round"]):
            self._oracle.reached = point
            if point <= self._newest:
                self.counted = self._at[point]
                self._write(point)
        self._at = {later: counts for later, counts in self._at.items() if later > point}

    async def count(self, clock: Clock, since: float, nodes: _Nodes) -> None:
        """Keeps what is counted at each grid point from ``since`` on, until the target is there."""
        await clock.started.wait()
        number = math.ceil(since / self._every)
        while self._oracle.reached is None:
            point = round(number * self._every, 9)
            await asyncio.sleep(max(0.0, point - clock()))
            self._at[point], self._newest = nodes.counted(), point
            number += 1

    def _write(self, point: float) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps({"t": point, "counted": self.counted}))
        partial.rename(self._path)


def _kept_counts(path: Path | None, point: float) -> dict[str, dict[str, Any]]:
    """What a run that is continued had counted when it reached its target."""
    kept: dict[str, Any] = {"t": None}
    if path is not None and path.exists():
        kept = json.loads(path.read_text())
    if kept["t"] != point:
        fix = f"the run reached this target at {point:g} s, and what it had counted by then is not"
        raise ConfigError("resume", True, f"{fix} known any more; start anew in another folder")
    return kept["counted"]


@dataclass
class _Node:
    """One life of a node."""

    task: asyncio.Task[None]
    transport: SimulatedTransport
    machine: VirtualMachine
    clock: Clock
    recorder: Recorder


class _Nodes:
    """All nodes of a simulation; started on construction.

    Attributes:
      living: by name; a node that was killed is not among them.
      spans: of all nodes, in all their lives.
      over: done when every living node has ended, or when one has failed.
    """

    def __init__(
        self,
        setup: Setup,
        oracle: Oracle,
        network: SimulatedNetwork,
        cores: Sequence[Executor],
        sink: Callable[[dict[str, Any]], None],
        kept: Callable[[str, Span], None] | None,
    ):
        self._setup, self._oracle, self._network, self._sink = setup, oracle, network, sink
        self._kept = kept
        self._cores = dict(zip(setup.cluster.trainers, itertools.cycle(cores)))
        self.living: dict[str, _Node] = {}
        self.spans: dict[str, list[Span]] = {place.name: [] for place in setup.cluster.all}
        self._counted: dict[str, dict[str, Any]] = {}  # of lives that are over
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for place in setup.cluster.all:
            self._start(place.name)

    def apply(self, fault: Fault) -> None:
        """Makes a fault happen now; one that hits a dead node does nothing."""
        self._sink(fault.event())
        if fault.kind == "restart":
            if self.living[SCHEDULER].task.done():
                return
            for name in restarted(fault, self._setup.cluster, lambda n: n not in self.living):
                self._start(name)
            return
        node = self.living.get(fault.node)
        if node is None or node.task.done() or fault.kind not in PROCESS_KINDS:
            return
        if fault.kind == "freeze":
            node.transport.freeze(fault.duration)
            node.machine.freeze(fault.duration)
            return
        node.task.cancel()
        self._bury(fault.node)
        if fault.node == SCHEDULER and not self.over.done():
            self.over.set_exception(GeojaxError("the scheduler was killed"))

    def end(self) -> None:
        """Cancels what still runs, in order, and ends the records."""
        for node in self.living.values():
            node.task.cancel()
            node.recorder.flush()

    def counted(self) -> dict[str, dict[str, Any]]:
        """What each node has counted until now, in all its lives."""
        found = {name: {**counts, "gone": True} for name, counts in self._counted.items()}
        for name, node in self.living.items():
            found[name] = counted(node.recorder, node.transport, node.machine)
        return found

    def reports(self, counts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """What each node measured, in all its lives; ``counts``: what counts of it, if not all."""
        found: dict[str, dict[str, Any]] = {}
        for name in self.spans:
            if name in self.living:
                node = self.living[name]
                found[name] = report(node.recorder, node.transport, node.machine)
            elif name in self._counted:
                found[name] = last_words(name, self._counted[name])
        for name, mine in counts.items():
            found[name].pop("gone", None)
            found[name] |= mine
        return found

    def _bury(self, name: str) -> None:
        """A life is over: what it counted is kept."""
        node = self.living.pop(name)
        self._counted[name] = counters(node.recorder, node.transport, node.machine)
        node.machine.stop()
        self._network.kill(name)

    def _start(self, name: str) -> None:
        config = self._setup.config
        clock = Clock()
        recorder = Recorder(
            name, self._sink, config.events, clock, spans=self.spans[name], kept=self._kept
        )
        transport = self._network.transport(name)
        transport.observers.append(SendSpans(recorder, clock))
        machine = VirtualMachine(config.pace, self._cores.get(name))
        restarted = name in self._counted
        if restarted:
            restore(self._counted[name], recorder, transport, machine)
        context = NodeContext(
            name, self._setup, self._oracle, transport, machine, clock, recorder, restarted
        )
        task = asyncio.create_task(run_node(context), name=name)
        self.living[name] = _Node(task, transport, machine, clock, recorder)
        task.add_done_callback(lambda task: self._ended(name, task))

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        if self.over.done():
            return
        error = None if task.cancelled() else task.exception()
        if isinstance(error, MembershipError):  # the run goes on without it, as if it were killed
            self._bury(name)
            if error.may_return and not self.living[SCHEDULER].task.done():
                self._start(name)
        elif error is not None:
            self.over.set_exception(error)
        elif name == SCHEDULER and not task.cancelled():
            for late in [n for n, node in self.living.items() if not node.clock.started.is_set()]:
                self.living[late].task.cancel()  # came back when the run was just over
                self._bury(late)
        if not self.over.done() and all(node.task.done() for node in self.living.values()):
            self.over.set_result(None)


async def _faults(clock: Clock, faults: tuple[Fault, ...], nodes: _Nodes) -> None:
    await clock.started.wait()
    for fault in faults:
        await asyncio.sleep(max(0.0, fault.at - clock()))
        nodes.apply(fault)


async def _changes(
    clock: Clock,
    wan: Wan,
    network: SimulatedNetwork,
    oracle: Oracle,
    factor: float,
    sink: Callable[[dict[str, Any]], None],
) -> None:
    """Changes the links' rates in time, times ``factor``; ``oracle.view`` follows."""
    await clock.started.wait()
    for change in wan.changes():
        await asyncio.sleep(max(0.0, change.at - clock()))
        for (source, target), rate in change.rates.items():
            network.fluid.set_capacity(("link", source, target), rate * factor)
        oracle.view = oracle.view.with_rates(change.rates)
        sink(change_event(change))
