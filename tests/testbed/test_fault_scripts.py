"""Every kind of scripted fault: read with care, played the same on every testbed, repeatable."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from geojax.axes import change
from geojax.config import RunConfig
from geojax.errors import ConfigError
from geojax.models.registry import SyntheticConfig
from testbed.faults import apply_faults
from testbed.run import check, run
from testbed.wan.build import load_preset

EDGES = [("c1", "c2"), ("c2", "c1"), ("c1", "c3"), ("c3", "c1"), ("c2", "c3"), ("c3", "c2")]
NODES = ["scheduler", "c1", "c2", "c3"]


def config(faults: list[dict[str, Any]], testbed: str = "simulated", rounds: int = 40) -> RunConfig:
    made = RunConfig()
    made.wan = load_preset("three_centers")
    made.testbed.name, made.testbed.faults = testbed, faults
    made.model = SyntheticConfig(bytes=200_000, pace_s=0.02)
    made.rounds, made.hash_every, made.timeouts.dead = rounds, 1, 2.0
    return made


def events(run_dir: Path, *names: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    return [event for event in found if event["event"] in names]


ALL = ["c1", "c2", "c3"]


def fault(kind: str, at: float = 1, **fields: Any) -> dict[str, Any]:
    return {"at": at, "kind": kind, **fields}


def killed_and_back(node: str) -> list[dict[str, Any]]:
    return [fault("kill", node=node), fault("restart", at=2, node=node)]


BACK = killed_and_back("c2")
# name: script, workers per center, centers that hold the final model
SCRIPTS: dict[str, tuple[list[dict[str, Any]], int, list[str]]] = {
    "kill": ([fault("kill", node="c2")], 1, ["c1", "c3"]),
    "kill the root": ([fault("kill", node="c1")], 1, ["c2", "c3"]),
    "kill a worker": ([fault("kill", node="c2/w1")], 2, ALL),
    "restart": (BACK, 1, ALL),
    "restart of a center with workers": (BACK, 2, ALL),
    "restart of the root": (killed_and_back("c1"), 1, ALL),
    "restart of a worker": (killed_and_back("c2/w1"), 2, ALL),
    "short freeze": ([fault("freeze", node="c2", duration=1)], 1, ALL),
    "long freeze": ([fault("freeze", node="c2", duration=4)], 1, ALL),
    "slow": ([fault("slow", node="c2", duration=1, factor=20)], 1, ALL),
    "cut": ([fault("cut", between=["c1", "c2"], duration=1)], 1, ALL),
    "partition": ([fault("partition", centers=["c2"], duration=4)], 1, ALL),
    "partition to the end": ([fault("partition", centers=["c2"], duration=900)], 2, ["c1", "c3"]),
}


@pytest.mark.parametrize(("script", "workers", "finals"), SCRIPTS.values(), ids=SCRIPTS)
def test_the_run_goes_on_and_repeats_itself(
    tmp_path: Path, script: list[dict[str, Any]], workers: int, finals: list[str]
) -> None:
    made = config(script, rounds=24)
    made.lan.workers, made.model.pace_s = workers, 0.1
    summary = run(made, tmp_path / "a")
    assert summary["rounds"] == made.rounds
    final = events(tmp_path / "a", "final")
    assert sorted(event["node"] for event in final) == finals
    assert len({event["digest"] for event in final}) == 1
    told = events(tmp_path / "a", "fault")
    assert [event["kind"] for event in told] == [entry["kind"] for entry in script]
    run(made, tmp_path / "b")
    once, again = ((tmp_path / name / "events.jsonl").read_bytes() for name in "ab")
    assert once == again


def test_a_returned_center_has_the_same_parameters_from_then_on(tmp_path: Path) -> None:
    made = config(BACK, rounds=60)
    change(made, {"model": "mlp", "data": "digits", "optimizer": "adam", "lr": 0.01})
    run(made, tmp_path)
    (back,) = events(tmp_path, "back")
    rounds = [e for e in events(tmp_path, "round") if e["node"] == "c2" and e["t"] > back["t"]]
    assert len(rounds) > 10  # it took part; hash_every=1 compares all parameters every round
    assert len({event["digest"] for event in events(tmp_path, "final")}) == 1


def test_a_center_that_gave_the_scheduler_up_comes_back_when_the_partition_heals(
    tmp_path: Path,
) -> None:
    made = config([fault("partition", centers=["c2"], duration=9)], rounds=100)
    made.lan.workers = 2
    summary = run(made, tmp_path)
    center = {"c2": 1, "c2/w0": 1, "c2/w1": 1}
    assert summary["incidents"]["deaths"] == summary["incidents"]["returns"] == center
    assert {event["node"] for event in events(tmp_path, "final")} == {*ALL}
    assert len({event["digest"] for event in events(tmp_path, "final")}) == 1


def test_what_is_cut_carries_nothing_meanwhile(tmp_path: Path) -> None:
    script = [fault("cut", between=["c1", "c2"], duration=1.5)]
    run(config(script), tmp_path)
    held = [e["held"] for e in events(tmp_path, "round") if e["node"] == "c2"]
    longest = max(later - earlier for earlier, later in itertools.pairwise(held))
    assert 1.4 < longest < 1.8
    rates = events(tmp_path, "rates")
    assert [event["t"] for event in rates] == [1.0, 2.5]


def test_a_slow_center_holds_everybody_up(tmp_path: Path) -> None:
    slow = [fault("slow", node="c2", duration=1, factor=20)]
    times = {}
    for name, script in {"usual": [], "slow": slow}.items():
        times[name] = run(config(script), tmp_path / name)["time_s"]
    # steps of 0.02 s begun between 1 s and 2 s last 0.4 s at c2
    assert 0.38 * 2 < times["slow"] - times["usual"] < 0.38 * 4


def test_local_processes_freeze_die_and_come_back(tmp_path: Path) -> None:
    script = [*BACK, fault("freeze", at=3.5, node="c3", duration=0.7)]
    made = config(script, "local", rounds=200)
    run(made, tmp_path)
    assert [event["nodes"] for event in events(tmp_path, "back")] == [["c2"]]
    final = events(tmp_path, "final")
    assert sorted(event["node"] for event in final) == ["c1", "c2", "c3"]
    assert len({event["digest"] for event in final}) == 1
    held = [e["held"] for e in events(tmp_path, "round") if e["node"] == "c1"]
    stalls = [b for a, b in itertools.pairwise(held) if b - a > 0.6 and b > 3.5]
    assert stalls, "the frozen node held nobody up"


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("kill c1", "at: SECONDS"),
        ({"at": 1, "kind": "kil", "node": "c1"}, "did you mean 'kill'"),
        ({"at": 1, "kind": "kill"}, "takes exactly: at, kind, node"),
        ({"at": 1, "kind": "kill", "node": "c9"}, "valid: c1, c2, c3, scheduler"),
        ({"at": -1, "kind": "kill", "node": "c1"}, "of at least 0"),
        ({"at": True, "kind": "kill", "node": "c1"}, "seconds"),
        ({"at": 1, "kind": "restart", "node": "c1"}, "killed before"),
        ({"at": 1, "kind": "cut", "between": ["c1"], "duration": 1}, "no link is cut"),
        ({"at": 1, "kind": "cut", "between": "c1", "duration": 1}, "list of centers"),
        ({"at": 1, "kind": "partition", "centers": ["c1", "c2", "c3"], "duration": 1}, "no link"),
        ({"at": 1, "kind": "freeze", "node": "c1", "duration": float("inf")}, "seconds"),
    ],
)
def test_a_wrong_script_is_refused(entry: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        apply_faults(config([entry]), EDGES, NODES)


def test_the_factor_of_a_slow_down_is_checked_before_the_run() -> None:
    slow = fault("slow", node="c1", duration=1, factor=-2)
    with pytest.raises(ConfigError, match="factor"):
        check(config([slow]))


def test_a_partition_cuts_all_links_between_its_sides() -> None:
    partition = fault("partition", centers=["c2"], duration=2)
    changed, faults = apply_faults(config([partition]), EDGES, NODES)
    (outage,) = changed.wan.dynamics
    cut = {(link["from"], link["to"]) for link in outage["links"]}
    assert cut == {edge for edge in EDGES if "c2" in edge}
    assert [told.kind for told in faults] == ["partition"]
