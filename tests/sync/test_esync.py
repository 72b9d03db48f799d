"""ESync in whole simulated runs: against plain loops, local steps and FSA, and under faults."""

import logging
from itertools import pairwise

import numpy as np
import pytest
from esync_by_hand import steps_of_a_round, train
from simulated_runs import kill, simulated, small_config

from geojax.config import WanConfig
from geojax.errors import ConfigError
from geojax.sync.registry import SYNCS, build_sync
from testbed.run import check
from testbed.simulated.transport import SimulatedTransport

FAST, SLOW = 0.0233, 3.5
FAST_ONES = [f"c{number}" for number in range(1, 7)]


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def steps_by_node(outcome):
    taken = {}
    for event in outcome.of("steps"):
        taken.setdefault(event["node"], []).append(event["steps"])
    return taken


def distance(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


# ---- against what is too simple to be wrong


DIGITS = {
    "model__name": "mlp",
    "data__name": "digits",
    "batch_size": 8,
    "lr": 0.1,
    "eval_every_s": 100.0,
    "partition__name": "size_skew",
    "partition__skew": 3.0,
    "overlay__chunk_elements": 1000,
}


def three_paces(**settings):
    """Three centers near each other whose steps last 0.13, 0.3 and 1 s."""
    training = {
        "rounds": 4, "sync__name": "esync",
        "pace__centers": {"c1": 13.0, "c2": 30.0, "c3": 100.0},
    }  # fmt: skip
    config = small_config(**{**training, **settings})
    config.wan = WanConfig(name="near", generator="uniform", centers=3, rate=1000.0, rtt=1.0)
    config.model.pace_s = 0.01
    return config


@pytest.mark.parametrize("least", [1, 2])
def test_it_is_the_plain_loop(least):
    config = three_paces(**DIGITS, sync__min_local_steps=least)
    outcome, names = simulated(config), ["c1", "c2", "c3"]
    by_hand, rounds = train(config, names, [0.13, 0.3, 1.0], [0.0] * 3, [0.0, 0.001, 0.001])
    assert [*map(list, zip(*steps_by_node(outcome).values(), strict=True))] == rounds
    assert rounds[1] == {1: [7, 3, 1], 2: [15, 6, 2]}[least]
    assert distance(outcome.final, by_hand) <= 1e-5


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_with_equal_paces_it_is_local_steps_step_by_step(momentum):
    settings = {"pace__centers": {}, "optimizer__momentum": momentum}
    config = three_paces(**DIGITS, sync__weights="uniform", **settings)
    one = simulated(config)
    config.sync = SYNCS.settings("local_steps", local_steps=1)
    two = simulated(config)
    assert {event["steps"] for event in one.of("steps")} == {1}
    np.testing.assert_array_equal(one.final, two.final)
    assert one.rounds_of("c2") == two.rounds_of("c2") == [0, 1, 2, 3]


def test_with_equal_paces_it_is_fsa_step_by_step():
    config = three_paces(**DIGITS, sync__weights="uniform", pace__centers={})
    one = simulated(config).final
    config.sync = SYNCS.settings("fsa")
    assert distance(one, simulated(config).final) <= 1e-5


# ---- the journal's twelve


def twelve(rounds=4, **settings):
    """6 fast and 6 slow centers; a push lasts 50 ms and a question 2 ms (and 0.3 to be sent)."""
    site = {"rate": 8.42, "rtt": 2.0}
    config = small_config(
        rounds=rounds, elements=12_500, chunk_elements=12_500, sync__name="esync",
        timeouts__warn=1e6, **settings,
    )  # fmt: skip
    config.wan = WanConfig(
        name="twelve", generator="uniform", centers=12, server_center="external", external=site,
        **site,
    )  # fmt: skip
    config.model.pace_s = FAST
    config.pace.profile = {"kind": "two_groups", "h": SLOW / FAST}
    return config


@pytest.mark.parametrize("query", ["wait", "in_flight"])
def test_half_fast_half_slow_as_in_the_journal(query):
    outcome = simulated(twelve(sync__query=query))
    taken = steps_by_node(outcome)
    by_rule = steps_of_a_round([FAST] * 6 + [SLOW] * 6, [0.05] * 12, [0.002] * 12)
    for name, steps in taken.items():
        fast = name in FAST_ONES
        assert steps[0] == 1, "no step has been timed yet"
        if not fast:
            assert set(steps) == {1}
        elif query == "wait":
            assert steps[1:] == pytest.approx([by_rule[0]] * 3, abs=2)
        else:
            assert min(steps[1:]) >= by_rule[0], "answers cost nothing"
    busy = {
        name: sum(s.end - s.start for s in spans if s.name == "compute" and s.args["round"])
        for name, spans in outcome.spans.items()
        if name in taken
    }
    assert sum(busy.values()) / 12 / max(busy.values()) >= 0.95
    for number in range(1, 4):
        offered = {e["node"]: e["offered"] for e in outcome.of("round") if e["round"] == number}
        waits = [max(offered.values()) - offered[name] for name in FAST_ONES]
        assert max(waits) <= FAST + 2 * 0.0024
    assert [event["wrong"] for event in outcome.of("esync")] == [False] * 2
    assert max(event["error"] for event in outcome.of("esync")) < 0.01


def test_a_sudden_slow_down_costs_exactly_one_bad_round():
    config = three_paces()
    config.rounds = 9
    config.model.pace_s = 0.01
    config.pace.profile = {
        "kind": "slowdown", "center": "c1", "at": 3.2, "factor": 20, "duration": 100,
    }  # fmt: skip
    outcome = simulated(config)
    bad = []
    for number in range(1, 9):
        offered = {e["node"]: e["offered"] for e in outcome.of("round") if e["round"] == number}
        bad += [number] if max(offered.values()) - offered["c2"] > 0.3 + 0.002 else []
    assert len(bad) == 1
    taken = steps_by_node(outcome)
    assert (taken["c2"][1], taken["c2"][-1]) == (3, 8)
    assert (taken["c3"][1], taken["c3"][-1]) == (1, 2)
    assert [e["wrong"] for e in outcome.of("esync")].count(True) == 1


# ---- workers of a center


def test_each_local_server_aligns_the_workers_of_its_center():
    config = three_paces(sync__level="workers", workers=2, pace__centers={})
    config.pace.profile = {"kind": "two_groups", "h": 10}  # c2/w1 to c3/w1 are slow
    config.model.pace_s = 0.1
    outcome = simulated(config)
    taken = steps_by_node(outcome)
    assert taken["c1/w0"] == taken["c1/w1"] == [1, 1, 1, 1], "equal ones"
    assert (taken["c2/w0"][1:], taken["c2/w1"]) == ([9] * 3, [1] * 4)
    assert len(set(outcome.finals.values())) == 1
    hosts = {n for n, report in outcome.reports.items() if report["totals"].get("requests")}
    assert hosts == {"c1", "c2", "c3"}, "nothing of it goes over the WAN"


# ---- what was taken is state


@pytest.mark.parametrize("level", ["centers", "workers"])
def test_a_continued_run_takes_the_steps_of_a_whole_one(level, tmp_path):
    workers = 2 if level == "workers" else 1
    settings = {"checkpoint_every": 2, "sync__level": level, "workers": workers}

    def run(**more):
        config = three_paces(**settings, **more)
        config.rounds = 6
        if level == "workers":
            config.pace.profile, config.model.pace_s = {"kind": "two_groups", "h": 10}, 0.1
            config.pace.centers = {}
        return config

    whole = simulated(run())
    ends = {e["round"]: e["held"] for e in whole.of("round")}
    faults = [kill("scheduler", ends[3] + 0.5 * (ends[4] - ends[3]))]
    simulated(run(testbed__faults=faults), fails=True, folder=tmp_path)
    resumed = simulated(run(resume=True), folder=tmp_path)
    taken, expected = steps_by_node(resumed), steps_by_node(whole)
    assert {name: steps[-len(taken[name]) :] for name, steps in expected.items()} == taken
    assert len(taken["c1" if workers == 1 else "c1/w0"]) < 6
    np.testing.assert_array_equal(resumed.final, whole.final)


def test_who_comes_back_goes_on_in_its_data_where_the_scheduler_heard_it_last():
    config = three_paces(timeouts__dead=1.0, timeouts__heartbeat=0.1)
    config.rounds = 12
    heard = {}

    def note(event):
        if event["event"] == "steps" and event["node"] == "c1" and event["t"] < 4.5:
            heard["steps"] = heard.get("steps", 0) + event["steps"]

    config.testbed.faults = [kill("c1", 4.5), {"at": 6.0, "kind": "restart", "node": "c1"}]
    begun = []
    from geojax.hips.roles.worker import Worker

    original = Worker.catch_up

    async def spy(self, number, taken=None):
        await original(self, number, taken)
        begun.append((number, taken, self.trainer.steps))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "catch_up", spy)
        outcome = simulated(config, watch=note)
    ((number, taken, position),) = begun
    assert position == taken >= heard["steps"] > number, "rounds alone would say less"
    assert taken - heard["steps"] <= 7, "no more than what is not yet offered"
    assert {last for last, _ in outcome.finals.values()} == {11}
    assert len(set(outcome.finals.values())) == 1


# ---- broken members


FAULTS = {
    "dies": [kill("c3", 2.5)],
    "freezes": [{"at": 2.5, "kind": "freeze", "node": "c3", "duration": 60}],
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_straggler_that_breaks_holds_nobody_up_beyond_the_bound(what):
    config = three_paces(timeouts__dead=3.0, testbed__faults=FAULTS[what])
    config.rounds = 8
    outcome = simulated(config)
    assert set(outcome.finals) >= {"c1", "c2"}
    assert len({outcome.finals[name] for name in ("c1", "c2")}) == 1
    offers = [e["offered"] for e in outcome.of("round") if e["node"] == "c1"]
    assert max(b - a for a, b in pairwise(offers)) < 3.0 + 2 * 1.0 + 1.0
    assert steps_by_node(outcome)["c2"][-1] == 1, "c2 is the straggler now"


LIES = {
    "negative": {"step_s": -1.0},
    "NaN": {"step_s": float("nan")},
    "huge": {"step_s": 1e300},
    "a push that never ends": {"push_s": 1e9},
}


@pytest.mark.parametrize("lie", [*LIES, "flood"])
def test_absurd_times_and_floods_are_named_and_hold_nobody_up(lie, monkeypatch):
    send, honest = SimulatedTransport.send, SimulatedTransport.send

    def lying(self, peer, message, priority=0):
        body = message.body or {}
        if self.name == "c2" and body.get("type") == "request" and body["question"]["round"] == 2:
            if lie == "flood":
                for more in range(2000):
                    again = {**body, "number": body["number"] + more}
                    send(self, peer, type(message)(message.kind, body=again), priority)
                return
            question = {**body["question"], **LIES[lie]}
            message = type(message)(message.kind, body={**body, "question": question})
        send(self, peer, message, priority)

    config = three_paces(timeouts__dead=2.0)
    config.rounds = 6
    expected = steps_by_node(simulated(config))
    monkeypatch.setattr(SimulatedTransport, "send", lying)
    outcome = simulated(config)
    monkeypatch.setattr(SimulatedTransport, "send", honest)
    refused = [event for event in outcome.of("refused") if event["node"] == "scheduler"]
    assert {event["peer"] for event in refused} == {"c2"}
    assert set(outcome.finals) == {"c1", "c3"}
    taken = steps_by_node(outcome)
    assert taken["c1"][:2] + taken["c1"][3:] == expected["c1"][:2] + expected["c1"][3:]
    assert set(taken["c3"]) == {1}, "its row has not moved"
    ends = [e["held"] for e in outcome.of("round") if e["node"] == "c1"]
    assert max(b - a for a, b in pairwise(ends)) < 2.0 + 1.0 + 1.5


# ---- determinism


def test_events_of_chunks_under_faults_are_the_same_on_replay():
    def run(**settings):
        config = three_paces(
            events="chunk", timeouts__dead=1.5, **settings,
            testbed__faults=[kill("c2", 2.2), {"at": 4.0, "kind": "restart", "node": "c2"}],
        )  # fmt: skip
        config.rounds = 8
        config.wan.loss = 0.01
        config.pace.profile = {"kind": "jitter", "distribution": "lognormal", "spread": 0.2}
        return simulated(config)

    for settings in ({}, {"sync__query": "in_flight"}):
        one, two = run(**settings), run(**settings)
        assert one.lines() == two.lines()
        assert one.of("reduced")
        assert run(seed=1, **settings).lines() != one.lines()


# ---- settings


@pytest.mark.parametrize(
    ("settings", "key", "says"),
    [
        ({"min_local_steps": 3, "max_local_steps": 2}, "sync.min_local_steps",
         "sync.max_local_steps = 2; use sync.min_local_steps=2, or sync.max_local_steps=3"),
        ({"min_local_steps": 0}, "sync.min_local_steps", "at least 1"),
        ({"variant": "journl"}, "sync.variant", "did you mean 'journal'"),
        ({"level": "center"}, "sync.level", "did you mean 'centers'"),
        ({"guard_s": -1.0}, "sync.guard_s", "at least 0"),
        ({"evict_after_s": 0.0}, "sync.evict_after_s", "more than 0"),
        ({"query": "later"}, "sync.query", "in_flight"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(settings, key, says):
    with pytest.raises(ConfigError) as caught:
        build_sync(SYNCS.settings("esync", **settings))
    assert caught.value.key == key
    assert says in caught.value.fix


@pytest.mark.parametrize(("level", "workers"), [("centers", 2), ("workers", 1)])
def test_a_level_that_the_cluster_does_not_have_is_refused_with_both_keys(level, workers):
    with pytest.raises(ConfigError) as caught:
        check(small_config(sync__name="esync", sync__level=level, workers=workers))
    assert caught.value.key == "sync.level"
    assert "lan.workers" in caught.value.fix
    assert "sync.level=" in caught.value.fix


def test_the_variants_differ_in_guard_and_weights():
    weights = {variant: build_sync(SYNCS.settings("esync", variant=variant)).weights
               for variant in ("journal", "preprint")}  # fmt: skip
    assert weights == {"journal": "samples", "preprint": "steps"}
    one, two = (steps_by_node(simulated(three_paces(sync__variant=variant)))
                for variant in ("journal", "preprint"))  # fmt: skip
    assert two["c1"][1] < one["c1"][1], "half a second of guard"
