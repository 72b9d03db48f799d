"""Steps, outages and their combinations, by hand and against a plain model."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.config import LanConfig, WanConfig
from geojax.errors import ConfigError
from testbed.wan.build import build_wan
from testbed.wan.dynamics import Draw, Scripts

AB, BA, BC, CB = ("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")
OUTAGE = {"kind": "outage", "between": ["a", "b"], "at": 10, "duration": 5}


def build(dynamics, seed=0, **fields):
    """A path a - b - c of 100 and 40 Mbit/s."""
    links = [
        {"between": ["a", "b"], "rate": 100, "rtt": 10},
        {"between": ["b", "c"], "rate": 40, "rtt": 10},
    ]
    fields = {"centers": ["a", "b", "c"], "links": links, **fields}
    return build_wan(WanConfig("path", dynamics=dynamics, **fields), LanConfig(), seed)


def steps(*entries):
    return {"kind": "steps", "steps": list(entries)}


def played(wan, until=1e9):
    """(at, {edge: Mbit/s}) of all changes."""
    return [
        (change.at, {edge: rate / 1e6 for edge, rate in change.rates.items()})
        for change in itertools.takewhile(lambda change: change.at < until, wan.changes())
    ]


def test_steps_set_rates_and_factors():
    wan = build(
        steps(
            {"at": 60, "from": "a", "to": "b", "rate": 10},
            {"at": 120, "all": True, "factor": 0.5},
            {"at": 180, "between": ["a", "b"], "rate": 20},
            {"at": 240, "center": "c", "factor": 1},
        )
    )
    assert played(wan) == [
        (60, {AB: 10}),
        (120, {AB: 5, BA: 50, BC: 20, CB: 20}),
        (180, {AB: 20, BA: 20}),  # a rate ends the factor
        (240, {BC: 40, CB: 40}),
    ]
    assert [link.rate for link in wan.links] == [100e6, 100e6, 40e6, 40e6]


def test_an_outage_stops_links_and_restores_them():
    assert played(build(OUTAGE)) == [(10, {AB: 0, BA: 0}), (15, {AB: 100, BA: 100})]


def test_steps_are_sorted_and_one_instant_is_one_change():
    wan = build(
        steps(
            {"at": 9, "from": "a", "to": "b", "rate": 3},
            {"at": 4, "from": "a", "to": "b", "rate": 1},
            {"at": 4, "from": "b", "to": "a", "rate": 0},
        )
    )
    assert played(wan) == [(4, {AB: 1, BA: 0}), (9, {AB: 3})]


def test_links_can_be_listed():
    chosen = [{"between": ["b", "c"]}, {"from": "a", "to": "b"}]
    wan = build(steps({"at": 1, "links": chosen, "factor": 0.1}))
    assert played(wan) == [(1, {AB: 10, BC: 4, CB: 4})]


def test_an_outage_over_a_step_restores_the_new_rate():
    step = steps({"at": 12, "between": ["a", "b"], "rate": 30})
    wan = build([OUTAGE, step])
    assert played(wan) == [
        (10, {AB: 0, BA: 0}),
        (12, {AB: 0, BA: 0}),
        (15, {AB: 30, BA: 30}),
    ]
    assert played(build([step, OUTAGE])) == played(wan)


def test_overlapping_outages_end_with_the_last():
    other = {"kind": "outage", "center": "b", "at": 12, "duration": 10}
    assert played(build([OUTAGE, other])) == [
        (10, {AB: 0, BA: 0}),
        (12, {AB: 0, BA: 0, BC: 0, CB: 0}),
        (15, {AB: 0, BA: 0}),
        (22, {AB: 100, BA: 100, BC: 40, CB: 40}),
    ]


def test_an_outage_over_redraws():
    redraw = {"kind": "redraw", "period_s": 12, "low": 20, "high": 155}
    wan = build([redraw, OUTAGE], seed=5)
    draw = Draw(20, 155, 5)
    first, second = draw.rates(0, wan.edges), draw.rates(1, wan.edges)
    assert wan.view().rate == first
    changes = list(itertools.islice(wan.changes(), 3))
    assert [change.at for change in changes] == [10, 12, 15]
    assert changes[1].rates == {AB: 0, BA: 0, BC: second[BC], CB: second[CB]}
    assert changes[2].rates == {AB: second[AB], BA: second[BA]}


def test_a_draw_is_the_base_of_factors():
    wan = build(steps({"at": 1, "all": True, "factor": 0.5}), draw={"low": 20, "high": 155}, seed=3)
    drawn = Draw(20, 155, 3).rates(0, wan.edges)
    assert wan.view().rate == drawn
    assert next(wan.changes()).rates == {edge: rate / 2 for edge, rate in drawn.items()}


def test_changes_are_scaled():
    plain, scaled = build(OUTAGE), build(OUTAGE, bandwidth_scale=0.25)
    for one, quarter in zip(plain.changes(), scaled.changes(), strict=True):
        assert quarter.rates == {edge: rate / 4 for edge, rate in one.rates.items()}


ENTRY = st.fixed_dictionaries(
    {"at": st.integers(1, 20)},
    optional={},
).flatmap(
    lambda entry: st.sampled_from(
        [
            {"from": "a", "to": "b"},
            {"between": ["b", "c"]},
            {"all": True},
        ]
    ).flatmap(
        lambda chosen: st.one_of(
            st.integers(0, 9).map(lambda rate: {**entry, **chosen, "rate": rate}),
            st.sampled_from([0, 0.5, 2]).map(lambda factor: {**entry, **chosen, "factor": factor}),
        )
    )
)
OUTAGES = st.tuples(st.integers(1, 20), st.integers(1, 10)).map(
    lambda times: {"kind": "outage", "from": "b", "to": "c", "at": times[0], "duration": times[1]}
)


def plain_model(scripts, edges, now):
    """Rates at ``now`` by the definition: what was set last, times every script's factor."""
    rates = {AB: 100.0, BA: 100.0, BC: 40.0, CB: 40.0}
    happened = []
    for number, script in enumerate(scripts):
        if script["kind"] == "outage":
            begin, end = script["at"], script["at"] + script["duration"]
            happened += [(begin, number, 0, [BC], None, 0.0), (end, number, 1, [BC], None, 1.0)]
            continue
        ordered = sorted(script["steps"], key=lambda step: step["at"])
        for place, step in enumerate(ordered):
            chosen = edges if "all" in step else [AB] if "from" in step else [BC, CB]
            happened.append(
                (step["at"], number, place, chosen, step.get("rate"), step.get("factor", 1.0))
            )
    factors = {}
    for at, number, _, chosen, rate, factor in sorted(happened, key=lambda item: item[:3]):
        if at > now:
            break
        for edge in chosen:
            factors[number, edge] = factor
            if rate is not None:
                rates[edge] = rate
    return {
        edge: rates[edge] * math.prod(f for (_, e), f in factors.items() if e == edge)
        for edge in edges
    }


@given(
    st.lists(
        st.lists(ENTRY, min_size=1, max_size=4).map(lambda e: steps(*e)) | OUTAGES,
        min_size=1,
        max_size=3,
    )
)
def test_any_combination_equals_the_definition(scripts):
    wan = build(scripts)
    state = {link.edge: link.rate / 1e6 for link in wan.links}
    for at, rates in played(wan):
        state.update(rates)
        assert state == pytest.approx(plain_model(scripts, wan.edges, at))


@given(st.floats(0, 40), st.integers(0, 3))
def test_a_script_can_be_replayed_from_any_instant(after, seed):
    redraw = {"kind": "redraw", "period_s": 7, "low": 1, "high": 9}
    wan = build([redraw, OUTAGE, steps({"at": 14, "all": True, "factor": 0.5})], seed=seed)
    whole = list(itertools.islice(wan.changes(), 12))
    resumed = list(itertools.islice(wan.changes(after), 4))
    assert resumed == [change for change in whole if change.at > after][:4]


def test_one_script_of_constants_is_no_script():
    assert build([{"kind": "constant"}]) == build(None)
    assert not isinstance(build([]).dynamics, Scripts)


STEP = {"at": 5, "all": True, "rate": 3}
KEY = "wan.dynamics.steps[0]"


@pytest.mark.parametrize(
    ("dynamics", "key", "words"),
    [
        (steps(), "wan.dynamics.steps", "at least one step"),
        ({"kind": "steps"}, "wan.dynamics.steps", "list of steps"),
        (steps({**STEP, "at": 0}), f"{KEY}.at", "above 0"),
        (steps({**STEP, "at": None}), f"{KEY}.at", "seconds of experiment time"),
        (steps({**STEP, "rate": -1}), f"{KEY}.rate", "at least 0"),
        (steps({**STEP, "factor": 2}), KEY, "either a rate in Mbit/s or a factor"),
        (steps({"at": 5, "all": True}), KEY, "either a rate in Mbit/s or a factor"),
        (steps({"at": 5, "rate": 3}), KEY, "exactly one of all: true"),
        (steps({**STEP, "center": "a"}), KEY, "exactly one of all: true"),
        (steps({**STEP, "all": "yes"}), f"{KEY}.all", "write true"),
        (steps({"at": 5, "center": "d", "rate": 3}), f"{KEY}.center", "valid: a, b, c"),
        (steps({"at": 5, "from": "a", "to": "c", "rate": 3}), KEY, "no such link"),
        (steps({"at": 5, "from": "a", "rate": 3}), f"{KEY}.to", "no such center"),
        (steps({"at": 5, "links": [], "rate": 3}), f"{KEY}.links", "at least one link"),
        (steps({"at": 5, "links": [{"all": True}], "rate": 3}), f"{KEY}.links[0].all", "no such"),
        (steps({"at": 5, "links": ["a"], "rate": 3}), f"{KEY}.links[0]", "mapping with the keys"),
        (steps({**STEP, "time": 5}), f"{KEY}.time", "no such key"),
        ([OUTAGE, steps({**STEP, "at": -1})], "wan.dynamics[1].steps[0].at", "above 0"),
        ({**OUTAGE, "duration": 0}, "wan.dynamics.duration", "above 0"),
        ({**OUTAGE, "between": ["a", "d"]}, "wan.dynamics.between[1]", "no such center"),
        ({**OUTAGE, "until": 9}, "wan.dynamics.until", "no such key"),
        ([OUTAGE, {"kind": "outrage"}], "wan.dynamics[1].kind", "did you mean 'outage'"),
        ([{"kind": "constant"}, {"kind": "constant"}], "wan.dynamics[1]", "one of constant"),
        ([5], "wan.dynamics[0]", "with a kind"),
    ],
)
def test_mistakes_are_refused(dynamics, key, words):
    with pytest.raises(ConfigError, match=words) as raised:
        build(dynamics)
    assert raised.value.key == key
