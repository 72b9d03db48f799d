"""What one node measured of itself, as plain JSON values."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from typing import Any, Protocol

from geojax.telemetry.recorder import Recorder


class _Transport(Protocol):
    @property
    def sent(self) -> Any: ...


class _Machine(Protocol):
    violations: int
    steps: int


def counters(recorder: Recorder, transport: _Transport, machine: _Machine) -> dict[str, Any]:
    """What only ever grows: totals, bytes sent per peer and kind, steps and pace violations."""
    recorder.flush()
    return counted(recorder, transport, machine)


def counted(recorder: Recorder, transport: _Transport, machine: _Machine) -> dict[str, Any]:
    """As :func:`counters`; but no span is ended for it."""
    if recorder.final is not None:
        return recorder.final
    return {
        "totals": dict(recorder.totals),
        "sent": {
            peer: {
                "bytes": {str(int(kind)): count for kind, count in sorted(link.bytes.items())},
                "messages": {str(int(kind)): n for kind, n in sorted(link.messages.items())},
                "seconds": link.seconds,
            }
            for peer, link in sorted(transport.sent.items())
            if link.bytes
        },
        "steps": machine.steps,
        "pace_violations": machine.violations,
    }


def keep_counters(recorder: Recorder, transport: _Transport, machine: _Machine) -> None:
    """What is counted from now on does not count any more: :func:`counters` stay as they are."""
    recorder.final = counters(recorder, transport, machine)


def restore(
    kept: Mapping[str, Any], recorder: Recorder, transport: _Transport, machine: _Machine
) -> None:
    """Adds :func:`counters` of a node's life before, or of a run up to its checkpoint.

    What was being sent when they were taken is not counted.
    """
    for name, amount in kept["totals"].items():
        recorder.add(name, amount)
    for peer, link in kept["sent"].items():
        mine = transport.sent[peer]
        mine.seconds += link["seconds"]
        for attribute in ("bytes", "messages"):
            for kind, count in link[attribute].items():
                getattr(mine, attribute)[int(kind)] += count
    machine.steps += kept["steps"]
    machine.violations += kept["pace_violations"]


def last_words(node: str, counted: Mapping[str, Any]) -> dict[str, Any]:
    """The report of a node that is not there at the end, from its last :func:`counters`."""
    return {"node": node, **counted, "gone": True}


def report(recorder: Recorder, transport: _Transport, machine: _Machine) -> dict[str, Any]:
    """:func:`counters`, and what the process used.

    Times are seconds, sizes bytes. ``cpu_s`` and ``peak_memory_bytes`` are those of the process.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "node": recorder.node,
        **counters(recorder, transport, machine),
        "cpu_s": time.process_time(),
        "peak_memory_bytes": usage.ru_maxrss * 1024,
    }
