"""A broken asynchronous run goes on from a cut: no update is lost or counts twice."""

import json
import logging
import shutil
from collections import Counter, defaultdict

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config

from geojax.errors import ConfigError, GeojaxError
from geojax.hips.storage.checkpoint import Checkpoints
from testbed.run import run

CENTERS = ("c1", "c2", "c3")
EXTERNAL = {"wan__server_center": "external", "wan__external": {"rate": 100.0, "rtt": 40.0}}
ROUNDS = 12
# Every element is a chunk of its own.
MULTIGPS = {"overlay__name": "multigps", "overlay__servers": 2, "elements": 12}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def settings_of(sync, **others):
    steps = {} if sync in ("mixed_sync", "ssp") else {"sync__local_steps": 2}
    return {"sync__name": sync, "rounds": ROUNDS, "checkpoint_every": 3, **steps, **others}


def break_at(at, folder, settings, *, faults=(), resume=False):
    broken = small_config(testbed__faults=[*faults, kill("scheduler", at)], **settings)
    broken.resume = resume
    with pytest.raises(GeojaxError, match="scheduler"):
        run(broken, folder)


def events_of(folder):
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def check_merges(events, name="applied"):
    """Every shard has every version once, and every push in one of them at most."""
    applied = [event for event in events if event["event"] == name]
    assert applied
    pushes = Counter((e["node"], e["chunk"], e["center"], e["round"]) for e in applied)
    assert set(pushes.values()) == {1}
    versions = defaultdict(set)
    for event in applied:
        versions[event["node"], event["chunk"]].add(event["version"])
    for found in versions.values():
        assert found == set(range(1, max(found) + 1))
    return pushes


ROWS = [
    ("mixed_sync", [0.3], {"workers": 2, "sync__compensation": "adaptive"}),
    ("mixed_sync", [0.4, 0.5], {"overlay__name": "sharded_star"}),
    ("ssp", [0.35, 0.5], {**MULTIGPS, **EXTERNAL}),
    ("ssp", [0.21], {"sync__s": 0}),
    ("fedbuff", [0.25, 0.4], {**MULTIGPS, "workers": 2}),
    ("fedbuff", [0.3], {"compression__name": "bisparse"}),
    ("fedasync", [0.4], EXTERNAL),
    ("async_diloco", [0.3], {"workers": 2}),
    ("fedat", [0.4], {"overlay__name": "sharded_star"}),
    ("quorum", [0.3], {}),
    ("dc_aha", [0.3], {}),
    ("halos", [0.25, 0.4], {"workers": 2, "sync__offers": 3}),
]


@pytest.mark.parametrize(("sync", "breaks", "others"), ROWS, ids=lambda value: str(value)[:30])
def test_every_push_counts_once_and_two_continuations_are_alike(sync, breaks, others, tmp_path):
    settings, first = settings_of(sync, **others), tmp_path / "first"
    for nth, at in enumerate(breaks):
        break_at(at, first, settings, resume=nth > 0)
    kept = {int(path.stem.split("_")[1]) for path in first.glob("checkpoints/c1/*")}
    assert max(kept) > 0, "it goes on from a cut"
    shutil.copytree(first, tmp_path / "second")
    summary = run(small_config(resume=True, **settings), first)
    run(small_config(resume=True, **settings), tmp_path / "second")
    for name in ("events.jsonl", "models/final.npy"):
        assert (first / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    events, workers = events_of(first), others.get("workers", 1)
    assert any(event["event"] == "start" and event["t"] > 0.05 for event in events)
    pushes = check_merges(events)
    shards = len({push[:2] for push in pushes})
    assert len(pushes) == shards * len(CENTERS) * ROUNDS
    rounds = Counter((e["node"], e["round"]) for e in events if e["event"] == "round")
    assert set(rounds.values()) == {1}
    if sync == "halos":  # whose workers have rounds of their own
        assert len(rounds) == len(CENTERS) * ROUNDS
        check_merges(events, "lan_applied")
        rounds = Counter((e["node"], e["round"]) for e in events if e["event"] == "lan_round")
        assert set(rounds.values()) == {1}
    else:
        assert len(rounds) == workers * len(CENTERS) * ROUNDS
    assert len(rounds) == summary["steps"] / (1 if sync in ("mixed_sync", "ssp") else 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_where_the_order_of_pushes_does_not_matter_the_model_is_the_unbroken_run_s(
    workers, tmp_path
):
    """The synthetic model's gradients are small whole numbers, the same at any parameters."""
    settings = settings_of("mixed_sync", workers=workers)
    whole = simulated(small_config(**settings))
    broken = small_config(testbed__faults=[kill("scheduler", 0.3)], **settings)
    simulated(broken, fails=True, folder=tmp_path)
    resumed = simulated(small_config(resume=True, **settings), folder=tmp_path)
    np.testing.assert_array_equal(resumed.final, whole.final)
    for node in CENTERS if workers == 1 else [f"{c}/w{w}" for c in CENTERS for w in range(2)]:
        ours, theirs = resumed.reports[node], whole.reports[node]
        assert ours["steps"] == theirs["steps"] == ROUNDS
        assert ours["totals"]["samples"] == theirs["totals"]["samples"]


@pytest.mark.parametrize(
    ("sync", "overlay", "faults"),
    [
        ("fedbuff", "star", [kill("c3", 0.1), {"at": 0.25, "kind": "restart", "node": "c3"}]),
        ("ssp", "sharded_star", [kill("c1", 0.35)]),  # a server: its shard moves after the last cut
        ("mixed_sync", "sharded_star", [kill("c3", 0.3)]),
    ],
)
def test_deaths_before_the_break(sync, overlay, faults, tmp_path):
    """A run that goes on has everybody again, from before a death for good."""
    settings = settings_of(sync, overlay__name=overlay)
    break_at(0.6, tmp_path, settings, faults=faults)
    run(small_config(resume=True, **settings), tmp_path)
    events = events_of(tmp_path)
    pushes = check_merges(events)
    done = {(event["node"], event["round"]) for event in events if event["event"] == "round"}
    assert done >= {(center, ROUNDS - 1) for center in CENTERS}
    if len(faults) == 1:
        assert not [event for event in events if event["event"] == "shard_moved"]
        assert len({push[:2] for push in pushes}) == len(CENTERS)


def test_accuracy_is_followed_without_a_gap_and_reaches_its_target(tmp_path):
    settings = settings_of(
        "mixed_sync", sync__compensation="adaptive", model__name="mlp", data__name="digits",
        batch_size=8, lr=0.05, rounds=20, eval_every_s=0.1, target_accuracy=0.5,
        overlay__chunk_elements=4000, overlay__name="sharded_star",
        checkpoint_every=12, target_over="evaluations",
    )  # fmt: skip
    break_at(0.5, tmp_path, settings)
    before = [e["accuracy"] for e in events_of(tmp_path) if e["event"] == "evaluation"]
    summary = run(small_config(resume=True, **settings), tmp_path)
    found = [event for event in events_of(tmp_path) if event["event"] == "evaluation"]
    *grid, last = [event["t"] for event in found]
    np.testing.assert_allclose(grid, 0.1 * np.arange(len(grid)))
    assert last > grid[-1] > 0.5
    accuracy = [event["accuracy"] for event in found]
    kept = int(next(e["t"] for e in events_of(tmp_path)[::-1] if e["event"] == "start") / 0.1) + 1
    assert 1 < kept < len(before), "some were after the cut"
    assert accuracy[:kept] == before[:kept]
    means = np.convolve(accuracy, np.ones(3) / 3, "valid")  # the target is for three in a row
    reached = 2 + int(np.argmax(means >= 0.5))
    assert means[reached - 2] >= 0.5
    assert reached >= kept, "in the continuation"
    assert summary["time_to_target_s"] == found[reached]["t"]


def test_a_cut_has_what_the_servers_know_of_every_center(tmp_path):
    settings = settings_of("mixed_sync", sync__compensation="adaptive", overlay__root="c2")
    simulated(small_config(**settings), folder=tmp_path)
    cuts = Checkpoints(tmp_path / "checkpoints", "c2")
    kept = cuts.read(min(cuts.rounds()))[1]["shards"][0]
    assert kept["version"] == sum(last + 1 for last in kept["progress"].values()) > 0
    assert sorted(kept["progress"]) == sorted(kept["backups"]) == [*CENTERS]
    assert [*kept["merge"]], "the mean of squares"


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ({}, {"overlay__name": "multigps", "overlay__servers": 3}, "that it had before"),
        ({}, {"sync__name": "fsa", "sync__local_steps": None}, r"resume = True: .*start anew"),
        (
            {"sync__name": "fsa", "sync__local_steps": None, "rounds": 12},
            {},
            r"resume = True: .*start anew",
        ),
        (
            {"workers": 2},
            {"workers": 2, "sync__name": "halos"},
            r"resume = True: .*every center's own, unlike sync=halos; start anew",
        ),
        (
            {"workers": 2, "sync__name": "halos", "sync__offers": 2, "rounds": 4},
            {"workers": 2},
            r"resume = True: .*every worker's own, unlike sync=ssp; start anew",
        ),
    ],
)
def test_a_run_of_another_kind_does_not_go_on(first, then, message, tmp_path):
    settings = settings_of("ssp")
    simulated(small_config(**{**settings, **first}), folder=tmp_path)
    with pytest.raises(GeojaxError, match=message):
        simulated(small_config(**{**settings, **then, "resume": True}), folder=tmp_path)


def test_models_without_values_keep_no_cuts(tmp_path):
    settings = settings_of("fedbuff", compression__name="size_only")
    with pytest.raises(ConfigError, match=r"checkpoint_every = 3: compression=size_only .*use 0"):
        simulated(small_config(**settings), folder=tmp_path)
