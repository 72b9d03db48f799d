"""ESync at two levels: workers within centers, and centers by their inner synchronizations."""

import logging

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config
from test_esync import distance, steps_by_node

from geojax.config import WanConfig
from geojax.sync.registry import SYNCS

# Seconds of a step: c1 is fast, c2 has a slow worker, c3 is slow.
PACES = {"c1": 0.1, "c2": 0.3, "c3": 1.0}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def two_levels(**settings):
    training = {
        "rounds": 4, "sync__name": "esync", "sync__level": "both", "workers": 2,
        "pace__centers": PACES,
    }  # fmt: skip
    config = small_config(**{**training, **settings})
    config.wan = WanConfig(name="near", generator="uniform", centers=3, rate=1000.0, rtt=1.0)
    config.model.pace_s = 1.0
    return config


def inner_rounds(outcome):
    taken = {}
    for event in outcome.of("inner_rounds"):
        taken.setdefault(event["node"], []).append(event["steps"])
    return taken


def test_fast_centers_exchange_within_themselves_for_as_long_as_the_slow_one_needs():
    outcome = simulated(two_levels())
    rounds = inner_rounds(outcome)
    assert rounds["c3"] == [1, 1, 1, 1]
    assert rounds["c2"] == [1, 3, 3, 3]
    assert rounds["c1"][0] == 1
    assert rounds["c1"][1:] == pytest.approx([9] * 3, abs=1)
    assert len(set(outcome.finals.values())) == 1
    ends = [(e["node"], e["round"]) for e in outcome.of("round")]
    assert sorted(ends) == sorted((f"{c}/w{w}", r) for c in PACES for w in (0, 1) for r in range(4))


def test_within_each_of_them_its_workers_are_aligned_too():
    config = two_levels(pace__centers={"c1": 0.1, "c2": 0.1, "c3": 1.0})
    config.pace.profile = {"kind": "two_groups", "h": 5}  # c2/w1, c3/w0 and c3/w1 are slow
    outcome = simulated(config)
    taken, rounds = steps_by_node(outcome), inner_rounds(outcome)
    assert set(taken["c2/w1"]) == {1}
    assert max(taken["c2/w0"]) in (4, 5), "beside a worker that is five times as slow"
    assert rounds["c3"] == [1] * 4
    assert rounds["c2"][-1] == pytest.approx(10, abs=1)
    assert rounds["c1"][-1] == pytest.approx(48, abs=3)


def test_with_one_inner_exchange_at_most_it_is_the_workers_level():
    one = simulated(two_levels(sync__max_lan_rounds=1))
    two = simulated(two_levels(sync__level="workers", sync__max_lan_rounds=None))
    assert distance(one.final, two.final) <= 1e-6
    assert steps_by_node(one) == steps_by_node(two)


def test_equal_centers_make_local_steps():
    config = two_levels(pace__centers={}, sync__weights="uniform")
    one = simulated(config)
    config.sync = SYNCS.settings("local_steps", local_steps=1)
    assert {event["steps"] for event in one.of("inner_rounds")} == {1}
    assert distance(one.final, simulated(config).final) <= 1e-6


@pytest.mark.parametrize("at", [1.55, 2.35])
@pytest.mark.parametrize("node", ["c1/w1", "c2", "c1"])
def test_the_others_go_on_when_a_worker_or_a_center_dies_and_it_comes_back(node, at):
    faults = [kill(node, at), {"at": at + 2.5, "kind": "restart", "node": node}]
    config = two_levels(
        timeouts__dead=1.0, timeouts__heartbeat=0.1, rounds=10, testbed__faults=faults
    )
    outcome = simulated(config)
    assert set(outcome.finals) == {"c1", "c2", "c3"}
    assert len(set(outcome.finals.values())) == 1
    assert {last for last, _ in outcome.finals.values()} == {9}
    assert inner_rounds(outcome)["c1"][-1] == pytest.approx(9, abs=1)
    worker = node if "/" in node else f"{node}/w0"
    assert outcome.rounds_of(worker)[-1] == 9


@pytest.mark.nightly
def test_deaths_at_any_moment():
    for number in range(60):
        at = 1.0 + 0.037 * number
        config = two_levels(
            timeouts__dead=1.0, timeouts__heartbeat=0.1, rounds=8,
            testbed__faults=[kill(("c1/w1", "c2/w0", "c1")[number % 3], at)],
        )  # fmt: skip
        outcome = simulated(config)
        assert len(set(outcome.finals.values())) == 1, at
        assert {last for last, _ in outcome.finals.values()} == {7}, at


def test_it_goes_on_from_a_checkpoint(tmp_path):
    settings = {"checkpoint_every": 2, "rounds": 6}
    whole = simulated(two_levels(**settings))
    ends = {e["round"]: e["held"] for e in whole.of("round")}
    faults = [kill("scheduler", 0.5 * (ends[4] + ends[3]))]
    simulated(two_levels(testbed__faults=faults, **settings), fails=True, folder=tmp_path)
    resumed = simulated(two_levels(resume=True, **settings), folder=tmp_path)
    assert resumed.rounds_of("c1/w0") == [4, 5]
    assert len(set(resumed.finals.values())) == 1
    assert np.isfinite(resumed.final).all()


def test_events_are_the_same_on_replay():
    faults = [kill("c1/w1", 2.35), {"at": 4.0, "kind": "restart", "node": "c1/w1"}]
    one, two = (
        simulated(two_levels(events="chunk", timeouts__dead=1.0, rounds=6, testbed__faults=faults))
        for _ in range(2)
    )
    assert one.lines() == two.lines()
