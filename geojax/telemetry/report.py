"""What one node measured of itself, as plain JSON values."""

from __future__ import annotations

import resource
import time
from typing import Any, Protocol

from geojax.telemetry.recorder import Recorder


class _Counters(Protocol):
    bytes: dict
    messages: dict
    seconds: float


class _Transport(Protocol):
    @property
    def sent(self) -> Any: ...


class _Machine(Protocol):
    violations: int
    steps: int


def report(recorder: Recorder, transport: _Transport, machine: _Machine) -> dict[str, Any]:
    """Totals, bytes sent per peer and kind, steps and pace violations, spans, resources used.

    Times are seconds, sizes bytes. ``cpu_s`` and ``peak_memory_bytes`` are those of the process.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "node": recorder.node,
        "totals": dict(recorder.totals),
        "sent": {
            peer: {
                "bytes": {kind.name: count for kind, count in sorted(counters.bytes.items())},
                "messages": {kind.name: count for kind, count in sorted(counters.messages.items())},
                "seconds": counters.seconds,
            }
            for peer, counters in sorted(transport.sent.items())
            if counters.bytes
        },
        "steps": machine.steps,
        "pace_violations": machine.violations,
        "spans": [[span.name, span.start, span.end, span.args] for span in recorder.spans],
        "cpu_s": time.process_time(),
        "peak_memory_bytes": usage.ru_maxrss * 1024,
    }
