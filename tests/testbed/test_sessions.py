"""Nothing of a run is lost: what dead nodes sent, and what a broken run's sessions did."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from geojax.config import RunConfig
from geojax.errors import GeojaxError
from geojax.hips.cluster import START, ResumePoint
from geojax.models.registry import SyntheticConfig
from geojax.telemetry.recorder import Span, chrome_trace, traced_spans
from testbed.run import prepare, run
from testbed.sessions import Sessions
from testbed.wan.build import load_preset
from testbed.wan.hops import hops


def config(rounds: int, *faults: dict[str, Any], testbed: str = "simulated") -> RunConfig:
    made = RunConfig()
    made.wan = load_preset("three_centers")
    made.testbed.name, made.testbed.faults = testbed, list(faults)
    made.model = SyntheticConfig(bytes=200_000, pace_s=0.02)
    made.rounds, made.checkpoint_every, made.timeouts.dead = rounds, 5, 2.0
    return made


def fault(kind: str, at: float, node: str) -> dict[str, Any]:
    return {"at": at, "kind": kind, "node": node}


def traced_bytes(run_dir: Path, made: RunConfig) -> int:
    """Bytes of all sends over the WAN in a run's trace, every hop counted."""
    setup, wan, _ = prepare(made, run_dir)
    crossed = hops(wan, setup.cluster)
    traced = traced_spans(json.loads((run_dir / "trace.json").read_text()))
    return sum(
        span.args["bytes"] * len(crossed[node, span.args["peer"]])
        for node, spans in traced.items()
        for span in spans
        if span.name == "send"
    )


FAULTS = {
    "killed": [fault("kill", 1.0, "c3")],
    "killed and back": [fault("kill", 1.0, "c3"), fault("restart", 1.5, "c3")],
    "twice": [fault("kill", 1.0, "c3"), fault("restart", 1.5, "c3"), fault("kill", 2.5, "c3")],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_what_a_dead_node_sent_and_computed_counts(
    tmp_path: Path, faults: list[dict[str, Any]]
) -> None:
    made = config(40, *faults)
    summary = run(made, tmp_path)
    traced = traced_bytes(tmp_path, made)
    assert summary["wan_bytes"] == pytest.approx(traced, rel=0.01)  # a chunk may be under way
    spans = traced_spans(json.loads((tmp_path / "trace.json").read_text()))
    steps = [s for found in spans.values() for s in found if s.name == "compute"]
    assert abs(summary["steps"] - len(steps)) <= len(faults)
    assert ("c3" in summary["worker_shares"]) == (len(faults) == 2)  # it was there at the end


def test_a_process_that_was_killed_leaves_what_it_counted(tmp_path: Path) -> None:
    made = config(40, fault("kill", 2.0, "c3"), testbed="local")
    made.model.pace_s = 0.1
    summary = run(made, tmp_path)
    whole = 40 * 2 * 200_000  # c2 offers, and gets the sum; c3 did so for a while
    assert summary["wan_bytes"] > whole + 5 * 2 * 200_000
    assert not list(tmp_path.rglob("spans.jsonl"))


@pytest.mark.parametrize("testbed", ["simulated", "local"])
def test_a_run_that_goes_on_keeps_the_spans_of_its_sessions(tmp_path: Path, testbed: str) -> None:
    """The driver ends as soon as the scheduler is killed, and so the nodes do."""
    broken, again = (
        config(40, fault("kill", 1.5, "scheduler"), testbed=testbed),
        config(40, testbed=testbed),
    )
    for made in (broken, again):
        made.model.pace_s = 0.02 if testbed == "simulated" else 0.1  # loopback is quick
        made.wan = load_preset("uniform", centers=2)
    with pytest.raises(GeojaxError, match="scheduler was killed"):
        run(broken, tmp_path)
    again.resume = True
    summary = run(again, tmp_path)
    assert summary["incidents"] == {"resumes": 1}
    assert traced_bytes(tmp_path, again) == pytest.approx(summary["wan_bytes"], rel=0.02)
    spans = traced_spans(json.loads((tmp_path / "trace.json").read_text()))
    computed = sorted({s.args["round"] for s in spans["c1"] if s.name == "compute"})
    assert computed == list(range(40))


def test_the_wall_time_is_that_of_all_sessions(tmp_path: Path) -> None:
    """The first session began 100 s ago and was killed 70 s ago."""
    Sessions(tmp_path, START)
    now = time.time()
    (tmp_path / "sessions.json").write_text(json.dumps({"began": now - 100, "before_s": 5.0}))
    (tmp_path / "events.jsonl").touch()
    os.utime(tmp_path / "events.jsonl", (now - 70, now - 70))
    assert Sessions(tmp_path, ResumePoint(3, 1.0)).wall_s == pytest.approx(35.0, abs=1.0)
    assert Sessions(tmp_path, START).wall_s < 5.0


def test_spans_come_back_from_a_trace() -> None:
    spans = {"c1": [Span("send", 1.0, 2.5, {"peer": "c2", "bytes": 3})], "c2": []}
    assert traced_spans(chrome_trace(spans)) == spans
