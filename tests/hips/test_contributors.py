"""Rounds that only some centers contribute to: TiFL, on every tree, with deaths and LANs."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from exchange_group import forged
from simulated_runs import kill, simulated, small_config

from geojax.assemble.contributors import contributors_of
from geojax.assemble.held_out import divided
from geojax.compression.dense import dense
from geojax.errors import ConfigError, FrameError
from geojax.hips.exchange.contribution import ABSTAINED, received
from geojax.selection.choice import SELECTIONS, draws_for
from geojax.selection.registry import build_selection
from geojax.sync.algorithm import RunFacts
from geojax.sync.registry import build_sync
from geojax.sync.tifl import tifl
from geojax.wire.message import Kind, Message
from testbed.run import prepare

SLOW = {"pace__centers": {"c3": 10.0}}
PACES = {"sync__name": "tifl", "sync__local_steps": 3, **SLOW, "sync__profiling_rounds": 0}
THREE = ("c1", "c2", "c3")
SELECTION = build_selection(SELECTIONS.settings("random", devices=2))
FACTS = RunFacts({"c1": 1.0, "c2": 0.9, "c3": 0.1}, THREE, 0.1, 0)


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level("CRITICAL", logger="geojax")


def contributors(settings, number):
    made = tifl(steps=3, profiling_rounds=0, **settings).for_run
    assert made is not None
    found = made(FACTS).contributors
    assert found is not None
    return found(number)


def twin(drawn, steps=3, seed=0):
    """Federated averaging as a person reads it, on the synthetic model: a step subtracts."""
    from geojax.center.trainer import build_trainer

    config = small_config(seed=seed)
    empty = np.zeros(0, np.float32)
    workers = {
        name: build_trainer(config, features=empty, labels=empty, worker_index=at, worker_count=3)
        for at, name in enumerate(THREE)
    }
    w = np.zeros(1000, np.float32)
    for names in drawn:
        deltas = []
        for name in names:
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
    outcome = simulated(small_config(rounds=7, overlay__name=overlay, sync__policy=policy, **PACES))
    drawn = [contributors(settings, number) for number in range(7)]
    np.testing.assert_allclose(outcome.final, twin(drawn), rtol=1e-6)
    assert len(set(outcome.finals.values())) == 1, "those that contribute nothing have it, too"


# ---- chosen by center_selection


RANDOM = {"center_selection__name": "random", "center_selection__devices": 2}


@pytest.mark.parametrize("overlay", ["star", "ring"])
def test_a_random_selection_averages_those_that_it_draws(overlay):
    settings = {"sync__name": "local_steps", "sync__local_steps": 3, "overlay__name": overlay}
    outcome = simulated(small_config(rounds=7, **RANDOM, **settings))
    drawn = []
    for number in range(7):
        stream = draws_for(SELECTION, 0, 3, number, 0)
        drawn.append([THREE[at] for at in sorted(stream.choice(3, 2, replace=False))])
    assert len({tuple(names) for names in drawn}) > 1
    np.testing.assert_allclose(outcome.final, twin(drawn), rtol=1e-6)
    assert len(set(outcome.finals.values())) == 1


def test_a_selection_by_classes_takes_those_that_together_have_all_of_them(tmp_path):
    """Class 0 to 9 in three centers by class: two of them never have all; all seeds agree."""
    settings = {
        "model__name": "mlp", "data__name": "digits", "partition__name": "by_class", "lr": 0.1,
        "sync__name": "fsa", "center_selection__name": "brute_force",
        "center_selection__devices": 2, "center_selection__random_devices": 0, "batch_size": 16,
    }  # fmt: skip
    config = small_config(rounds=4, **settings)
    setup, _, _ = prepare(config, tmp_path)
    chosen = contributors_of(setup, build_sync(config.sync))
    assert chosen is not None
    data, parts = setup.dataset(), setup.parts()
    shares = {n: np.bincount(data.train_y[parts[n]], minlength=10) / len(parts[n]) for n in THREE}
    overall = np.bincount(data.train_y, minlength=10) / len(data.train_y)
    far = {
        pair: np.linalg.norm((shares[pair[0]] + shares[pair[1]]) / 2 - overall)
        for pair in itertools.combinations(THREE, 2)
    }
    assert {chosen(number) for number in range(4)} == {min(far, key=far.__getitem__)}
    outcome = simulated(config)
    assert len(set(outcome.finals.values())) == 1
    steps = {n: [s for s in outcome.spans[n] if s.name == "compute"] for n in THREE}
    assert {name for name in THREE if steps[name]} == set(chosen(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"center_selection__devices": 4},
            r"center_selection\.devices = 4: .* has 3 centers; .* center_selection\.devices=3$",
        ),
        ({"sync__name": "fedbuff"}, r"center_selection\.name = 'random': sync=fedbuff has no"),
        ({"sync__name": "tifl"}, r"center_selection\.name = 'random': sync=tifl chooses"),
        ({"sync__name": "esync"}, r"center_selection\.name = 'random': sync=esync times"),
        (
            {"sync__name": "hfa", "sync__lan_rounds": 2},
            r"center_selection\.name = 'random': sync=hfa averages",
        ),
        ({"sync__p3": True}, r"center_selection\.name = 'random': with sync\.p3 .*p3=false"),
        (
            {"compression__name": "dgt"},
            r"compression\.name = 'dgt': late .*compression=fp16 with center_selection=random",
        ),
        (
            {"center_selection__name": "gbp_cs"},
            r"center_selection\.name = 'gbp_cs': goes by classes, .*center_selection=random",
        ),
    ],
)
def test_a_selection_that_cannot_be_is_refused_with_one_that_can(settings, message):
    with pytest.raises(ConfigError, match=message):
        simulated(small_config(**{**RANDOM, **settings}))


# ---- TiFL on


def test_workers_on_a_lan_abstain_together():
    outcome = simulated(small_config(rounds=6, workers=2, **PACES))
    assert len(set(outcome.finals.values())) == 1
    steps = dict.fromkeys(THREE, 0)
    for node, spans in outcome.spans.items():
        if "/" in node:
            steps[node[:2]] += len([span for span in spans if span.name == "compute"])
    drawn = [contributors({"count": 2}, number) for number in range(6)]
    assert steps == {c: 2 * 3 * sum(c in names for names in drawn) for c in THREE}


def test_one_tier_of_all_centers_is_averaging_of_all():
    one = simulated(small_config(rounds=5, sync__tiers=1, **PACES))
    two = simulated(small_config(rounds=5, sync__name="hierfavg", sync__local_steps=3, **SLOW))
    assert one.final.tobytes() == two.final.tobytes()
    assert one.lines() == two.lines()


def test_the_fast_tier_waits_for_no_slow_center():
    ends = {}
    for policy in ("fast", "slow"):
        ends[policy] = simulated(small_config(rounds=6, sync__policy=policy, **PACES)).end
    assert ends["fast"] < 0.5 * ends["slow"]


def test_who_contributes_nothing_sends_next_to_nothing():
    sent = {}
    for name in ("tifl", "local_steps"):
        settings = PACES if name == "tifl" else {**SLOW, "sync__name": name, "sync__local_steps": 3}
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


PROFILED = {**PACES, "sync__profiling_rounds": 1}
ADAPTIVE = {
    **PROFILED, "sync__policy": "adaptive", "sync__interval": 2, "sync__held_out": 20,
    "model__name": "mlp", "data__name": "digits", "batch_size": 16, "lr": 0.1,
    "overlay__chunk_elements": 4000,
}  # fmt: skip


@pytest.mark.parametrize(
    "settings", [PACES, PROFILED, ADAPTIVE], ids=["paces", "profiled", "adaptive"]
)
@pytest.mark.parametrize(
    ("victim", "overlay"), [("c1", "star"), ("c2", "ring"), ("c3", "sharded_star")]
)
def test_it_survives_deaths_and_returns_the_same_way_each_time(victim, overlay, settings):
    faults = [kill(victim, 0.25), {"at": 1.2, "kind": "restart", "node": victim}]
    settings = {
        **settings, "rounds": 25, "events": "chunk", "overlay__name": overlay,
        "timeouts__dead": 0.3, "timeouts__heartbeat": 0.05, "testbed__faults": faults,
    }  # fmt: skip
    one, two = (simulated(small_config(**settings)) for _ in range(2))
    assert one.lines() == two.lines()
    assert set(one.finals) >= set(THREE) - {victim}
    assert len(set(one.finals.values())) == 1


def test_measured_tiers_are_averaged_as_known_ones_are():
    """The slow center is known by its times alone; the twin gets the contributors that trained."""
    outcome = simulated(small_config(rounds=9, **PROFILED))
    profile = next(event for event in outcome.of("tifl") if "tiers" in event)
    assert profile["tiers"] == [["c1", "c2"], ["c3"]]
    trained = {
        name: {span.args["round"] for span in outcome.spans[name] if span.name == "compute"}
        for name in THREE
    }
    drawn = [[name for name in THREE if number in trained[name]] for number in range(9)]
    assert drawn[:2] == [list(THREE)] * 2
    assert {tuple(names) for names in drawn[2:]} == {("c1", "c2"), ("c3",)}
    np.testing.assert_allclose(outcome.final, twin(drawn), rtol=1e-6)
    assert len(set(outcome.finals.values())) == 1


def test_one_measured_tier_of_all_is_averaging_of_all():
    one = simulated(small_config(rounds=5, sync__tiers=1, **PROFILED))
    two = simulated(small_config(rounds=5, sync__name="hierfavg", sync__local_steps=3, **SLOW))
    assert one.final.tobytes() == two.final.tobytes()


def test_what_is_held_out_is_judged_and_never_trained_on(tmp_path):
    setup, _, _ = prepare(small_config(**ADAPTIVE), tmp_path)
    for name in THREE:
        trains, held_out = divided(setup, name, 20)
        assert len(held_out) == 20
        assert sorted([*trains, *held_out]) == sorted(setup.part(name))
    outcome = simulated(small_config(rounds=9, **ADAPTIVE))
    looks = [event for event in outcome.of("tifl") if "accuracy" in event]
    assert [event["round"] for event in looks] == [2, 4, 6]
    shares = [share for event in looks for share in event["accuracy"]]
    assert all(share * 40 == round(share * 40) for share in shares), "of 20 or 40 samples"
    assert shares[-1] > shares[0]


def test_a_continued_run_profiles_anew_and_ends_in_one_model(tmp_path):
    settings = {**PROFILED, "checkpoint_every": 2, "rounds": 12}
    faults = [kill("scheduler", 1.0)]
    simulated(small_config(testbed__faults=faults, **settings), fails=True, folder=tmp_path)
    resumed = simulated(small_config(resume=True, **settings), folder=tmp_path)
    told = {event["round"]: event["tier"] for event in resumed.of("tifl") if "tier" in event}
    first = min(told)
    assert first > 0
    assert [told[first], told[first + 1]] == [-1, -1], "everyone contributes"
    assert told[first + 2] >= 0
    assert {last for last, _ in resumed.finals.values()} == {11}
    assert len(set(resumed.finals.values())) == 1


def test_a_round_whose_contributors_are_dead_changes_nothing():
    outcome = simulated(
        small_config(rounds=6, sync__policy="slow", testbed__faults=[kill("c3", 0.05)], **PACES)
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


def test_one_tier_is_vanilla_sampling():
    """The same draws, and each pair of three centers a third of the time."""
    rounds = range(300)
    vanilla = [contributors({"count": 2, "clients": 2, "policy": "vanilla"}, n) for n in rounds]
    assert [contributors({"count": 1, "clients": 2}, number) for number in rounds] == vanilla
    counts = [vanilla.count(pair) for pair in {*vanilla}]
    assert len(counts) == 3
    assert all(70 < count < 130 for count in counts)
    one = {"sync__tiers": 1, "sync__clients": 2}
    outcome = simulated(small_config(rounds=7, **PACES, **one))
    np.testing.assert_allclose(outcome.final, twin(vanilla[:7]), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sync__tiers": 4}, r"sync\.tiers = 4: wan=three_centers has 3 centers.*sync\.tiers=3"),
        ({"sync__policy": "random"}, r"sync\.policy = 'random': .*sync\.tiers=5"),
        ({"compression__name": "dgt"}, r"compression\.name = 'dgt': late .*compression=fp16"),
        (
            {"sync__policy": "adaptive"},
            r"sync\.policy = 'adaptive': .* model=synthetic has no data; use .*uniform",
        ),
        ({**ADAPTIVE, "devices__count": 3}, r"sync\.policy = 'adaptive': .* devices hold"),
        ({**ADAPTIVE, "sync__held_out": 5000}, r"sync\.held_out = 5000: c1 has .* at most \d+"),
        ({"sync__policy": "vanilla", "sync__profiling_rounds": 2}, r"profiling_rounds = 2: sync"),
        ({"sync__timeout_s": 2.0}, r"sync\.timeout_s = 2\.0: no round is timed; leave it out"),
        ({"sync__credits": 2}, r"sync\.credits = 2: sync\.policy=uniform goes by no accuracy"),
        ({"sync__policy": "adaptive", "sync__credits": 0}, r"sync\.credits"),
        ({"sync__policy": "adaptve"}, r"sync\.policy = 'adaptve': .*adaptive"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        simulated(small_config(**{**PACES, **settings}))


def test_an_abstention_has_no_values_and_no_weight():
    said = Message(Kind.OFFER, body={"abstains": True})
    assert received(said, dense(), 3) is ABSTAINED
    wrong = replace(forged(values=(1.0, 2.0)), body={"abstains": True})
    with pytest.raises(FrameError, match="abstains, but brings"):
        received(wrong, dense(), 2)
