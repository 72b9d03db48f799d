"""What every testbed does: one row of the table a testbed, each meets every check."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geojax.axes import change as change_keys
from geojax.config import RunConfig
from geojax.models.registry import SyntheticConfig
from geojax.overlay.policy.policy import Policy
from testbed.run import run
from testbed.wan.build import load_preset

TESTBEDS = ["simulated", "local", pytest.param("emulated", marks=pytest.mark.emulated)]
ROUNDS = 30
SUMMARY = {
    "centers", "workers", "rounds", "time_s", "steps", "pace_violations", "sync_s", "wan_bytes",
    "lan_bytes", "wan_control_bytes", "lan_control_bytes", "samples_per_s", "balance",
    "blocking_share", "target_accuracy", "wall_s",
}  # fmt: skip


def config(testbed: str) -> RunConfig:
    """Two workers a center, a link that changes, a center that dies and one that pauses."""
    made = RunConfig()
    made.wan = load_preset("three_centers")
    made.wan.dynamics = [
        {"kind": "steps", "steps": [{"at": 0.5, "between": ["c1", "c2"], "factor": 0.5}]}
    ]
    made.testbed.name = testbed
    made.testbed.faults = [
        {"at": 1.0, "kind": "kill", "node": "c2"},
        {"at": 1.5, "kind": "freeze", "node": "c3", "duration": 0.3},
    ]
    made.model = SyntheticConfig(bytes=300_000, pace_s=0.1)
    made.rounds, made.hash_every, made.lan.workers = ROUNDS, 1, 2
    return made


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``played(testbed) -> (run directory, summary)``, each run once."""

    @functools.cache
    def play(testbed: str) -> tuple[Path, dict[str, Any]]:
        run_dir = tmp_path_factory.mktemp(testbed)
        return run_dir, run(config(testbed), run_dir)

    return play


def events(run_dir: Path, *names: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    assert [event["t"] for event in found] == sorted(event["t"] for event in found)
    return [event for event in found if event["event"] in names]


@pytest.mark.parametrize("testbed", TESTBEDS)
def test_the_run_ends_and_its_figures_are_there(played: Any, testbed: str) -> None:
    run_dir, summary = played(testbed)
    assert summary.keys() >= SUMMARY
    assert summary["rounds"] == ROUNDS
    assert summary["workers"] == 6
    assert summary["pace_violations"] <= 0.05 * summary["steps"]
    assert summary["wan_bytes"] > 0
    assert summary["lan_bytes"] > summary["wan_bytes"]
    trace = json.loads((run_dir / "trace.json").read_text())["traceEvents"]
    assert {"compute", "wait", "send"} <= {entry["name"] for entry in trace}


@pytest.mark.parametrize("testbed", TESTBEDS)
def test_survivors_hold_the_same_model(played: Any, testbed: str) -> None:
    run_dir, _ = played(testbed)
    finals = events(run_dir, "final")
    assert [event["node"] for event in sorted(finals, key=lambda e: e["node"])] == ["c1", "c3"]
    assert len({event["digest"] for event in finals}) == 1
    assert np.load(run_dir / "models" / "final.npy").size == 75_000


@pytest.mark.parametrize("testbed", TESTBEDS)
def test_the_script_is_played_on_experiment_time(played: Any, testbed: str) -> None:
    run_dir, _ = played(testbed)
    assert [(e["kind"], e["t"]) for e in events(run_dir, "fault")] == [
        ("kill", 1.0),
        ("freeze", 1.5),
    ]
    (change,) = events(run_dir, "rates")
    assert change["t"] == 0.5
    assert sorted(change["rates"]) == [["c1", "c2", 50e6], ["c2", "c1", 50e6]]
    (dead,) = events(run_dir, "dead")
    assert dead["nodes"] == ["c2", "c2/w0", "c2/w1"]
    assert 1.0 <= dead["t"] < 1.5


@pytest.mark.parametrize("testbed", TESTBEDS)
def test_rounds_follow_each_other_at_every_worker(played: Any, testbed: str) -> None:
    run_dir, _ = played(testbed)
    for node in ("c1/w0", "c1/w1", "c3/w0", "c3/w1"):
        rounds = [event for event in events(run_dir, "round") if event["node"] == node]
        assert [event["round"] for event in rounds] == list(range(ROUNDS))
        assert all(event["offered"] <= event["held"] for event in rounds)


@pytest.mark.parametrize("testbed", TESTBEDS)
def test_a_model_is_the_same_on_every_testbed(tmp_path: Path, testbed: str) -> None:
    """Without faults all testbeds merge the same offers, so they end with the same bits."""
    ends = []
    for name in ("simulated", testbed):
        made = config(name)
        made.testbed.faults, made.wan.dynamics, made.rounds = [], None, 4
        run_dir = tmp_path / name
        summary = run(made, run_dir)
        finals = {(e["node"], e["round"], e["digest"]) for e in events(run_dir, "final")}
        model = (run_dir / "models" / "final.npy").read_bytes()
        ends.append((model, finals, len(events(run_dir, "round")), summary["steps"]))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("testbed", TESTBEDS)
def test_global_servers_have_a_site_of_their_own(tmp_path: Path, testbed: str) -> None:
    """One of two dies; whoever merges, the model is that of a star in the first center."""
    models = []
    for name in ("star", testbed):
        made = config("simulated" if name == "star" else testbed)
        made.wan = load_preset("uniform", centers=2)
        made.testbed.faults, made.rounds, made.lan.workers = [], 15, 1
        if name != "star":
            made.wan.server_center, made.wan.external = "external", {"rate": 50, "rtt": 20}
            change_keys(made, {"overlay": "multigps", "overlay.servers": 2})
            made.testbed.faults = [{"at": 0.8, "kind": "kill", "node": "external/g0"}]
        run(made, tmp_path / name)
        models.append((tmp_path / name / "models" / "final.npy").read_bytes())
    assert models[0] == models[1]
    (start,), (change,) = events(tmp_path / testbed, "start"), events(tmp_path / testbed, "epoch")
    policies = [Policy.from_dict(event["policies"]["0"]) for event in (start, change)]
    roots = [[tree.root for tree in policy.trees] for policy in policies]
    assert roots == [["external/g0", "external/g1"], ["external/g1"]]
    finals = events(tmp_path / testbed, "final")
    assert sorted(event["node"] for event in finals) == ["c1", "c2"]
