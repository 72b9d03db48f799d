"""A broken run of HALoS goes on from a cut: local servers, offers under way, workers, returns."""

import logging

import numpy as np
import pytest
from simulated_runs import kill, small_config
from test_resumed_asynchronous import (
    CENTERS,
    EXTERNAL,
    MULTIGPS,
    break_at,
    check_merges,
    events_of,
)

from geojax.center.trainer import build_trainer
from geojax.hips.storage.checkpoint import Checkpoints, resume_point
from geojax.wire.message import Kind
from testbed.run import run

OFFERS, ROUNDS, STEPS = 5, 8, 2
WORKERS = tuple(f"{center}/w{at}" for center in CENTERS for at in range(2))
SUMS = {"sync__share": 1.0, "pace__centers": {"c1": 1.3}}  # servers of a synthetic model add up
FAST = {"timeouts__dead": 0.3, "timeouts__heartbeat": 0.05}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def settings_of(**others):
    return {
        "sync__name": "halos", "sync__offers": OFFERS, "sync__local_steps": STEPS,
        "sync__dylu": False, "workers": 2, "rounds": ROUNDS, "checkpoint_every": 2, **others,
    }  # fmt: skip


def restart(node, at):
    return {"at": at, "kind": "restart", "node": node}


def point_of(folder):
    return resume_point(folder / "checkpoints", [*CENTERS, *WORKERS])


def last_cut(folder, node):
    """What the newest checkpoint of a node has."""
    own = Checkpoints(folder / "checkpoints", node)
    return own.read(max(own.rounds()))[1]


def in_offers(events):
    """The (worker, LAN round) whose pushes are in an offer: K behind the last parameters' mixing.

    Every center's first offers, one a round.
    """
    found = []
    for center in CENTERS:
        mine = [e for e in events if e["event"] == "lan_applied" and e["node"] == center]
        count, mixed = 0, 0
        for event in sorted(mine, key=lambda event: event["version"]):
            if event["center"] == center:
                assert event["round"] == mixed
                count, mixed = 0, mixed + 1
                continue
            count += 1
            if count <= OFFERS and mixed < ROUNDS:
                found.append((event["center"], event["round"]))
    return found


def sum_of(pushes, config):
    """The sum of what workers have pushed: steps of a synthetic model depend on their number."""
    total = None
    for name, number in pushes:
        empty = np.zeros(0, np.float32)
        trainer = build_trainer(
            config, features=empty, labels=empty, worker_index=WORKERS.index(name),
            worker_count=len(WORKERS),
        )  # fmt: skip
        trainer.skip_to(STEPS * number)
        trainer.load(np.zeros(trainer.spec.size, np.float32) if total is None else total)
        for _ in range(STEPS):
            trainer.step()
        total = trainer.vector()
    return total


@pytest.mark.parametrize(
    ("breaks", "others"),
    [
        ([0.2, 0.36, 0.55], {}),
        ([0.4], {**MULTIGPS, **EXTERNAL}),
    ],
)
def test_the_model_is_the_sum_of_the_pushes_that_are_in_offers(breaks, others, tmp_path):
    """Also where an offer was under way: it is made again of the pushes that were in it."""
    settings, under_way = settings_of(**SUMS, **others), set()
    for nth, at in enumerate(breaks):
        break_at(at, tmp_path, settings, resume=nth > 0)
        number = point_of(tmp_path).round
        for center in CENTERS:
            _, kept = Checkpoints(tmp_path / "checkpoints", center).read(number)
            under_way.add(kept["lan"]["offered"] is not None)
    assert under_way == {True, False}
    summary = run(small_config(resume=True, **settings), tmp_path)
    events = events_of(tmp_path)
    check_merges(events)
    pushes = check_merges(events, "lan_applied")
    found = in_offers(events)
    assert len(found) == len(CENTERS) * ROUNDS * OFFERS
    expected = sum_of(found, small_config(**settings))
    np.testing.assert_array_equal(np.load(tmp_path / "models" / "final.npy"), expected)
    mine = [push for push in pushes if push[2] in WORKERS]
    assert summary["steps"] == STEPS * len(mine)
    for center in CENTERS:  # what was sent in all sessions counts
        lan = last_cut(tmp_path, center)["lan"]
        progress, chunks = lan["shards"][0]["progress"], len(lan["shards"][0]["chunks"])
        for name, sent in lan["sent"].items():
            answers = sent["messages"][str(int(Kind.RESULT))] / chunks
            assert progress[name] <= answers <= progress[name] + 1, "one may be on its way"


FAULTS = {
    "a worker": [kill("c2/w1", 0.15), restart("c2/w1", 0.6)],
    "a local server": [kill("c2", 0.15), restart("c2", 0.6)],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_cuts_go_on_when_who_died_is_back_and_a_broken_run_goes_on_from_one(faults, tmp_path):
    settings = settings_of(rounds=12, **FAST)
    break_at(1.1, tmp_path, settings, faults=faults)
    back = max(e["t"] for e in events_of(tmp_path) if e["event"] == "epoch")
    assert 0.6 < back < point_of(tmp_path).time, "the last cut is of everybody again"
    run(small_config(resume=True, **settings), tmp_path)
    events = events_of(tmp_path)
    check_merges(events, "lan_applied")
    last = {e["node"]: e["round"] for e in events if e["event"] == "final"}
    assert last == dict.fromkeys(CENTERS, 11)
    assert not [e for e in events if e["event"] == "refused"]


def test_no_cut_is_whole_while_a_worker_is_dead(tmp_path):
    settings = settings_of(rounds=10, **FAST)
    break_at(0.8, tmp_path, settings, faults=[kill("c2/w1", 0.3)])
    assert 0 < point_of(tmp_path).time <= 0.3
    run(small_config(resume=True, **settings), tmp_path)
    events = events_of(tmp_path)
    check_merges(events)
    check_merges(events, "lan_applied")
    rounds = {e["node"]: e["round"] for e in events if e["event"] == "round"}
    assert rounds == dict.fromkeys(CENTERS, 9), "a run that goes on has everybody again"


def test_a_damaged_newest_cut_is_passed_over(tmp_path):
    node = "c1/w0"
    settings = settings_of(**SUMS)
    break_at(0.5, tmp_path, settings)
    newest = point_of(tmp_path)
    own = Checkpoints(tmp_path / "checkpoints", node)
    (path,) = (tmp_path / "checkpoints" / node.replace("/", "_")).glob(f"*{newest.round}.npz")
    path.write_bytes(path.read_bytes()[:-30])
    before = point_of(tmp_path)
    assert 0 < before.round < newest.round
    assert before.round in own.rounds()
    run(small_config(resume=True, **settings), tmp_path)
    events = events_of(tmp_path)
    assert [e["t"] for e in events if e["event"] == "resumed"] == [before.time]
    expected = sum_of(in_offers(events), small_config(**settings))
    np.testing.assert_array_equal(np.load(tmp_path / "models" / "final.npy"), expected)


@pytest.mark.parametrize(
    ("sync", "node"),
    [
        ({"rounds": 20}, "c2/w1"),
        ({"rounds": 40, "sync__name": "fsa", "sync__local_steps": None}, "c2"),
    ],
)
def test_who_comes_back_when_the_first_checkpoint_of_a_continued_run_is_replaced(
    sync, node, tmp_path
):
    settings = settings_of(**FAST) if "sync__name" not in sync else {"checkpoint_every": 2, **FAST}
    settings = {"workers": 2, **settings, **sync}
    break_at(0.25, tmp_path, settings)
    began = resume_point(tmp_path / "checkpoints", [*CENTERS, *WORKERS]).round
    faults = [kill(node, 1.0), restart(node, 1.4)]
    run(small_config(resume=True, testbed__faults=faults, **settings), tmp_path)
    assert began not in Checkpoints(tmp_path / "checkpoints", node).rounds()
    events = events_of(tmp_path)
    assert {e["node"] for e in events if e["event"] == "final"} == {*CENTERS}
    epochs = [set(e["members"]) for e in events if e["event"] == "epoch"]
    assert node not in epochs[0]
    assert node in epochs[-1]
