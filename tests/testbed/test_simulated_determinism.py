"""Two simulated runs with one seed write the same bytes, whatever else the machine does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from geojax.axes import change
from geojax.config import RunConfig, to_dict
from geojax.models.registry import SyntheticConfig
from testbed.wan.build import load_preset

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 7
RUN = """
import json, sys
from pathlib import Path
from geojax.axes import from_dict
from testbed.run import run
for values, folder in json.load(sys.stdin):
    Path(folder).mkdir()
    run(from_dict(values), Path(folder))
"""
KILL = [{"at": 0.7, "kind": "kill", "node": "c2"}]


def synthetic(seed: int = 0, faults: list[dict[str, Any]] | None = None) -> RunConfig:
    config = RunConfig(rounds=ROUNDS, seed=seed, eval_every_s=0.5, hash_every=1)
    config.wan = load_preset("netstorm9_draw")
    config.model = SyntheticConfig(bytes=200_000, pace_s=0.1)
    config.overlay.chunk_elements = 16_384
    config.lan.workers = 2
    config.testbed.name, config.testbed.faults = "simulated", faults or []
    config.timeouts.heartbeat, config.timeouts.dead = 0.1, 1.0
    config.events = "chunk"
    return config


def trained(faults: list[dict[str, Any]] | None = None) -> RunConfig:
    config = synthetic(faults=faults)
    config.wan = load_preset("three_centers")
    change(config, {"model": "mlp", "data": "digits"})
    config.data.train_samples, config.data.test_samples = 300, 100
    config.lan.workers = 1
    config.batch_size = 16
    return config


RUNS = {
    "synthetic": synthetic(),
    "synthetic, killed": synthetic(faults=KILL),
    "trained": trained(),
    "trained, killed": trained(faults=KILL),
}


def start(folder: Path, hash_seed: str, runs: dict[str, RunConfig]) -> subprocess.Popen[bytes]:
    """Starts a fresh process that does the runs one after the other."""
    folder.mkdir()
    work = [(to_dict(config), str(folder / name)) for name, config in runs.items()]
    (folder / "work.json").write_text(json.dumps(work))
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "NPROC": "1"}
    with (folder / "work.json").open() as stdin, (folder / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-c", RUN], cwd=ROOT, env=environment, stdin=stdin, stdout=log,
            stderr=log,
        )  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same runs in two processes that share one core; the first also has another seed.

    The second does them in another order, and so finds what the first has compiled.
    """
    base = tmp_path_factory.mktemp("runs")
    started = [
        start(base / "first", "1", {**RUNS, "other": synthetic(1)}),
        start(base / "second", "2", dict(reversed(RUNS.items()))),
    ]
    core = {min(os.sched_getaffinity(0))}
    for process in started:  # each holds the other up, again and again
        os.sched_setaffinity(process.pid, core)
    for process in started:
        process.wait()
    for process, name in zip(started, ("first", "second"), strict=True):
        assert process.returncode == 0, (base / name / "log").read_text()
    return base / "first", base / "second"


def events(folder: Path, name: str) -> bytes:
    return (folder / name / "events.jsonl").read_bytes()


@pytest.mark.parametrize("name", RUNS)
def test_one_seed_writes_the_same_bytes(folders: tuple[Path, Path], name: str) -> None:
    first, second = folders
    assert events(first, name).count(b"\n") > 50
    assert events(first, name) == events(second, name)
    assert (first / name / "trace.json").read_bytes() == (second / name / "trace.json").read_bytes()


def test_another_seed_does_not(folders: tuple[Path, Path]) -> None:
    assert events(folders[0], "synthetic") != events(folders[0], "other")


@pytest.mark.parametrize("name", ["synthetic, killed", "trained, killed"])
def test_the_fault_hit_and_the_run_went_on(folders: tuple[Path, Path], name: str) -> None:
    seen = [json.loads(line) for line in events(folders[0], name).splitlines()]
    [death] = [event for event in seen if event["event"] == "dead"]
    assert "c2" in death["nodes"]
    rounds = {event["round"]: event["t"] for event in seen if event["event"] == "round"}
    assert max(rounds) == ROUNDS - 1
    assert rounds[0] < death["t"] < rounds[ROUNDS - 1]
