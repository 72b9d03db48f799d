"""Whole runs on the emulated WAN: real processes, real TCP, the same numbers as simulated."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geojax.config import RunConfig
from geojax.models.registry import SyntheticConfig
from testbed.emulated.cleanup import state
from testbed.run import run
from testbed.wan.build import load_preset

pytestmark = [pytest.mark.emulated, pytest.mark.timeout(240)]
ROOT = Path(__file__).resolve().parents[2]
NIGHTLY = pytest.mark.nightly  # long, and a shorter one checks the same


def config(testbed: str, wan: str = "three_centers", **wan_settings: Any) -> RunConfig:
    made = RunConfig()
    made.wan = load_preset(wan, **wan_settings)
    made.testbed.name = testbed
    made.experiment = "test"
    made.eval_every_s = 100.0
    return made


def synthetic(testbed: str, nbytes: int, rounds: int, *args: Any, **settings: Any) -> RunConfig:
    made = config(testbed, *args, **settings)
    made.model = SyntheticConfig(bytes=nbytes)
    made.rounds = rounds
    return made


def events(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("optimizer", "rate"), [("sgd", 0.1), pytest.param("adam", 0.01, marks=NIGHTLY)]
)
def test_parameters_equal_the_simulated_ones_bit_for_bit(
    tmp_path: Path, optimizer: str, rate: float
) -> None:
    models = {}
    for testbed in ("simulated", "emulated"):
        made = config(testbed)
        made.model.name, made.data.name = "mlp", "digits"
        made.optimizer.name, made.lr, made.rounds, made.hash_every = optimizer, rate, 8, 1
        run(made, tmp_path / testbed)
        models[testbed] = (tmp_path / testbed / "models" / "final.npy").read_bytes()
        digests = {e["digest"] for e in events(tmp_path / testbed) if e["event"] == "final"}
        assert len(digests) == 1
    assert hashlib.sha256(models["emulated"]).digest() == (
        hashlib.sha256(models["simulated"]).digest()
    )


@pytest.mark.parametrize(
    ("wan", "rounds"),
    [("three_centers", 4), pytest.param("netstorm9_draw", 5, marks=NIGHTLY)],
)
def test_the_simulator_foretells_the_sync_time(tmp_path: Path, wan: str, rounds: int) -> None:
    """10 MB over the star; the first round, in which TCP finds the rates, is left out of both."""
    means = {}
    for testbed in ("simulated", "emulated"):
        made = synthetic(testbed, 10_000_000, rounds, wan, seed=1)
        run(made, tmp_path / testbed)
        times: dict[int, tuple[float, float]] = {}
        for event in events(tmp_path / testbed):
            if event["event"] == "round" and event["round"] > 0:
                offered, held = times.get(event["round"], (0.0, 0.0))
                times[event["round"]] = (
                    max(offered, event["offered"]), max(held, event["held"]),
                )  # fmt: skip
        means[testbed] = sum(held - offered for offered, held in times.values()) / len(times)
    assert means["simulated"] == pytest.approx(means["emulated"], rel=0.15), means


def test_star_traffic_on_a_sparse_wan_crosses_the_center_in_between(tmp_path: Path) -> None:
    made = synthetic("emulated", 2_000_000, 3)
    made.wan.centers = ["c1", "c2", "c3"]
    made.wan.links = [
        {"between": ["c1", "c2"], "rate": 100, "rtt": 10},
        {"between": ["c2", "c3"], "rate": 100, "rtt": 10},
    ]
    summary = run(made, tmp_path)
    kernel = json.loads((tmp_path / "wan.json").read_text())["kernel_link_bytes"]
    payload = made.model.bytes * made.rounds
    assert kernel["c3>c2"] >= payload
    assert kernel["c2>c1"] >= 2 * payload  # c2's own and c3's
    assert kernel["c1>c2"] >= 2 * payload
    assert kernel["c2>c3"] >= payload
    # c2's chunks cross one link each way, c3's two: six in all; headers are below 1 %.
    assert summary["wan_bytes"] == pytest.approx(6 * payload, rel=0.01)
    assert summary["wan_bytes"] < sum(kernel.values()) < 1.15 * summary["wan_bytes"]


@pytest.mark.nightly  # test_testbeds.py kills one too
def test_a_killed_center_does_not_stop_the_others(tmp_path: Path) -> None:
    made = synthetic("emulated", 1_000_000, 30)
    made.testbed.faults = [{"at": 1.0, "kind": "kill", "node": "c1"}]
    summary = run(made, tmp_path)
    assert summary["rounds"] == 30
    finals = [e for e in events(tmp_path) if e["event"] == "final"]
    assert sorted(e["node"] for e in finals) == ["c2", "c3"]
    assert len({e["digest"] for e in finals}) == 1


@pytest.mark.parametrize("overlay", ["netstorm", pytest.param("packing", marks=NIGHTLY)])
def test_a_link_out_in_one_direction_cuts_nobody_off(tmp_path: Path, overlay: str) -> None:
    """The scheduler has a site of its own; TCP has no use for the direction that is still up."""
    made = synthetic("emulated", 2_000_000, 15)
    made.wan.server_center, made.wan.external = "external", {"rate": 100, "rtt": 20}
    made.wan.dynamics = {"kind": "outage", "from": "c1", "to": "c2", "at": 2.0, "duration": 90.0}
    made.overlay.name = overlay
    made.timeouts.connect = 4.0  # also how long a goodbye may take, here of c1 to c2
    summary = run(made, tmp_path)
    assert summary["rounds"] == 15
    found = events(tmp_path)
    assert not [e for e in found if e["event"] == "dead"]
    assert [e["reason"] for e in found if e["event"] == "policy"][:1] == ["outage"]
    assert 2.0 < summary["time_s"] < 60.0
    assert len({e["digest"] for e in found if e["event"] == "final"}) == 1
    kernel = json.loads((tmp_path / "wan.json").read_text())["kernel_link_bytes"]
    assert max(sent for link, sent in kernel.items() if "external" in link) < 1e6


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, pytest.param(signal.SIGTERM, marks=NIGHTLY), signal.SIGKILL],
)
def test_nothing_is_left_when_the_run_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    namespaces_before, wans_before = namespaces(), set(wans())
    process = subprocess.Popen(
        [
            sys.executable, "-m", "experiments.train", "model=synthetic", "model.bytes=1000000",
            "testbed=emulated", "rounds=100000", f"hydra.run.dir={tmp_path / 'run'}",
        ],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        wait_until((tmp_path / "run/nodes/scheduler/started").exists, 90, process)
        assert processes_of(tmp_path)
        assert set(wans()) > wans_before
        assert namespaces() > namespaces_before
        process.send_signal(number)
        wait_until(lambda: not processes_of(tmp_path) and set(wans()) <= wans_before, 10)
        wait_until(lambda: namespaces() <= namespaces_before, 1)
        process.communicate(timeout=20)
        assert process.returncode != 0
    finally:
        process.kill()
        process.wait()


def wans() -> list[Path]:
    """The records of emulated WANs that exist."""
    return state.all_paths()


def namespaces() -> set[str]:
    """Network namespaces that some process lives in."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found.add(os.readlink(entry / "ns/net"))
    return found


def processes_of(run_dir: Path) -> list[int]:
    """Nodes of a run that are alive, by their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                if str(run_dir).encode() in command and b"geojax.node" in command:
                    found.append(int(entry.name))
    return found


def wait_until(
    condition: Callable[[], bool], seconds: float, process: subprocess.Popen | None = None
) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            pytest.fail(f"ended early: {process.communicate()[0]}")
        assert time.monotonic() < end, f"not within {seconds} s"
        signal.sigtimedwait([], 0.05)
