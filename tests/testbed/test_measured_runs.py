"""The error of the measured view, on events made by hand; and whole simulated runs that measure."""

import pytest
from simulated_runs import simulated, small_config

from geojax.overlay.view import NetworkView
from geojax.wire.message import CHUNK_KINDS, Kind
from testbed.figures.view_error import view_error
from testbed.run import run

VIEW = NetworkView(("c1", "c2"), {("c1", "c2"): 10.0, ("c2", "c1"): 20.0}, {})


def view_at(t, *links):
    return {"t": t, "node": "scheduler", "event": "view", "links": [[*link, 0.0] for link in links]}


def rates_at(t, *rates):
    return {"t": t, "node": "wan", "event": "rates", "rates": [list(rate) for rate in rates]}


END = {"t": 20.0, "node": "scheduler", "event": "end"}


def test_errors_are_weighed_by_time_at_the_rates_in_force():
    events = [
        view_at(4.0, ("c1", "c2", 5.0), ("c2", "c1", 10.0)),  # right, at a goodput of one half
        rates_at(8.0, ("c1", "c2", 20.0)),  # the first is half of what it should be
        view_at(12.0, ("c1", "c2", 10.0)),
        END,
    ]
    assert view_error(VIEW, events, 0.5)["view_error"] == {
        "mean": pytest.approx(0.5 * 4 / 32), "p95": 0.5,
    }  # fmt: skip


def test_links_without_a_rate_have_no_error():
    events = [
        view_at(0.0, ("c1", "c2", 10.0), ("c2", "c1", 20.0)), rates_at(5.0, ("c1", "c2", 0.0)), END,
    ]  # fmt: skip
    assert view_error(VIEW, events, 1.0)["view_error"] == {"mean": 0.0, "p95": 0.0}


def test_nothing_is_said_without_views_or_a_goodput_factor():
    assert view_error(VIEW, [END], 1.0) == {}
    assert view_error(VIEW, [view_at(0.0, ("c1", "c2", 10.0)), END], None) == {}


# ---- whole runs


def measured(**settings):
    settings = {
        "rounds": 12, "elements": 500_000, "chunk_elements": 16_384, "wan": "netstorm9_draw",
        "overlay__name": "netstorm", "overlay__awareness": "measured", "hash_every": 100,
        "compression__name": "size_only", **settings,
    }  # fmt: skip
    return small_config(**settings)


def last_view(outcome):
    return {(a, b): rate for event in outcome.of("view") for a, b, rate, _ in event["links"]}


def test_a_run_measures_its_links_by_its_own_chunks(tmp_path):
    config = measured(overlay__replan=False)
    figures = run(config, tmp_path)
    assert figures["view_error"]["mean"] < 0.1
    assert 0 < figures["probe_bytes"] <= 0.01 * figures["wan_bytes"]


def test_two_measuring_runs_write_the_same_events():
    assert simulated(measured(rounds=4)).lines() == simulated(measured(rounds=4)).lines()


def test_an_oracle_needs_no_probes(tmp_path):
    figures = run(measured(overlay__awareness="oracle", rounds=2), tmp_path)
    assert not {"view_error", "probe_bytes"} & set(figures)


def test_probes_keep_to_their_share_in_every_run():
    outcome = simulated(measured(rounds=8, overlay__probe_share=0.05, overlay__probe_after=1))
    kinds = [counters["bytes"] for node in outcome.reports.values()
             for counters in node["sent"].values()]  # fmt: skip
    probes = sum(of.get(str(int(Kind.PROBE)), 0) for of in kinds)
    chunks = sum(of.get(str(int(kind)), 0) for of in kinds for kind in CHUNK_KINDS)
    assert 0 < probes <= 0.05 * chunks


def test_a_link_that_stands_still_is_noticed_and_its_return_too():
    dead = {"kind": "outage", "links": [{"from": "c8", "to": "c9"}], "at": 2.0, "duration": 8.0}
    outcome = simulated(
        measured(rounds=30, wan__dynamics=[dead], overlay__replan=False, overlay__probe_after=1)
    )
    told = [
        (event["t"], rate)
        for event in outcome.of("view")
        for a, b, rate, _ in event["links"]
        if (a, b) == ("c8", "c9")
    ]
    went = next(t for t, rate in told if rate == 0)
    back = next(t for t, rate in told if t > went and rate > 0)
    assert 4.0 <= went < 5.0
    assert 10.0 <= back < 11.0
