"""P3 in real processes: the same parameters as simulated; on Mininet it really saves time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.bench.overlap import overlap_share
from geojax.config import RunConfig, WanConfig
from geojax.models.registry import SyntheticConfig
from testbed.run import run


def config(testbed: str, *, p3: bool, rounds: int) -> RunConfig:
    made = RunConfig(rounds=rounds, events="chunk", eval_every_s=100.0, experiment="test")
    made.wan = WanConfig(name="uniform", generator="uniform", centers=2, rate=50.0, rtt=20.0)
    made.testbed.name, made.sync.p3 = testbed, p3
    made.overlay.chunk_elements = 8192
    return made


def final(run_dir: Path) -> bytes:
    return (run_dir / "models" / "final.npy").read_bytes()


def events(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def test_parameters_equal_the_simulated_ones_and_a_step_counts_once(tmp_path: Path) -> None:
    for testbed in ("simulated", "local"):
        made = config(testbed, p3=True, rounds=6)
        made.model.name, made.data.name, made.model.pace_s = "mlp", "digits", 0.02
        made.hash_every = 1
        summary = run(made, tmp_path / testbed)
        assert summary["steps"] == 2 * made.rounds
    assert final(tmp_path / "local") == final(tmp_path / "simulated")


@pytest.mark.emulated
@pytest.mark.timeout(240)
def test_rounds_are_shorter_and_sending_overlaps_with_computing(tmp_path: Path) -> None:
    """Serially a round takes 0.85 s, and 0.57 s at best (experiments.bench.p3_schedule)."""
    times, shares = {}, {}
    for p3 in (False, True):
        made = config("emulated", p3=p3, rounds=9)
        made.model = SyntheticConfig(bytes=3_000_000, stages=8)
        made.model.pace_s = 0.32
        run_dir = tmp_path / str(p3)
        run(made, run_dir)
        held = {
            event["round"]: event["held"]
            for event in events(run_dir)
            if event["event"] == "round" and event["node"] == "c2"
        }
        times[p3] = (held[8] - held[2]) / 6
        shares[p3] = overlap_share(json.loads((run_dir / "trace.json").read_text()), "c2")
    assert final(tmp_path / "True") == final(tmp_path / "False")
    assert times[True] < 0.85 * times[False], times
    assert shares[False] < 0.05 < 0.2 < shares[True], shares
