"""P3: the same training layer by layer, whatever else the run does; deaths never spoil a sum."""

import logging

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config

from geojax.errors import ConfigError, GeojaxError

EXTERNAL = {"wan__server_center": "external", "wan__external": {"rate": 100, "rtt": 20}}
MULTIGPS = {"overlay__name": "multigps", "overlay__servers": 2}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def eight_stages(p3, **settings):
    """With and without P3 the chunks are the same: a stage is two of them."""
    return small_config(**{
        "elements": 8000, "chunk_elements": 500, "rounds": 4, "model__stages": 8,
        "sync__p3": p3, **settings,
    })  # fmt: skip


def network(p3, model="mlp", **settings):
    return small_config(**{
        "model__name": model, "data__name": "digits", "rounds": 5, "batch_size": 8, "lr": 0.1,
        "eval_every_s": 100.0, "sync__p3": p3, **settings,
    })  # fmt: skip


def codec(name, **settings):
    return {f"compression__{key}": value for key, value in {"name": name, **settings}.items()}


# ---- the same training


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"workers": 2},
        {"workers": 2, "compression__lan": "fp16"},
        {**EXTERNAL, "workers": 2},
        MULTIGPS,
        {**MULTIGPS, "workers": 2, "overlay__placement": "geomx"},
        {**MULTIGPS, **EXTERNAL},
        codec("fp16"),
        {**codec("bf16"), "workers": 2},
        codec("twobit"),
        {**codec("bisparse", bound=0), "workers": 2},
        codec("mpq"),
        codec("dgt", k=1.0),
    ],
    ids=str,
)
def test_it_ends_with_the_same_parameters_to_the_bit(settings):
    without, p3 = (simulated(eight_stages(each, **settings)) for each in (False, True))
    assert np.ptp(p3.final) > 0
    assert p3.final.tobytes() == without.final.tobytes()
    assert p3.finals == without.finals
    assert len(set(p3.finals.values())) == 1
    assert p3.end < without.end
    steps = {name: report["steps"] for name, report in p3.reports.items()}
    assert steps == {name: report["steps"] for name, report in without.reports.items()}


def test_only_sizes_may_be_moved_too():
    without, p3 = (simulated(eight_stages(each, **codec("size_only"))) for each in (False, True))
    assert p3.finals == without.finals
    assert p3.end < without.end


@pytest.mark.parametrize(
    ("model", "workers"), [("mlp", 1), ("cnn_batchnorm", 1), ("cnn_batchnorm", 2)]
)
def test_a_network_is_trained_as_without_it(model, workers):
    without, p3 = (simulated(network(each, model, workers=workers)) for each in (False, True))
    np.testing.assert_allclose(p3.final, without.final, rtol=1e-5, atol=1e-6)
    assert len(p3.finals) == 3
    assert len(set(p3.finals.values())) == 1
    assert p3.end < without.end
    one_round_less = simulated(network(False, model, workers=workers, rounds=4)).final
    assert not np.allclose(p3.final, one_round_less, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        codec("dgt", block_bytes=256, k=0.5),
        codec("dgt", block_bytes=256, adaptive=True, k_min=0.3, channel="udp"),
        codec("bisparse", ratio=0.05, bound=100),
        {"optimizer__name": "adam", "lr": 0.01, **codec("mpq", bound=1000)},
    ],
    ids=str,
)
def test_it_learns_with_codecs_that_look_at_all_of_what_they_get(settings):
    learning = {"rounds": 40, "eval_every_s": 0.5, "chunk_elements": 1000}
    found = simulated(network(True, **{**learning, **settings}))
    losses = [event["loss"] for event in found.of("evaluation")]
    assert losses[-1] < 0.7 * losses[0]
    assert len(set(found.finals.values())) == 1


# ---- checkpoints


@pytest.mark.parametrize(
    ("model", "workers"),
    [
        ({}, 1),
        ({}, 2),
        ({"model__name": "cnn_batchnorm", "model__stages": None, "data__name": "digits"}, 2),
    ],
    ids=str,
)
def test_a_resumed_run_ends_with_the_same_model(model, workers, tmp_path):
    settings = {"rounds": 6, "workers": workers, "checkpoint_every": 2, "batch_size": 8, **model}
    whole = simulated(eight_stages(True, **settings))
    held = [event["held"] for event in whole.of("round") if event["round"] == 3]
    faults = [kill("scheduler", max(held) + 0.01)]
    simulated(eight_stages(True, testbed__faults=faults, **settings), fails=True, folder=tmp_path)
    resumed = simulated(eight_stages(True, resume=True, **settings), folder=tmp_path)
    np.testing.assert_array_equal(resumed.final, whole.final)
    assert resumed.finals == whole.finals
    trainer = "c2" if workers == 1 else "c2/w1"
    assert resumed.rounds_of(trainer)[0] in (2, 4)
    assert resumed.reports[trainer]["steps"] == whole.reports[trainer]["steps"] == 6


# ---- who dies, and who comes back


def four_stages(**settings):
    return small_config(**{
        "elements": 4000, "chunk_elements": 500, "model__stages": 4, "model__pace_s": 0.04,
        "sync__p3": True, **settings,
    })  # fmt: skip


def possible_models(rounds):
    """The finals of runs in which the third worker takes part in the first 0 to all rounds."""
    config = four_stages()
    numbers = [
        np.random.default_rng((config.seed, worker)).integers(-8, 8, 65_537, endpoint=True)
        for worker in range(3)
    ]
    found = []
    for with_three in range(rounds + 1):
        vector = np.zeros(4000, np.float32)
        for step in range(rounds):
            count = 3 if step < with_three else 2
            gradients = [own[step : step + 4000].astype(np.float32) for own in numbers[:count]]
            vector -= np.sum(gradients, axis=0) / np.float32(count)
        found.append(vector.tobytes())
    return found


def test_after_a_death_the_sums_are_right_or_the_run_ends_and_says_why():
    possible, seen, errors = possible_models(6), set(), []
    for at in np.arange(0.0007, 0.6, 0.017):
        config = four_stages(testbed__faults=[kill("c3", float(at))])
        try:
            outcome = simulated(config)
        except GeojaxError as error:
            errors.append(str(error))
            continue
        assert outcome.final.tobytes() in possible, f"c3 killed at {at} s"
        assert len(set(outcome.finals.values())) == 1
        seen.add(possible.index(outcome.final.tobytes()))
    assert len(seen) > 3
    assert len(errors) > 3
    assert all("applied in part" in text and "sync.p3" in text for text in errors), errors


@pytest.mark.parametrize(("node", "workers"), [("c1", 1), ("c2", 2), ("c2/w1", 2)])
def test_who_comes_back_agrees_with_the_others_or_the_run_ends_and_says_why(node, workers):
    agreed, errors = 0, []
    for at in np.arange(0.0107, 0.4, 0.061):
        faults = [kill(node, float(at)), {"at": float(at) + 0.2, "kind": "restart", "node": node}]
        try:
            outcome = simulated(four_stages(workers=workers, rounds=10, testbed__faults=faults))
        except GeojaxError as error:
            errors.append(str(error))
            continue
        assert len(outcome.finals) == 3 or node == "c2"  # its workers are not started again
        assert len(set(outcome.finals.values())) == 1
        agreed += len(outcome.finals) == 3
    assert agreed or node == "c2"
    assert errors
    assert all("applied in part" in text and "sync.p3" in text for text in errors), errors


# ---- what it is refused with


@pytest.mark.parametrize(
    ("settings", "key", "says"),
    [
        ({"sync__name": "local_steps", "sync__local_steps": 2}, "sync.p3", "sync=fsa"),
        ({"sync__name": "mixed_sync"}, "sync.p3", "sync=fsa"),
        ({"sync__name": "hfa"}, "sync.p3", "sync=fsa"),
        ({"optimizer__clip_norm": 1.0}, "sync.p3", "optimizer.clip_norm"),
        (
            {"outer_optimizer__name": "sgd", "outer_optimizer__clip_norm": 1.0},
            "sync.p3", "outer_optimizer.clip_norm",
        ),
        ({"nonfinite": "skip"}, "nonfinite", "sync.p3"),
    ],
    ids=str,
)  # fmt: skip
def test_what_it_cannot_do_is_refused_at_start(settings, key, says):
    with pytest.raises(ConfigError) as caught:
        simulated(eight_stages(True, **settings))
    assert key in str(caught.value)
    assert says in str(caught.value)
    if key == "sync.p3":
        assert "sync.p3=false" in str(caught.value)


def test_a_model_without_stages_is_refused(monkeypatch):
    from geojax.models.registry import MODELS, mlp

    monkeypatch.setitem(MODELS._members, "mlp", lambda config: mlp(config)._replace(staged=False))
    with pytest.raises(ConfigError, match=r"model=mlp has no stages; use one of .*demo_cnn"):
        simulated(network(True))


def test_a_gradient_that_is_not_finite_ends_the_run():
    outcome = simulated(network(True, lr=1e30, rounds=8), fails=True)
    assert "not finite" in str(outcome.error)
