"""The bounds in ``summary.json``, on events made by hand and in a simulated run."""

import json
from operator import itemgetter
from pathlib import Path

import pytest
from commands_here import command
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from simulated_runs import simulated, small_config

from geojax.axes import change
from geojax.config import RunConfig, WanConfig
from geojax.hips.cluster import Cluster, NodeSpec
from geojax.overlay.bounds.changing import SHORT
from geojax.overlay.view import NetworkView
from testbed.figures.efficiency import _sampled, _whole_rounds, efficiency
from testbed.run import prepare, run

ELEMENTS = 250_000  # 8 Mbit
VIEW = NetworkView(
    ("c1", "c2"),
    rate={("c1", "c2"): 8e6, ("c2", "c1"): 8e6},
    delay={("c1", "c2"): 0.01, ("c2", "c1"): 0.03},
)
PLACES = Cluster(
    (
        NodeSpec("scheduler", "c1", "scheduler"),
        NodeSpec("c1", "c1", "server"),
        NodeSpec("c2", "c2", "server"),
    )
)
START = {"t": 0.0, "node": "scheduler", "event": "start", "elements": ELEMENTS}


def rates(t, rate):
    return {"t": t, "node": "wan", "event": "rates", "rates": [["c1", "c2", rate]]}


def both(number, offered, held):
    return [
        {"t": held, "node": name, "event": "round", "round": number, "offered": offered,
         "held": held}
        for name in ("c1", "c2")
    ]  # fmt: skip


def figures(
    *events, compression="size_only", testbed="simulated", goodput=0.5, warmup=0, settings=(),
    nbytes=4 * ELEMENTS,
):  # fmt: skip
    config = RunConfig(warmup_rounds=warmup)
    change(config, dict(settings))
    config.compression.name, config.testbed.name = compression, testbed
    start = {**START, "elements": nbytes // 4}
    listed = sorted([start, *events], key=lambda event: event["t"])
    return efficiency(config, VIEW, listed, PLACES, goodput)


@pytest.mark.parametrize(
    "settings",
    [
        {"sync": "streaming_diloco", "sync.local_steps": 4, "sync.fragments": 2},
        {"sync": "tifl"},
        {"sync": "fedasync"},
        {"center_selection": "random", "center_selection.devices": 1},
    ],
)
def test_rounds_that_do_not_exchange_everything_have_no_bound(settings):
    """A half of the vector, or of one center, may be faster than the bound of all."""
    found = figures(*both(0, 1.0, 1.1), settings=settings)
    assert found == {"latency_bound_s": pytest.approx(0.04)}
    assert "bound_s" in figures(*both(0, 1.0, 1.1), settings={"sync": "esync"})


def test_efficiency_is_the_bound_over_goodput_and_sync_time():
    found = figures(*both(0, 1.0, 5.0), *both(1, 6.0, 10.0))
    assert found == {
        "latency_bound_s": pytest.approx(0.04),
        "bound_s": pytest.approx(1.0),
        "bound_efficiency": pytest.approx(1.0 / (0.5 * 4.0)),
        "bound_ratio": pytest.approx(2.0),
    }


def test_each_round_has_the_bound_of_its_rates():
    found = figures(
        *both(0, 1.0, 2.0),  # 8 Mbit/s: 1 s
        rates(2.5, 4e6),
        *both(2, 10.0, 13.0),  # 4 Mbit/s: 2 s
        rates(13.5, 1e6), rates(13.6, 2e6),  # in between: 2 Mbit/s
        *both(3, 14.0, 22.0),  # 4 s
    )  # fmt: skip
    assert found["bound_s"] == pytest.approx((1 + 2 + 4) / 3)
    assert found["bound_efficiency"] == pytest.approx(7 / 3 / (0.5 * 4.0))  # sync: 1, 3, 8


def test_a_round_in_which_a_rate_changes_has_what_fits_through_by_then():
    changes = rates(5.0, 4e6), rates(7.0, 1e6)
    found = figures(*changes, *both(0, 4.5, 11.0))
    assert found["bound_s"] == pytest.approx(1.5, abs=SHORT * 1.5)  # 4 of 8 Mbit by 5 s, 8 by 6 s
    # at half the goodput as if 16 Mbit: 4 by 5 s, 12 by 7 s, 16 by 11 s
    assert 1 - SHORT <= found["bound_efficiency"] <= 1
    early = figures(*changes, *both(0, 4.5, 10.0))
    assert early["bound_efficiency"] > 1.05, "no such round can be"


def test_a_change_to_the_same_rates_is_none():
    unchanged = figures(*both(0, 1.0, 5.0), *both(1, 6.0, 10.0))
    found = figures(*both(0, 1.0, 5.0), rates(7.0, 8e6), *both(1, 6.0, 10.0))
    assert found == pytest.approx(unchanged, rel=4 * SHORT)
    assert figures(*both(0, 1.0, 5.0), rates(5.0, 1e6)) == figures(*both(0, 1.0, 5.0))


def test_rounds_without_and_with_a_change_count_by_their_numbers(monkeypatch):
    """All four have 8 Mbit/s, or 4 from their first quarter second on: 1 s, 1.75 s."""
    events = []
    for number in range(4):
        events += [rates(10.0 * number, 8e6), *both(number, 10.0 * number + 1, 10.0 * number + 9)]
        events += [rates(10.0 * number + 1.25, 4e6)] if number else []
    whole = figures(*events)
    assert whole["bound_s"] == pytest.approx((1 + 3 * 1.75) / 4, rel=SHORT)
    monkeypatch.setattr("testbed.figures.efficiency.TOTAL_WORK", 2 * 2 * 9)
    rounds = _whole_rounds(VIEW, [START, *sorted(events, key=itemgetter("t"))], PLACES, 0)
    without, crossing = _sampled(rounds, VIEW)
    assert (len(without), len(crossing)) == (1, 2), "of the three with a change"
    assert figures(*events) == pytest.approx(whole)


def test_rounds_of_the_warm_up_do_not_count():
    later = both(1, 6.0, 9.0)
    assert figures(*both(0, 1.0, 5.0), *later, warmup=1) == figures(*later)
    assert figures(*both(0, 1.0, 5.0), warmup=1).keys() == {"latency_bound_s"}


def test_a_round_without_all_trainers_does_not_count():
    whole, (alone, _) = both(0, 1.0, 5.0), both(1, 6.0, 7.0)
    assert figures(*whole, alone) == figures(*whole)
    assert figures(alone).keys() == {"latency_bound_s"}


def test_what_is_not_known_is_absent():
    rounds = both(0, 1.0, 5.0)
    assert figures(*rounds, goodput=None).keys() == {"latency_bound_s", "bound_s"}
    assert figures().keys() == {"latency_bound_s"}
    assert figures(*rounds, compression="bisparse") == {}
    assert figures(*rounds, testbed="local") == {}


def test_of_very_many_changes_evenly_spaced_ones_are_taken(monkeypatch):
    monkeypatch.setattr("testbed.figures.efficiency.TOTAL_WORK", 2 * 2 * 2)  # two linear programs
    events = []
    for number in range(4):  # 1, 2, 4, 8 s
        events += [rates(10.0 * number, 8e6 / 2**number)]
        events += both(number, 10.0 * number + 1, 10.0 * number + 9)
    assert figures(*events)["bound_s"] == pytest.approx((1 + 4) / 2)


def offers(number, held, **offered):
    return [
        {"t": held, "node": name, "event": "round", "round": number, "offered": at, "held": held}
        for name, at in offered.items()
    ]


def test_what_was_offered_before_may_have_been_summed_by_then():
    """The last offer alone has to get to the others, 1 s at 8 Mbit/s, whatever came before it."""
    found = figures(*offers(0, 52.0, c1=50.0, c2=1.0), goodput=1.0)
    assert found["bound_s"] == pytest.approx(1.0)
    slow = [{**rates(0.0, 2e6), "rates": [["c2", "c1", 2e6]]}]
    found = figures(*slow, *offers(0, 52.0, c1=50.0, c2=49.0), goodput=1.0)
    assert found["bound_s"] == pytest.approx(3.0)  # from the first offer, 4 s
    assert found["bound_efficiency"] == pytest.approx(1.5)  # no such round can be


def test_an_offer_in_parts_begins_with_the_first():
    parts = [
        {**event, "began": event["offered"] - 3} for event in offers(0, 52.0, c1=50.0, c2=50.0)
    ]
    assert figures(*parts, goodput=1.0)["bound_efficiency"] == pytest.approx(1 / 5)


def test_where_delay_decides_it_says_so():
    found = figures(*both(0, 1.0, 1.05), goodput=1.0, nbytes=40)
    assert found["latency_decides"] == 1
    assert found["bound_s"] == pytest.approx(found["latency_bound_s"])
    assert found["bound_efficiency"] == pytest.approx(0.8)
    assert "latency_decides" not in figures(*both(0, 1.0, 5.0))


def watched(config):
    """The efficiency of each round of a simulated run, none above 1."""
    setup, wan, _ = prepare(config, Path())
    outcome = simulated(config)
    found = []
    for number in range(config.rounds):
        one = [e for e in outcome.events if e["event"] != "round" or e["round"] == number]
        of_round = efficiency(config, wan.view(), one, setup.cluster, config.testbed.goodput_factor)
        found.append(of_round["bound_efficiency"])
    assert 0 < min(found) <= max(found) <= 1 + 1e-6
    return found


def test_the_line_whose_star_s_efficiency_was_above_one():
    """c1-c2-c3, the root between them; c3 is slow, and its own link is fast."""
    config = small_config(
        elements=250_000, chunk_elements=25_000, rounds=3, overlay__name="star",
        overlay__root="c2", model__pace_s=1.0, compression__name="size_only",
    )  # fmt: skip
    change(config, {"pace.centers": {"c3": 30.0}})
    ends = [("c1", "c2", 10), ("c2", "c1", 100), ("c2", "c3", 100), ("c3", "c2", 100)]
    links = [{"from": a, "to": b, "rate": rate, "rtt": 10} for a, b, rate in ends]
    config.wan = WanConfig(name="line", centers=["c1", "c2", "c3"], links=links)
    watched(config)


OVERLAYS = ("star", "sharded_star", "mlnet", "tsengine", "ring", "butterfly", "netstorm", "packing")


@given(data=st.data())
@examples(5)
def test_no_efficiency_exceeds_one(data):
    """Whatever the WAN, the paces, the overlay and the instants of the offers are."""
    watched(drawn(data))


@given(data=st.data())
@examples(16)
def test_no_efficiency_exceeds_one_while_rates_change(data):
    config = drawn(data)
    period = data.draw(st.sampled_from([0.02, 0.2, 1.0, 5.0]), "period")
    config.wan.dynamics = {"kind": "redraw", "period_s": period, "low": 1, "high": 100}
    if data.draw(st.booleans(), "outage"):
        at = data.draw(st.floats(0.01, 3.0), "at")
        outage = {"kind": "outage", "at": at, "duration": 0.5, "center": "c1"}
        config.wan.dynamics = [config.wan.dynamics, outage]
    watched(config)


def drawn(data):
    """A run drawn at random."""
    draw = data.draw
    centers = draw(st.integers(3, 6), "centers")
    overlay = draw(st.sampled_from(OVERLAYS), "overlay")
    wan = draw(st.sampled_from(["full_mesh", "random_sparse"]), "wan")
    config = small_config(
        wan=wan, elements=draw(st.sampled_from([50, 5_000, 100_000]), "elements"),
        chunk_elements=draw(st.sampled_from([1_000, 20_000]), "chunk"), rounds=3, hash_every=0,
        workers=draw(st.integers(1, 2), "workers"), overlay__name=overlay,
        compression__name=draw(st.sampled_from(["size_only", "dense"]), "compression"),
        model__stages=draw(st.integers(1, 3), "stages"),
        **draw(st.sampled_from([{}, {"sync__p3": True}, {"pace__grid_s": 20.0}]), "instants"),
    )  # fmt: skip
    if overlay == "netstorm":
        config.overlay.auxiliary = draw(st.sampled_from(["none", "fastest", "paced"]), "auxiliary")
    paces = st.lists(st.floats(0.001, 3.0), min_size=centers, max_size=centers)
    names = [f"c{number}" for number in range(1, centers + 1)]
    change(config, {"pace.centers": dict(zip(names, draw(paces, "paces"), strict=True))})
    change(config, {
        "wan.centers": centers, "wan.draw": {"low": 1, "high": 100},
        "wan.rtt": draw(st.sampled_from([0.0, 5.0, 300.0]), "rtt"),
        "wan.seed": draw(st.integers(0, 99), "seed"),
        **({"wan.degree": 2} if wan == "random_sparse" else {}),
    })  # fmt: skip
    return config


def test_a_round_with_a_change_comes_near_to_its_bound():
    """A mesh whose links all lose half of their rates, or one of them a little."""
    config = small_config(
        wan="full_mesh", elements=200_000, chunk_elements=2_000, rounds=2, hash_every=0,
        overlay__name="packing", compression__name="size_only", model__pace_s=1.0,
    )  # fmt: skip
    change(config, {"wan.centers": 4, "wan.draw": {"low": 10, "high": 30}, "wan.rtt": 1.0})
    steady = watched(config)
    steps = [
        {"at": 1.1, "all": True, "factor": 0.5},
        {"at": 2.5, "from": "c1", "to": "c2", "factor": 0.4},
    ]
    config.wan.dynamics = {"kind": "steps", "steps": steps}
    crossing = watched(config)
    assert min(crossing) > 0.85
    assert crossing != steady


@pytest.mark.parametrize(("overlay", "least", "most"), [("packing", 0.9, 1.0), ("star", 0.1, 0.4)])
def test_a_simulated_run_tells_how_near_it_came(tmp_path, overlay, least, most):
    config = small_config(
        wan="netstorm9_draw", elements=400_000, chunk_elements=2048, rounds=2,
        overlay__name=overlay,
        compression__name="size_only", testbed__goodput_factor=1.0, wan__delay_scale=0.0,
        pace__encode_gbps=1e9, pace__sum_gbps=1e9, pace__outer_gbps=1e9, hash_every=0,
        timeouts__heartbeat=1e9, timeouts__dead=1e9, timeouts__round=1e9,
    )  # fmt: skip
    summary = run(config, tmp_path)
    assert least < summary["bound_efficiency"] < most
    assert summary["bound_s"] == pytest.approx(
        summary["bound_efficiency"] * summary["sync_s"]["mean"]
    )
    assert summary["latency_bound_s"] == 0
    json.dumps(summary, allow_nan=False)


def test_the_benchmark_runs():
    small = ["--seeds", "1", "--bytes", "400000", "--chunk-elements", "1000"]
    done = command("experiments.bench.packing", "wan=three_centers", *small)
    assert done.returncode == 0, done.stderr
    assert "three_centers: 3 centers, 6 links; 400,000 bytes" in done.stdout
    assert "sharded_star" in done.stdout
