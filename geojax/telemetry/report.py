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


def restore(
    kept: Mapping[str, Any], recorder: Recorder, transport: _Transport, machine: _Machine
) -> None:
    """Adds :func:`counters` of the part of a run that a checkpoint ended.

    What was being sent when the checkpoint was written is not counted.
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


def report(recorder: Recorder, transport: _Transport, machine: _Machine) -> dict[str, Any]:
    """:func:`counters`, spans, and what the process used.

    Times are seconds, sizes bytes. ``cpu_s`` and ``peak_memory_bytes`` are those of the process.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "node": recorder.node,
        **counters(recorder, transport, machine),
        "spans": [[span.name, span.start, span.end, span.args] for span in recorder.spans],
        "cpu_s": time.process_time(),
        "peak_memory_bytes": usage.ru_maxrss * 1024,
    }
