"""A broken run of real processes goes on in its own directory, as if it had not been broken."""

from __future__ import annotations

import json
from pathlib import Path

from geojax.config import RunConfig
from geojax.models.registry import SyntheticConfig
from testbed.run import run
from testbed.wan.build import load_preset


def config(testbed: str, rounds: int) -> RunConfig:
    made = RunConfig()
    made.wan = load_preset("uniform", centers=2)
    made.testbed.name = testbed
    made.model = SyntheticConfig(bytes=40_000, pace_s=0.02)
    made.rounds, made.checkpoint_every = rounds, 5
    # Long over when the run goes on: it must not happen again.
    made.testbed.faults = [{"at": 0.05, "kind": "freeze", "node": "c2", "duration": 0.05}]
    return made


def test_rounds_events_and_model_are_those_of_an_unbroken_run(tmp_path: Path) -> None:
    run(config("local", 12), tmp_path / "local")
    again = config("local", 20)
    again.resume = True
    summary = run(again, tmp_path / "local")
    run(config("simulated", 20), tmp_path / "simulated")
    models = [
        (tmp_path / name / "models/final.npy").read_bytes() for name in ("local", "simulated")
    ]
    assert models[0] == models[1]
    lines = (tmp_path / "local" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    rounds = [(e["node"], e["round"]) for e in events if e["event"] == "round"]
    assert sorted(rounds) == sorted((c, r) for c in ("c1", "c2") for r in range(20))
    assert sum(event["event"] == "fault" for event in events) == 1
    assert summary["rounds"] == 20
    assert summary["steps"] == 40
