"""What one node records while it runs.

Events go to ``events.jsonl`` and carry experiment time only, so that two simulated runs with one
seed write the same bytes. Spans become the Chrome trace and the busy and waiting shares.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time at one node; times are experiment seconds."""

    name: str
    start: float
    end: float
    args: dict[str, Any]


@dataclass
class Recorder:
    """Collects events, spans and totals of one node.

    Args:
      node: the node's name.
      sink: receives every event as a finished mapping, in order.
      level: ``"round"`` or ``"chunk"``; events of a finer level are dropped.
      clock: experiment time.
      spans: holds every span, unless ``kept`` takes them.
      kept: receives every span with the node's name; None: they are held here.
      closers: called by :meth:`flush`, in order; they record what is going on so far, and bring it
        to disk.
      final: counters that stay as they are, however the run goes on; None: none do.
    """

    node: str
    sink: Callable[[dict[str, Any]], None]
    level: str = "round"
    clock: Callable[[], float] = lambda: 0.0
    spans: list[Span] = field(default_factory=list)
    totals: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    kept: Callable[[str, Span], None] | None = None
    closers: list[Callable[[], None]] = field(default_factory=list)
    final: dict[str, Any] | None = None

    def event(self, name: str, *, at: float | None = None, **fields: Any) -> None:
        """Records that something happened, now or ``at`` a given experiment time."""
        time = self.clock() if at is None else at
        self.sink({"t": round(time, 9), "node": self.node, "event": name, **fields})

    def chunk_event(self, name: str, **fields: Any) -> None:
        """Records an event of one chunk, if the run wants events that fine."""
        if self.level == "chunk":
            self.event(name, **fields)

    def span(self, name: str, start: float, end: float, **args: Any) -> None:
        """Records that this node was busy with ``name`` from ``start`` to ``end``."""
        self.keep(Span(name, start, end, args))
        self.totals[name + "_s"] += end - start

    def keep(self, span: Span) -> None:
        """Takes a span that is in no total."""
        if self.kept is None:
            self.spans.append(span)
        else:
            self.kept(self.node, span)

    def flush(self) -> None:
        """Every span that has begun is recorded as far as it has come."""
        for close in self.closers:
            close()

    def add(self, name: str, amount: float = 1) -> None:
        """Adds to a total that goes into the node's report."""
        self.totals[name] += amount


def jsonl_sink(stream: TextIO) -> Callable[[dict[str, Any]], None]:
    """A sink that writes one event a line, keys in their given order."""
    encode = json.JSONEncoder(separators=(",", ":")).encode

    def write(event: dict[str, Any]) -> None:
        stream.write(encode(event) + "\n")

    return write


def chrome_trace(spans: Mapping[str, Iterable[Span]]) -> dict[str, Any]:
    """The spans of all nodes in Chrome's trace format (opens in Perfetto); microseconds.

    A node is a process of the trace. Each kind of work is a lane, and each peer that is sent to.
    """
    return {"traceEvents": list(_trace_events(spans)), "displayTimeUnit": "ms"}


def write_trace(stream: TextIO, spans: Mapping[str, Iterable[Span]]) -> None:
    """Writes :func:`chrome_trace` as JSON, holding one span at a time.

    >>> import io
    >>> stream, spans = io.StringIO(), {"c1": [Span("compute", 0.0, 0.5, {"round": 0})], "c2": []}
    >>> write_trace(stream, spans)
    >>> stream.getvalue() == json.dumps(chrome_trace(spans))
    True
    """
    stream.write('{"traceEvents": [')
    before, encode = "", json.JSONEncoder().encode
    for event in _trace_events(spans):
        stream.write(before + encode(event))
        before = ", "
    stream.write('], "displayTimeUnit": "ms"}')


def _trace_events(spans: Mapping[str, Iterable[Span]]) -> Iterator[dict[str, Any]]:
    for number, node in enumerate(spans):
        yield {"ph": "M", "pid": number, "name": "process_name", "args": {"name": node}}
        lanes: dict[str, int] = {}
        for span in spans[node]:
            lane = f"send to {span.args['peer']}" if span.name == "send" else span.name
            if lane not in lanes:
                lanes[lane] = len(lanes)
                ids = {"pid": number, "tid": lanes[lane]}
                yield {"ph": "M", **ids, "name": "thread_name", "args": {"name": lane}}
            yield {
                "ph": "X",
                "pid": number,
                "tid": lanes[lane],
                "name": span.name,
                "ts": span.start * 1e6,
                "dur": (span.end - span.start) * 1e6,
                "args": span.args,
            }


def traced_spans(trace: dict[str, Any]) -> dict[str, list[Span]]:
    """The inverse of :func:`chrome_trace`, to a microsecond's rounding.

    Raises:
      KeyError, TypeError: it is no such trace.
    """
    found: dict[int, list[Span]] = {}
    names: dict[int, str] = {}
    for event in trace["traceEvents"]:
        if event["name"] == "process_name":
            names[event["pid"]] = event["args"]["name"]
        elif event["ph"] == "X":
            start, end = event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6
            found.setdefault(event["pid"], []).append(
                Span(event["name"], start, end, event["args"])
            )
    return {name: found.get(pid, []) for pid, name in names.items()}
