"""A run may go on after it broke: what its earlier sessions left, and how long they took."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from geojax.hips.cluster import START, ResumePoint, shard_name
from geojax.telemetry.recorder import Span, traced_spans
from geojax.telemetry.spans import SPANS, read_spans

TRACE = "trace.json"
_SESSIONS = "sessions.json"


class Sessions:
    """The wall times of a run's sessions, in its directory.

    A session that was killed ended when its last event was written.

    Args:
      run_dir: the run's directory.
      resume: where this session goes on; at the start, earlier ones do not count.
    """

    def __init__(self, run_dir: Path, resume: ResumePoint):
        self._began = time.monotonic()
        self._before = 0.0
        run_dir.mkdir(parents=True, exist_ok=True)
        path = run_dir / _SESSIONS
        if resume != START and path.exists():
            before = json.loads(path.read_text())
            written = [each.stat().st_mtime for each in _event_files(run_dir)]
            ended = max([before["began"], *written])
            self._before = before["before_s"] + ended - before["began"]
        path.write_text(json.dumps({"began": time.time(), "before_s": self._before}) + "\n")

    @property
    def wall_s(self) -> float:
        """Wall time of all sessions until now, s."""
        return self._before + time.monotonic() - self._began


def earlier_events(run_dir: Path, resume: ResumePoint) -> list[dict[str, Any]]:
    """What a broken run did up to the point where this one continues it."""
    if resume == START:
        return []
    # A driver that was killed had not read all that its nodes had written.
    ours, theirs = run_dir.glob("events.jsonl"), run_dir.glob("nodes/*/events.jsonl")
    both = _whole_lines(ours) | _whole_lines(theirs)
    kept = [event for event in map(json.loads, both.elements()) if _happened(event, resume)]
    return [*kept, {"t": resume.time, "node": "scheduler", "event": "resumed"}]


def earlier_spans(run_dir: Path, resume: ResumePoint) -> dict[str, list[Span]]:
    """The spans of a broken run up to the point where this one continues it, by node."""
    if resume == START:
        return {}
    if (run_dir / TRACE).exists():  # it had come to its end, and has more rounds now
        found = traced_spans(json.loads((run_dir / TRACE).read_text()))
    else:
        found = read_spans([run_dir / SPANS, *sorted(run_dir.glob(f"nodes/*/{SPANS}"))])
    return {n: [span for span in spans if span.end <= resume.time] for n, spans in found.items()}


def _event_files(run_dir: Path) -> list[Path]:
    return [*run_dir.glob("events.jsonl"), *run_dir.glob("nodes/*/events.jsonl")]


def _whole_lines(paths: Iterable[Path]) -> Counter[str]:
    """How often each line is there, without the last one of who was killed when writing it."""
    lines = (line for path in sorted(paths) for line in path.read_text().splitlines())
    return Counter(line for line in lines if line.endswith("}"))


def _happened(event: dict[str, Any], resume: ResumePoint) -> bool:
    """Whether an event of a broken run is in what it is continued from."""
    if not resume.held:
        return event.get("round", -1) <= resume.round and event["t"] <= resume.time
    if event["event"] == "evaluation":
        return event["t"] < resume.time
    if event["event"] in ("applied", "lan_applied"):
        within = event["event"] == "lan_applied"
        shard = shard_name(event["node"], event["chunk"], within=within)
        return event["version"] <= resume.versions.get(shard, -1)  # else it moved there later
    if event["event"] == "held_back":  # by a server, of a center
        return event["round"] <= resume.of(event["center"])
    if "round" in event and event.get("node") in resume.held and event["event"] != "final":
        return event["round"] <= resume.of(event["node"])
    return event["t"] <= resume.time
