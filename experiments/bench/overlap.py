"""How much of its sending a node does while it computes, from the trace of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Interval = tuple[float, float]  # start and end


def overlap_share(trace: Mapping[str, Any], node: str) -> float:
    """The share of the time in which ``node`` sends chunks during which it also computes.

    Of a run with ``events=chunk``: elsewhere the trace has one span for all that was sent to a peer
    in a round, pauses included. A center's root sends the merged chunks while its own next step
    begins, with P3 or without; any other center without P3 sends nothing while it computes.

    Args:
      trace: in Chrome's format, see :func:`geojax.telemetry.recorder.chrome_trace`.
      node: its name.

    Returns:
      0 to 1; 0 where nothing was sent.

    Raises:
      ValueError: there is no such node in the trace.

    >>> def span(name: str, start: float, end: float) -> dict[str, Any]:
    ...     return {"ph": "X", "pid": 0, "name": name, "ts": start, "dur": end - start}
    >>> named = {"ph": "M", "pid": 0, "name": "process_name", "args": {"name": "c2"}}
    >>> spans = [span("compute", 0, 6), span("send", 5, 7), span("send", 6, 9)]
    >>> overlap_share({"traceEvents": [named, *spans]}, "c2")
    0.25
    """
    events = trace["traceEvents"]
    numbers = [
        event["pid"]
        for event in events
        if event["name"] == "process_name" and event["args"]["name"] == node
    ]
    if not numbers:
        raise ValueError(f"no node {node} in the trace")
    spans = [event for event in events if event["ph"] == "X" and event["pid"] == numbers[0]]
    sending, computing = (
        _union((each["ts"], each["ts"] + each["dur"]) for each in spans if each["name"] == name)
        for name in ("send", "compute")
    )
    total = sum(end - start for start, end in sending)
    both = sum(
        max(0.0, min(sent, done) - max(start, begun))
        for start, sent in sending
        for begun, done in computing
    )
    return both / total if total else 0.0


def _union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same instants in intervals that do not overlap, in order."""
    joined: list[Interval] = []
    for start, end in sorted(intervals):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined
