"""Pace profiles: published heterogeneity, seeded variation, and mistakes by name."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from geojax.center.pace import build_pace
from geojax.center.paces import PROFILES, build_profile
from geojax.config import ModelConfig, PaceConfig, RunConfig
from geojax.errors import ConfigError

WORKERS = tuple(f"c{center}/w{worker}" for center in range(1, 5) for worker in range(3))
FILES = sorted((Path(__file__).parents[2] / "conf" / "pace").glob("*.yaml"))
JITTER = {"kind": "jitter", "distribution": "lognormal", "spread": 0.5}
MARKOV = {"kind": "markov", "factor": 8, "fast_s": 30, "slow_s": 10}
SLOW = {"kind": "slowdown", "center": "c2", "at": 10, "factor": 5, "duration": 20}


def factors(profile, workers=WORKERS, *, seed=0, step=0, now=0.0):
    """Every worker's factor on one step."""
    return [build_profile(profile, seed, workers, name)(step, now) for name in workers]


@pytest.mark.parametrize("h", [1, 10, 150, 300])
def test_two_groups_have_the_heterogeneity_of_esync(h):
    found = factors({"kind": "two_groups", "h": h})
    assert found == [1.0] * 6 + [h] * 6
    assert max(found) / min(found) == h  # h_c = c_max / c_min
    assert factors({"kind": "two_groups", "h": h}, WORKERS[:3]) == [1, 1, h]


def test_tifl_gives_equal_groups_4_2_1_half_and_a_tenth_of_a_cpu():
    workers = tuple(f"c{index}" for index in range(1, 11))
    found = factors({"kind": "groups", "speeds": [4, 2, 1, 0.5, 0.1]}, workers)
    assert found == pytest.approx([1, 1, 2, 2, 4, 4, 8, 8, 40, 40])


def test_drawn_speeds_lie_in_their_range_and_stay():
    halos = {"kind": "drawn", "low": 0.107, "high": 0.907}
    found = factors(halos)
    assert all(1 / 0.907 <= factor <= 1 / 0.107 for factor in found)
    assert len(set(found)) == len(found)
    assert factors(halos, step=7, now=99.0) == found
    assert factors(halos, seed=1) != found
    assert factors({**halos, "seed": 0}, seed=1) == found


@pytest.mark.parametrize("distribution", ["uniform", "lognormal"])
def test_jitter_has_mean_one_and_its_spread(distribution):
    profile = {"kind": "jitter", "distribution": distribution, "spread": 0.3}
    factor = build_profile(profile, 0, WORKERS, "c1/w0")
    drawn = [factor(step, 0.0) for step in range(2000)]
    assert sum(drawn) / len(drawn) == pytest.approx(1, abs=0.02)
    if distribution == "uniform":
        assert min(drawn) >= 0.7
        assert max(drawn) <= 1.3
        assert max(drawn) - min(drawn) > 0.58
    else:
        logs = [math.log(value) for value in drawn]
        mean = sum(logs) / len(logs)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in logs) / len(logs))
        assert deviation == pytest.approx(0.3, rel=0.05)


def test_markov_spends_its_share_of_time_in_each_state():
    factor = build_profile(MARKOV, 0, WORKERS, "c1/w0")
    states = [factor(0, instant / 2) for instant in range(40_000)]
    assert set(states) == {1.0, 8}
    assert states.count(8) / len(states) == pytest.approx(10 / 40, abs=0.03)
    stays = sum(one != other for one, other in pairwise(states)) + 1
    assert 20_000 / stays == pytest.approx((30 + 10) / 2, rel=0.1)
    assert len({tuple(factors(MARKOV, now=at)) for at in range(0, 500, 50)}) > 5


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0, 1e5)), min_size=1, max_size=8))
def test_a_pace_is_a_function_of_step_and_time_alone(asked):
    profile = [JITTER, MARKOV]
    used = build_profile(profile, 3, WORKERS, "c2/w1")
    for step, now in asked:
        assert used(step, now) == build_profile(profile, 3, WORKERS, "c2/w1")(step, now)


def test_workers_and_kinds_draw_independently():
    assert len(set(factors(JITTER))) == len(WORKERS)
    assert len({factors(JITTER, step=step)[0] for step in range(9)}) == 9


def test_a_scripted_slow_down_hits_its_center_while_it_lasts():
    assert factors(SLOW, now=9.99) == [1.0] * 12
    for now in (10.0, 29.99):
        assert factors(SLOW, now=now) == [1, 1, 1, 5, 5, 5, 1, 1, 1, 1, 1, 1]
    assert factors(SLOW, now=30.0) == [1.0] * 12
    one = {"kind": "slowdown", "worker": "c2/w1", "at": 0, "factor": 5, "duration": 20}
    assert factors(one).index(5) == 4
    assert factors(one).count(5) == 1


def test_profiles_multiply():
    both = factors([{"kind": "two_groups", "h": 10}, SLOW], now=15.0)
    assert both == [1, 1, 1, 5, 5, 5, 10, 10, 10, 10, 10, 10]
    assert factors([]) == factors(None) == factors({"kind": "homogeneous"}) == [1.0] * 12


def test_a_pace_multiplies_model_factor_center_and_profile():
    pace = PaceConfig(factor=2, centers={"c4": 3.0}, profile={"kind": "two_groups", "h": 10})
    config = RunConfig(model=ModelConfig("mlp", pace_s=0.5), pace=pace)
    assert build_pace(config, WORKERS, "c1/w0")(0, 0.0) == 1.0
    assert build_pace(config, WORKERS, "c4/w2")(0, 0.0) == 30.0
    assert build_pace(config, ("c1", "c4"), "c4")(0, 0.0) == 30.0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_pace_of_the_project_builds(path):
    values = OmegaConf.to_container(OmegaConf.load(path))
    del values["defaults"]
    pace = PaceConfig(**values)
    assert pace.name == path.stem
    assert build_pace(RunConfig(pace=pace), WORKERS, "c2/w0")(0, 31.0) > 0


def test_every_kind_has_a_file_or_is_used_by_one():
    kinds = {OmegaConf.load(path).get("profile", {}).get("kind", "homogeneous") for path in FILES}
    assert kinds == set(PROFILES)


@pytest.mark.parametrize(
    ("profile", "key", "words"),
    [
        ("two_groups", "pace.profile", "kinds: drawn, groups"),
        ({"h": 10}, "pace.profile", "with a kind"),
        ({"kind": "two_group"}, "pace.profile.kind", "did you mean 'two_groups'"),
        ([JITTER, {"kind": "two_groups"}], "pace.profile[1].h", "of at least 1"),
        ([JITTER, 5], "pace.profile[1]", "with a kind"),
        ({"kind": "two_groups", "h": 0.5}, "pace.profile.h", "of at least 1"),
        ({"kind": "two_groups", "h": "10"}, "pace.profile.h", "plain number"),
        ({"kind": "two_groups", "h_c": 10}, "pace.profile.h_c", "did you mean 'h'"),
        ({"kind": "homogeneous", "h": 10}, "pace.profile.h", "no such key"),
        ({"kind": "groups", "speeds": []}, "pace.profile.speeds", "relative speeds"),
        ({"kind": "groups", "speeds": [1, 0]}, "pace.profile.speeds", "above 0"),
        ({"kind": "groups", "speeds": "fast"}, "pace.profile.speeds", "relative speeds"),
        ({"kind": "drawn", "low": 0.9, "high": 0.1}, "pace.profile.high", "at least 0.9"),
        ({"kind": "drawn", "low": 0, "high": 1}, "pace.profile.low", "above 0"),
        ({"kind": "drawn", "low": 1, "high": 2, "seed": -1}, "pace.profile.seed", "whole"),
        ({**JITTER, "distribution": "normal"}, "pace.profile.distribution", "lognormal, uniform"),
        ({**JITTER, "spread": -1}, "pace.profile.spread", "at least 0"),
        ({**JITTER, "distribution": "uniform", "spread": 1}, "pace.profile.spread", "below 1"),
        ({**MARKOV, "fast_s": 0}, "pace.profile.fast_s", "above 0"),
        ({**MARKOV, "factor": math.inf}, "pace.profile.factor", "finite"),
        ({**SLOW, "center": "c22"}, "pace.profile.center", "did you mean 'c2'"),
        ({**SLOW, "worker": "c2/w0"}, "pace.profile", "either"),
        ({**SLOW, "at": -1}, "pace.profile.at", "at least 0"),
        ({**SLOW, "duration": 0}, "pace.profile.duration", "above 0"),
    ],
)
def test_mistakes_are_refused(profile, key, words):
    with pytest.raises(ConfigError, match=words) as raised:
        factors(profile)
    assert raised.value.key == key
