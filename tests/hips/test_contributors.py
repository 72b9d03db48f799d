"""Rounds that only some centers contribute to: TiFL, on every tree, with deaths and LANs."""

from dataclasses import replace

import numpy as np
import pytest
from exchange_group import forged
from simulated_runs import kill, simulated, small_config

from geojax.compression.dense import dense
from geojax.errors import ConfigError, FrameError
from geojax.hips.exchange.contribution import ABSTAINED, received
from geojax.sync.algorithm import RunFacts
from geojax.sync.tifl import tifl
from geojax.wire.message import Kind, Message

SLOW = {"pace__centers": {"c3": 10.0}}
TIFL = {"sync__name": "tifl", "sync__local_steps": 3, **SLOW}
THREE = ("c1", "c2", "c3")
FACTS = RunFacts({"c1": 1.0, "c2": 0.9, "c3": 0.1}, THREE, 0.1, 0)


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level("CRITICAL", logger="geojax")


def contributors(settings, number):
    made = tifl(steps=3, **settings).for_run
    assert made is not None
    found = made(FACTS).contributors
    assert found is not None
    return found(number)


def twin(rounds, settings, steps=3, seed=0):
    """Federated averaging as a person reads it, on the synthetic model: a step subtracts."""
    from geojax.center.trainer import build_trainer

    config = small_config(seed=seed)
    empty = np.zeros(0, np.float32)
    workers = {
        name: build_trainer(config, features=empty, labels=empty, worker_index=at, worker_count=3)
        for at, name in enumerate(THREE)
    }
    w = np.zeros(1000, np.float32)
    for number in range(rounds):
        deltas = []
        for name in contributors(settings, number):
            workers[name].load(w)
            for _ in range(steps):
                workers[name].step()
            deltas.append(workers[name].vector() - w)
        w = w + sum(deltas) / np.float32(len(deltas))
    return w


@pytest.mark.parametrize("overlay", ["star", "mlnet", "ring", "sharded_star", "netstorm"])
@pytest.mark.parametrize("policy", ["uniform", "fast", "slow"])
def test_it_equals_federated_averaging_of_the_contributors_along_any_tree(overlay, policy):
    settings = {"count": 2, "policy": policy}
    outcome = simulated(small_config(rounds=7, overlay__name=overlay, sync__policy=policy, **TIFL))
    np.testing.assert_allclose(outcome.final, twin(7, settings), rtol=1e-6)
    assert len(set(outcome.finals.values())) == 1, "those that contribute nothing have it, too"


def test_workers_on_a_lan_abstain_together():
    outcome = simulated(small_config(rounds=6, workers=2, **TIFL))
    assert len(set(outcome.finals.values())) == 1
    steps = dict.fromkeys(THREE, 0)
    for node, spans in outcome.spans.items():
        if "/" in node:
            steps[node[:2]] += len([span for span in spans if span.name == "compute"])
    drawn = [contributors({"count": 2}, number) for number in range(6)]
    assert steps == {c: 2 * 3 * sum(c in names for names in drawn) for c in THREE}


def test_one_tier_of_all_centers_is_averaging_of_all():
    one = simulated(small_config(rounds=5, sync__tiers=1, **TIFL))
    two = simulated(small_config(rounds=5, sync__name="hierfavg", sync__local_steps=3, **SLOW))
    assert one.final.tobytes() == two.final.tobytes()
    assert one.lines() == two.lines()


def test_the_fast_tier_waits_for_no_slow_center():
    ends = {}
    for policy in ("fast", "slow"):
        ends[policy] = simulated(small_config(rounds=6, sync__policy=policy, **TIFL)).end
    assert ends["fast"] < 0.5 * ends["slow"]


def test_who_contributes_nothing_sends_next_to_nothing():
    sent = {}
    for name in ("tifl", "local_steps"):
        settings = {**TIFL, "sync__name": name}
        outcome = simulated(
            small_config(rounds=6, elements=20_000, **settings,
                         **({"sync__policy": "fast"} if name == "tifl" else {}))
        )  # fmt: skip
        sent[name] = outcome.reports["c3"]["sent"]
    up = {name: sum(each for each in _numbers(of)) for name, of in sent.items()}
    assert up["tifl"] < 0.1 * up["local_steps"]


def _numbers(report):
    for each in report.values():
        yield from _numbers(each) if isinstance(each, dict) else [each]


@pytest.mark.parametrize(
    ("victim", "overlay"), [("c1", "star"), ("c2", "ring"), ("c3", "sharded_star")]
)
def test_it_survives_deaths_and_returns_the_same_way_each_time(victim, overlay):
    faults = [kill(victim, 0.25), {"at": 1.2, "kind": "restart", "node": victim}]
    settings = {
        "rounds": 25, "events": "chunk", "overlay__name": overlay, "timeouts__dead": 0.3,
        "timeouts__heartbeat": 0.05, "testbed__faults": faults,
    }  # fmt: skip
    one, two = (simulated(small_config(**TIFL, **settings)) for _ in range(2))
    assert one.lines() == two.lines()
    assert set(one.finals) >= set(THREE) - {victim}
    assert len(set(one.finals.values())) == 1


def test_a_round_whose_contributors_are_dead_changes_nothing():
    outcome = simulated(
        small_config(rounds=6, sync__policy="slow", testbed__faults=[kill("c3", 0.05)], **TIFL)
    )
    assert set(outcome.finals) == {"c1", "c2"}
    assert {last for last, _ in outcome.finals.values()} == {5}


def test_tiers_and_draws_are_functions_of_paces_seed_and_round():
    drawn = [contributors({"count": 2, "policy": "uniform"}, number) for number in range(200)]
    assert set(drawn) == {("c1", "c2"), ("c3",)}
    assert 70 < drawn.count(("c3",)) < 130
    one = [contributors({"count": 2, "clients": 1}, number) for number in range(200)]
    assert set(one) == {("c1",), ("c2",), ("c3",)}
    vanilla = [contributors({"count": 2, "clients": 2, "policy": "vanilla"}, n) for n in range(200)]
    assert set(vanilla) == {("c1", "c2"), ("c1", "c3"), ("c2", "c3")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sync__tiers": 4}, r"sync\.tiers = 4: wan=three_centers has 3 centers.*sync\.tiers=3"),
        ({"sync__policy": "random"}, r"sync\.policy = 'random': .*sync\.tiers=5"),
        ({"compression__name": "dgt"}, r"compression\.name = 'dgt': late .*compression=fp16"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        simulated(small_config(**{**TIFL, **settings}))


def test_an_abstention_has_no_values_and_no_weight():
    said = Message(Kind.OFFER, body={"abstains": True})
    assert received(said, dense(), 3) is ABSTAINED
    wrong = replace(forged(values=(1.0, 2.0)), body={"abstains": True})
    with pytest.raises(FrameError, match="abstains, but brings"):
        received(wrong, dense(), 2)
