"""Runs every node of a run in one process, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from geojax.assemble import Setup, run_node
from geojax.errors import GeojaxError
from geojax.hips.places import SCHEDULER
from geojax.hips.waits import first_failure
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder, Span
from geojax.telemetry.report import report
from geojax.wire.message import Kind, Message
from testbed.faults import Fault
from testbed.simulated.links import NodeRoutes, resources
from testbed.simulated.loop import run_virtual, virtual_loop
from testbed.simulated.machine import VirtualMachine
from testbed.simulated.transport import SimulatedNetwork
from testbed.wan import Wan

Outcome = tuple[dict[str, dict[str, Any]], dict[str, list[Span]]]


def simulate(
    setup: Setup, wan: Wan, faults: tuple[Fault, ...], sink: Callable[[dict[str, Any]], None]
) -> Outcome:
    """Runs the whole run; returns the nodes' reports and spans.

    Args:
      setup: configuration, nodes and view.
      wan: the WAN that is simulated.
      faults: what breaks, and when.
      sink: takes every event as it happens.

    Raises:
      GeojaxError: the run failed.
    """
    return run_virtual(_simulate(setup, wan, faults, sink))


async def _simulate(
    setup: Setup, wan: Wan, faults: tuple[Fault, ...], sink: Callable[[dict[str, Any]], None]
) -> Outcome:
    config, places = setup.config, setup.places
    factor = config.testbed.goodput_factor
    capacities = {key: rate * factor for key, rate in resources(wan, places).items()}
    network = SimulatedNetwork(capacities, NodeRoutes(wan, places), virtual_loop())
    parts: dict[str, tuple[Any, ...]] = {}
    for place in places.all:
        clock = Clock()
        recorder = Recorder(place.name, sink, config.events, clock)
        transport = network.transport(place.name)
        transport.observer = _send_spans(recorder, clock)
        parts[place.name] = (transport, VirtualMachine(config.pace), clock, recorder)
    tasks = {
        name: asyncio.create_task(
            run_node(
                name, setup, transport=transport, machine=machine, clock=clock, recorder=recorder
            ),
            name=name,
        )
        for name, (transport, machine, clock, recorder) in parts.items()
    }

    def kill(node: str) -> None:
        tasks[node].cancel()
        network.kill(node)
        sink({"t": round(parts[SCHEDULER][2](), 9), "node": node, "event": "fault", "kind": "kill"})

    scripts = [
        asyncio.create_task(_faults(parts[SCHEDULER][2], faults, kill), name="faults"),
        asyncio.create_task(
            _changes(parts[SCHEDULER][2], wan, network, factor, sink), name="changes"
        ),
    ]
    try:
        await first_failure(tuple(tasks.values()))
    finally:
        for script in scripts:
            script.cancel()
    if tasks[SCHEDULER].cancelled():
        raise GeojaxError("the scheduler was killed")
    reports, spans = {}, {}
    for name, (transport, machine, _, recorder) in parts.items():
        if not tasks[name].cancelled():
            reports[name] = report(recorder, transport, machine)
        spans[name] = recorder.spans
    return reports, spans


def _send_spans(recorder: Recorder, clock: Clock) -> Callable[[str, Message, float, float], None]:
    def observe(peer: str, message: Message, start: float, end: float) -> None:
        if message.kind is not Kind.CONTROL:
            offset = clock() - end
            recorder.span(
                "send", start + offset, clock(), peer=peer, round=message.round, chunk=message.chunk
            )

    return observe


async def _faults(clock: Clock, faults: tuple[Fault, ...], kill: Callable[[str], None]) -> None:
    await clock.started.wait()
    for fault in faults:
        await asyncio.sleep(max(0.0, fault.at - clock()))
        kill(fault.node)


async def _changes(
    clock: Clock,
    wan: Wan,
    network: SimulatedNetwork,
    factor: float,
    sink: Callable[[dict[str, Any]], None],
) -> None:
    await clock.started.wait()
    for change in wan.changes():
        await asyncio.sleep(max(0.0, change.at - clock()))
        for (source, target), rate in change.rates.items():
            network.fluid.set_capacity(("link", source, target), rate * factor)
        sink(change_event(change))


def change_event(change: Any) -> dict[str, Any]:
    """The event of a change of link rates, bit/s."""
    rates = [[*edge, rate] for edge, rate in change.rates.items()]
    return {"t": round(change.at, 9), "node": "wan", "event": "rates", "rates": rates}
