"""Draws are determined by seed and number alone; changes come in order, from any instant."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.config import LanConfig
from geojax.errors import ConfigError
from testbed.wan.build import build_wan, load_preset
from testbed.wan.dynamics import Constant, Draw, Redraw, build_dynamics

EDGES = [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")]
REDRAW = {"kind": "redraw", "period_s": 180, "low": 20, "high": 155}


def build(name="netstorm9_dynamic", seed=0, **overrides):
    return build_wan(load_preset(name, **overrides), LanConfig(), seed)


@given(st.integers(0, 2**32), st.integers(0, 1000), st.integers(1, 50), st.integers(0, 50))
def test_a_draw_is_whole_mbits_within_its_limits_and_repeatable(seed, index, low, width):
    draw = Draw(low, low + width, seed)
    rates = draw.rates(index, EDGES)
    assert list(rates) == EDGES
    assert all(low * 1e6 <= rate <= (low + width) * 1e6 for rate in rates.values())
    assert all(rate % 1e6 == 0 for rate in rates.values())
    assert draw.rates(index, EDGES) == rates


def test_both_limits_are_drawn():
    drawn = {rate for k in range(50) for rate in Draw(3, 5, 0).rates(k, EDGES).values()}
    assert drawn == {3e6, 4e6, 5e6}


def test_seeds_and_numbers_give_different_draws():
    draws = [
        tuple(Draw(20, 155, seed).rates(index, EDGES).values())
        for seed, index in itertools.product(range(4), range(4))
    ]
    assert len(set(draws)) == len(draws)


def test_directed_links_are_drawn_independently():
    rates = build("netstorm9_draw").view().rate
    assert any(rates[source, target] != rates[target, source] for source, target in rates)


def test_a_wan_follows_its_seed():
    assert build(seed=5) == build(seed=5)
    assert build(seed=5).links != build(seed=6).links
    assert build_wan(load_preset("netstorm9_draw", seed=5), LanConfig(), 99).links == (
        build("netstorm9_draw", seed=5).links
    )


def test_the_first_draw_holds_from_zero_then_one_each_period():
    wan = build(seed=3)
    draw = Draw(20, 155, 3)
    assert wan.view().rate == draw.rates(0, wan.edges)
    for index, change in enumerate(itertools.islice(wan.changes(), 5), start=1):
        assert change.at == 180.0 * index
        assert change.rates == draw.rates(index, wan.edges)


def test_one_draw_without_redraw_starts_like_the_redrawn_wan():
    assert build("netstorm9_draw", seed=3).links == build("netstorm9_dynamic", seed=3).links
    assert list(build("netstorm9_draw", seed=3).changes()) == []


@given(st.floats(0, 5000, allow_nan=False), st.integers(1, 400))
def test_changes_can_be_replayed_from_any_instant(after, period):
    dynamics = Redraw(float(period), Draw(20, 155, 1))
    resumed = list(itertools.islice(dynamics.changes(EDGES, after), 3))
    assert all(change.at > after for change in resumed)
    assert resumed[0].at - after <= period * (1 + 1e-12)
    for change in resumed:
        assert change.rates == dynamics.draw.rates(round(change.at / period), EDGES)


def test_readers_do_not_disturb_each_other():
    wan = build()
    first, second = wan.changes(), wan.changes()
    for _ in range(10):
        next(first)
    assert next(second) == next(wan.changes())


def test_changes_are_scaled_like_the_links():
    plain, scaled = build(seed=1), build(seed=1, bandwidth_scale=0.25)
    for one, quarter in itertools.islice(zip(plain.changes(), scaled.changes(), strict=False), 3):
        assert quarter.at == one.at
        assert quarter.rates == {edge: rate * 0.25 for edge, rate in one.rates.items()}
    assert scaled.links[0].rate == plain.links[0].rate * 0.25


def test_a_wan_without_links_never_changes():
    wan = build("single_center", dynamics=REDRAW)
    assert list(wan.changes()) == []


@pytest.mark.parametrize("value", [None, {"kind": "constant"}])
def test_constant(value):
    dynamics = build_dynamics(value, None, 0)
    assert dynamics == Constant()
    assert dynamics.initial(EDGES) is None


def test_redraw_takes_the_limits_of_the_draw():
    value = {"kind": "redraw", "period_s": 60}
    draw = {"low": 1, "high": 9}
    expected = Redraw(60.0, Draw(1, 9, 4))
    assert build_dynamics(value, draw, 4) == expected
    assert build_dynamics({**value, **draw}, draw, 4) == expected


@pytest.mark.parametrize(
    ("dynamics", "draw", "key", "words"),
    [
        ("redraw", None, "wan.dynamics", "kinds: constant, outage, redraw"),
        ({"period_s": 180}, None, "wan.dynamics", "with a kind"),
        ({"kind": "redrawn"}, None, "wan.dynamics.kind", "did you mean 'redraw'"),
        ({"kind": ["redraw"]}, None, "wan.dynamics.kind", "valid: constant, outage"),
        ({"kind": "constant", "low": 2}, None, "wan.dynamics.low", "no such key"),
        ({**REDRAW, "peroid_s": 3}, None, "wan.dynamics.peroid_s", "did you mean 'period_s'"),
        ({**REDRAW, "period_s": 0}, None, "wan.dynamics.period_s", "above 0"),
        ({"kind": "redraw", "low": 1, "high": 2}, None, "wan.dynamics.period_s", "plain number"),
        ({**REDRAW, "low": 0}, None, "wan.dynamics.low", "at least 1"),
        ({**REDRAW, "low": 2.5}, None, "wan.dynamics.low", "whole number"),
        ({**REDRAW, "high": 10}, None, "wan.dynamics.high", "below wan.dynamics.low = 20"),
        ({"kind": "redraw", "period_s": 9}, None, "wan.dynamics.low", "whole number"),
        (REDRAW, {"low": 1, "high": 2}, "wan.dynamics", "differ from wan.draw"),
        (None, {"low": 20}, "wan.draw.high", "whole number"),
        (None, {"low": 20, "high": 155, "seed": 1}, "wan.draw.seed", "valid: high, low"),
        (None, 155, "wan.draw", "keys low, high"),
    ],
)
def test_mistakes_are_refused(dynamics, draw, key, words):
    with pytest.raises(ConfigError, match=words) as raised:
        build_dynamics(dynamics, draw, 0)
    assert raised.value.key == key
