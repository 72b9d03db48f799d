"""An offer may weigh what its sender's subtree can carry, and nothing else."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from simulated_runs import simulated, small_config

from geojax.assemble.allowances import of_centers, of_lan, of_workers
from geojax.hips.exchange.contribution import Allowance, Share, together
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
        assert allowed == Allowance((Share(*(sizes[name] * 6 / 60,) * 2),))
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
        count: {w for w in range(5) if not result.refuses(offer(w, count))} for count in range(1, 8)
    }
    assert told == {1: {1}, 2: {1, 2}, 3: {2, 3}, 4: {2, 3}, 5: {3}, 6: {3}, 7: set()}


def test_where_offers_may_be_skipped_any_of_them_may_weigh_nothing():
    setup, _, _ = prepare(config(workers=2, nonfinite="skip"), Path())
    center = of_centers(setup, build_sync(setup.config.sync))["c1"]
    assert {weight for weight in range(4) if not center.refuses(offer(weight, 2))} == {0, 1, 2}


def offer(weight, contributors):
    return Message(Kind.OFFER, weight=float(weight), contributors=contributors)
