"""After ``max_time_s`` nothing counts, however long a run's last rounds take."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from simulated_runs import small_config

from geojax.axes import change
from geojax.config import RunConfig, WanConfig
from geojax.telemetry.recorder import traced_spans
from testbed.run import run
from testbed.wan.build import load_preset

LIMIT = 2.3


@pytest.mark.parametrize("sync", ["fsa", "fedbuff"])
def test_figures_and_the_final_model_are_those_of_the_limit(tmp_path: Path, sync: str) -> None:
    """Steps last 0.5 s, and rounds a bit longer: some are under way at the limit."""
    made = RunConfig()
    made.wan = load_preset("three_centers")
    wanted = {"testbed": "simulated", "sync": sync, "model": "mlp", "data": "digits"}
    change(made, {**wanted, "model.pace_s": 0.5, "eval_every_s": 1.0, "max_time_s": LIMIT})
    made.rounds, made.data.test_samples = 1000, 64
    if sync == "fedbuff":
        made.sync.local_steps = 1
    summary = run(made, tmp_path)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    done = [e["held"] for e in events if e["event"] == "round"]
    assert max(done) > LIMIT + 0.1, "the run ended in time by itself"
    assert summary["time_s"] == LIMIT
    traced = traced_spans(json.loads((tmp_path / "trace.json").read_text()))
    ended = [s.end for spans in traced.values() for s in spans if s.name == "compute"]
    assert summary["steps"] == sum(end <= LIMIT for end in ended) < len(ended)
    assert summary["samples"] == summary["steps"] * made.batch_size
    sent = [s for spans in traced.values() for s in spans if s.name == "send"]
    assert summary["wan_bytes"] < sum(span.args["bytes"] for span in sent)
    evaluations = [e for e in events if e["event"] == "evaluation"]
    assert [e["t"] for e in evaluations] == [0.0, 1.0, 2.0, LIMIT]
    assert summary["final_accuracy"] == evaluations[-1]["accuracy"]
    assert np.load(tmp_path / "models" / "final.npy").size


@pytest.mark.parametrize("limit", [19.0, 20.0])
def test_a_step_under_way_at_the_limit_is_computing(tmp_path: Path, limit: float) -> None:
    """c3's steps last 10 s: it computes all the time, and nearly so do the others."""
    made = small_config(
        sync__name="fedasync", sync__local_steps=1, batch_size=4, rounds=1000, model__pace_s=0.1,
        max_time_s=limit, pace__centers={"c3": 100.0},
    )  # fmt: skip
    summary = run(made, tmp_path)
    assert summary["worker_shares"]["c3"]["compute"] == pytest.approx(1.0, abs=0.01)
    assert summary["balance"] > 0.9
    assert summary["samples"] == 4 * summary["steps"]


def test_a_transfer_under_way_at_the_limit_is_a_transfer(tmp_path: Path) -> None:
    """One way takes 6.4 s, and the server is at c1: at 9 s c2's first answer is on its way."""
    made = small_config(
        sync__name="fedasync", sync__local_steps=1, batch_size=4, rounds=1000, model__pace_s=0.1,
        max_time_s=9.0, elements=100_000, chunk_elements=100_000,
    )  # fmt: skip
    made.wan = WanConfig(name="slow", generator="uniform", centers=2, rate=0.5, rtt=10.0)
    shares = run(made, tmp_path)["worker_shares"]["c2"]
    assert shares["transfer"] == pytest.approx(8.9 / 9, abs=0.01)
    assert shares["wait"] < 0.01
