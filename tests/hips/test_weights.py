"""An offer may weigh what its sender's subtree can carry, and no more; so with its steps."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from simulated_runs import simulated, small_config

from geojax.assemble.allowances import of_centers, of_lan, of_workers
from geojax.hips.exchange.contribution import Allowance, Allowances, Share, together
from geojax.sync.registry import build_sync
from geojax.wire.message import Kind, Message
from testbed.run import prepare
from testbed.simulated.transport import SimulatedTransport

ROUNDS = 4
# By what is sent: who sends it, in which run; then weights that it cannot have.
OFFERS = {
    "a center's": ("c3", {}, (0.5, 1.5, 1000.0)),
    "that of two centers": ("c2", {"overlay__name": "ring"}, (2.5,)),
    "a worker's": ("c3/w1", {"workers": 2}, (1.5,)),
    "that of a center of two workers": ("c3", {"workers": 2}, (2.5,)),
    "a center's that counts by samples": ("c3", {"sync__name": "hierfavg"}, (0.9, 1.1)),
    "a push": ("c3", {"sync__name": "fedasync"}, (1000.0,)),
    "a push of a worker": ("c3/w1", {"sync__name": "halos", "workers": 2}, (1000.0,)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def config(**settings):
    return small_config(**{
        "rounds": ROUNDS, "model__name": "mlp", "model__hidden": [8], "data__name": "digits",
        "eval_every_s": 100.0, "overlay__chunk_elements": 400,
        "timeouts__dead": 0.5, "timeouts__heartbeat": 0.1,
        "data__train_samples": 60, "data__test_samples": 10, **settings,
    })  # fmt: skip


def run(monkeypatch, settings, liar="", kind=Kind.OFFER, **fields):
    """One message of the liar, of round 2, has other fields; of an honest run none."""
    send, told = SimulatedTransport.send, []

    def lying(self, peer, message, priority=0):
        mine = self.name == liar and message.kind is kind and message.payload is not None
        if mine and message.round >= 2 and not told:
            told.append(message)
            message = replace(message, **fields)
        send(self, peer, message, priority)

    with monkeypatch.context() as patch:
        patch.setattr(SimulatedTransport, "send", lying)
        outcome = simulated(config(**settings))
    assert bool(told) == bool(liar)
    return outcome


@pytest.mark.parametrize("what", OFFERS)
def test_a_weight_that_nobody_can_carry_is_refused_by_name_and_changes_no_result(what, monkeypatch):
    liar, settings, weights = OFFERS[what]
    along_trees = build_sync(config(**settings).sync).admission.exchange == "tree"
    honest = run(monkeypatch, settings) if along_trees else None
    assert honest is None or not honest.of("refused")
    contributors = [{"contributors": 9}] if what in ("a center's", "a push") else []
    for fields in [{"weight": weight} for weight in weights] + contributors:
        outcome = run(monkeypatch, settings, liar, **fields)
        (event,) = outcome.of("refused")
        assert event["peer"] == liar
        assert event["why"].startswith(
            "expected a weight from" if "weight" in fields else "expected"
        )
        assert not outcome.of("dead")
        assert honest is None or outcome.finals == honest.finals


ESYNC = {"sync__name": "esync", "sync__min_local_steps": 2, "sync__max_local_steps": 4}
STEPS = {  # by what is sent: who sends it, in which run; then steps that it cannot stand for
    "a gradient": ("c3", {}, (0, 2)),
    "those of two centers": ("c2", {"overlay__name": "ring"}, (1, 3)),
    "a worker's delta": (
        "c3/w1", {"sync__name": "local_steps", "sync__local_steps": 3, "workers": 2}, (2, 4),
    ),
    "those of a center of two workers": (
        "c3", {"sync__name": "local_steps", "sync__local_steps": 3, "workers": 2}, (3, 5, 7),
    ),
    "several exchanges of a center": (
        "c3", {"sync__name": "hfa", "sync__lan_rounds": 3, "workers": 2}, (1, 13),
    ),
    "a number that is decided": ("c3", ESYNC, (1, 5)),
    "a number that is decided, of a worker": (
        "c3/w1", {**ESYNC, "sync__level": "workers", "workers": 2}, (1, 5),
    ),
    "a number that is decided, at two levels": (
        "c3", {**ESYNC, "sync__level": "both", "sync__max_lan_rounds": 3, "workers": 2}, (3, 49),
    ),
    "a push": ("c3", {"sync__name": "fedasync", "sync__local_steps": 3}, (2, 4)),
    "a push of a worker": (
        "c3/w1",
        {"sync__name": "halos", "sync__offers": 4, "sync__local_steps": 2, "workers": 2}, (1, 3),
    ),
    "pushes that make an offer": (
        "c3",
        {"sync__name": "halos", "sync__offers": 4, "sync__local_steps": 2, "workers": 2}, (3,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", STEPS)
def test_steps_that_nobody_can_have_taken_are_refused_by_name_and_change_no_result(
    what, monkeypatch
):
    liar, settings, numbers = STEPS[what]
    honest = run(monkeypatch, settings)
    assert not honest.of("refused")
    along_trees = build_sync(config(**settings).sync).admission.exchange == "tree"
    for steps in numbers:
        outcome = run(monkeypatch, settings, liar, steps=steps)
        (event,) = outcome.of("refused")
        assert event["peer"] == liar
        assert f"came {steps}" in event["why"]
        assert not outcome.of("dead")
        if along_trees and "decided" not in what:
            assert outcome.finals == honest.finals


@pytest.mark.parametrize(("liar", "settings", "numbers"), [
    ("c1", {}, (2, 4)),
    ("c1", {"workers": 2}, (5, 7)),
    ("c1", {"sync__name": "mixed_sync"}, (1,)),
])  # fmt: skip
def test_so_are_those_of_a_result(liar, settings, numbers, monkeypatch):
    for steps in numbers:
        outcome = run(monkeypatch, settings, liar, Kind.RESULT, steps=steps)
        assert {event["peer"] for event in outcome.of("refused")} == {"c1"}


def test_where_offers_may_be_skipped_they_stand_for_no_steps():
    setup, _, _ = prepare(config(workers=2, nonfinite="skip"), Path())
    center = of_centers(setup, build_sync(setup.config.sync))["c1"]
    told = {(w, s): not center.refuses(offer(w, 2, s)) for w in range(3) for s in range(4)}
    assert {each for each, may in told.items() if may} == {(0, 0), (1, 1), (1, 2), (2, 1), (2, 2)}


@pytest.mark.parametrize(("liar", "settings"), [("c1", {}), ("c1", {"workers": 2})])
def test_so_is_that_of_a_result(liar, settings, monkeypatch):
    for weight in (1.5, 3000.0):  # one of 1.5 is that of fewer contributors
        outcome = run(monkeypatch, settings, liar, Kind.RESULT, weight=weight)
        assert {event["peer"] for event in outcome.of("refused")} == {"c1"}
        assert outcome.finals == run(monkeypatch, settings).finals


def test_weights_by_samples_are_known_of_every_subtree():
    settings = {"workers": 2, "sync__name": "hierfavg", "partition__name": "size_skew"}
    setup, _, _ = prepare(config(**settings), Path())
    algorithm = build_sync(setup.config.sync)
    workers, centers = of_workers(setup, algorithm), of_centers(setup, algorithm)
    sizes = {name: len(part) for name, part in setup.parts().items()}
    assert len(set(sizes.values())) > 2
    for name, allowed in workers.items():
        assert allowed.shares == (Share(*(sizes[name] * 6 / 60,) * 2),)
    for center in setup.cluster.servers:
        mine = [workers[name] for name in setup.cluster.workers(center)]
        assert centers[center].shares == tuple(share for each in mine for share in each.shares)
        assert of_lan(setup, center, algorithm) == dict(
            zip(setup.cluster.workers(center), mine, strict=True)
        )
    everybody = together(centers.values())
    assert sum(share.most for share in everybody.shares) == pytest.approx(6)


def test_centers_that_count_the_same_have_one_vote_each():
    setup, _, _ = prepare(config(workers=2, sync__name="hfa"), Path())
    algorithm = build_sync(setup.config.sync)
    centers = of_centers(setup, algorithm)
    assert {each.shares for each in centers.values()} == {(Share(1.0, 1.0, 2),)}
    result = together(centers.values())
    told = {  # by number of workers in it: in how many centers they may be
        count: {w for w in range(5) if not result.refuses(offer(w, count, count))}
        for count in range(1, 8)
    }
    assert told == {1: {1}, 2: {1, 2}, 3: {2, 3}, 4: {2, 3}, 5: {3}, 6: {3}, 7: set()}


def test_where_offers_may_be_skipped_any_of_them_may_weigh_nothing():
    setup, _, _ = prepare(config(workers=2, nonfinite="skip"), Path())
    center = of_centers(setup, build_sync(setup.config.sync))["c1"]
    offers = {weight: offer(weight, 2, 2 * (weight > 0)) for weight in range(4)}
    assert {w for w, each in offers.items() if not center.refuses(each)} == {0, 1, 2}


def offer(weight, contributors, steps):
    return Message(Kind.OFFER, weight=float(weight), contributors=contributors, steps=steps)


def test_a_sum_of_many_is_checked_without_asking_each_for_its_steps():
    """Else a result cost more the more centers there are, at every center."""
    asked = []

    def steps_of(name):
        def steps(number):
            asked.append(name)
            return 1, 3

        return steps

    everybody = together(Allowance((Share(1.0, 1.0),), steps=steps_of(at)) for at in range(100))
    for _ in range(50):
        assert not everybody.refuses(offer(100, 100, 300))
        assert everybody.refuses(offer(100, 100, 301)).startswith("expected 100 to 300 steps")
    assert len(asked) == 100, "once for all chunks of a round"


@pytest.mark.parametrize("name", ["fsa", "local_steps"])
def test_workers_of_one_policy_share_its_steps(name):
    setup, _, _ = prepare(config(sync__name=name, workers=2), Path())
    allowed = of_workers(setup, build_sync(setup.config.sync))
    assert len(allowed) == 6
    assert len({id(allowance.steps) for allowance in allowed.values()}) == 1


def test_what_all_members_may_carry_is_worked_out_once_for_equal_members():
    each = Allowances({name: Allowance((Share(1.0, 1.0),)) for name in "abc"})
    all_of = each.of_all(("a", "b"))
    assert each.of_all(tuple("ab")) is all_of
    assert len(all_of.shares) == 2
    assert len(each.of_all(("a", "b", "c", "unknown")).shares) == 3
