"""Runs every node of a run in one process, on virtual time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from geojax.assemble import Setup, run_node
from geojax.errors import GeojaxError, MembershipError
from geojax.hips.cluster import SCHEDULER
from geojax.hips.context import NodeContext, Oracle
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder, Span
from geojax.telemetry.report import counters, last_words, report, restore
from geojax.telemetry.summary import TargetWatch
from geojax.wire.send_spans import SendSpans
from testbed.faults import PROCESS_KINDS, Fault, restarted
from testbed.simulated.loop import run_virtual, virtual_loop
from testbed.simulated.machine import VirtualMachine
from testbed.simulated.routes import NodeRoutes, resources
from testbed.simulated.transport import SimulatedNetwork, SimulatedTransport
from testbed.wan.build import Wan
from testbed.wan.dynamics.base import change_event

# A simulation keeps many objects and makes few cycles: collecting them seldom saves a tenth of it.
_COLLECT = (100_000, 20, 50)

Outcome = tuple[dict[str, dict[str, Any]], dict[str, list[Span]]]


def simulate(
    setup: Setup,
    wan: Wan,
    faults: tuple[Fault, ...],
    sink: Callable[[dict[str, Any]], None],
    kept: Callable[[str, Span], None] | None = None,
) -> Outcome:
    """Runs the whole run; returns the nodes' reports and spans.

    Args:
      setup: configuration, nodes and view.
      wan: the WAN that is simulated.
      faults: what breaks, and when.
      sink: takes every event as it happens.
      kept: takes every span as it ends, with its node's name.

    Raises:
      GeojaxError: the run failed.
    """
    before = gc.get_threshold()
    gc.set_threshold(*_COLLECT)
    try:
        return run_virtual(_simulate(setup, wan, faults, sink, kept))
    finally:
        gc.set_threshold(*before)


async def _simulate(
    setup: Setup,
    wan: Wan,
    faults: tuple[Fault, ...],
    sink: Callable[[dict[str, Any]], None],
    kept: Callable[[str, Span], None] | None,
) -> Outcome:
    config = setup.config
    oracle = Oracle(setup.view)
    if config.stop_at_target:
        sink = _until_target(setup, oracle, sink)
    factor = config.testbed.goodput_factor
    capacities = {key: rate * factor for key, rate in resources(wan, setup.cluster).items()}
    network = SimulatedNetwork(
        capacities,
        NodeRoutes(wan, setup.cluster),
        virtual_loop(),
        congestion_control=config.testbed.congestion_control,
        rtt_bias=config.testbed.rtt_bias,
        seed=config.seed if config.wan.seed is None else config.wan.seed,
    )
    nodes = _Nodes(setup, oracle, network, sink, kept)
    clock = nodes.living[SCHEDULER].clock
    scripts = [
        asyncio.create_task(_faults(clock, faults, nodes), name="faults"),
        asyncio.create_task(_changes(clock, wan, network, oracle, factor, sink), name="changes"),
    ]
    try:
        await nodes.over
    finally:
        for script in scripts:
            script.cancel()
        nodes.end()
    return nodes.reports(), nodes.spans


def _until_target(setup: Setup, oracle: Oracle, sink: Callable[[dict[str, Any]], None]) -> Any:
    """A sink that notes when the run has reached its target accuracy."""
    watch = TargetWatch(setup.config.target_accuracy, setup.config.target_over)

    def take(event: dict[str, Any]) -> None:
        sink(event)
        if event["event"] == "evaluation":
            oracle.reached |= watch.take(event["accuracy"], event["round"])

    return take


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
        sink: Callable[[dict[str, Any]], None],
        kept: Callable[[str, Span], None] | None,
    ):
        self._setup, self._oracle, self._network, self._sink = setup, oracle, network, sink
        self._kept = kept
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

    def reports(self) -> dict[str, dict[str, Any]]:
        """What each node measured, in all its lives."""
        found = {}
        for name in self.spans:
            if name in self.living:
                node = self.living[name]
                found[name] = report(node.recorder, node.transport, node.machine)
            elif name in self._counted:
                found[name] = last_words(name, self._counted[name])
        return found

    def _bury(self, name: str) -> None:
        """A life is over: what it counted is kept."""
        node = self.living.pop(name)
        self._counted[name] = counters(node.recorder, node.transport, node.machine)
        self._network.kill(name)

    def _start(self, name: str) -> None:
        config = self._setup.config
        clock = Clock()
        recorder = Recorder(
            name, self._sink, config.events, clock, spans=self.spans[name], kept=self._kept
        )
        transport = self._network.transport(name)
        transport.observers.append(SendSpans(recorder, clock))
        machine = VirtualMachine(config.pace)
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
