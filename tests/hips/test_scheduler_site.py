"""The scheduler on a site of its own: any overlay, and links of centers that go out."""

import logging

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config

from geojax.overlay.registry import OVERLAYS
from testbed.run import run

SITE = {"wan__server_center": "external", "wan__external": {"rate": 100, "rtt": 20}}
NINE = [f"c{number}" for number in range(1, 10)]
OUT = {"kind": "outage", "at": 0.6, "duration": 30.0, "between": ["c1", "c2"]}


def settings_of(name):
    return {"overlay__name": name, "overlay__servers": 2 if name == "multigps" else None}


def nine(name, **settings):
    defaults = {"elements": 50_000, "chunk_elements": 10_000, "rounds": 12, "seed": 0}
    return small_config(wan="netstorm9_draw", **settings_of(name), **{**defaults, **settings})


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


@pytest.fixture(scope="module")
def in_band():
    """A run whose scheduler is in the first center."""
    return simulated(nine("packing"))


@pytest.mark.parametrize("name", sorted(OVERLAYS))
def test_every_overlay_goes_with_it(name):
    outcome = simulated(small_config(**SITE, **settings_of(name)))
    inside = simulated(small_config(**settings_of(name)))
    assert outcome.finals == inside.finals
    (start,) = outcome.of("start")
    served = {"star": ["external"], "multigps": ["external/g0", "external/g1"]}.get(name, [])
    assert start["members"] == ["c1", "c2", "c3", *served]


@pytest.mark.parametrize("awareness", ["oracle", "measured"])
@pytest.mark.parametrize("name", ["netstorm", "packing"])
def test_an_outage_between_centers_cuts_nobody_off(name, awareness, in_band):
    """From c1, where the scheduler would be, control messages to c2 take the link that is out."""
    settings = {"wan__dynamics": OUT, "overlay__awareness": awareness}
    cut = simulated(nine(name, **settings))
    assert {node for event in cut.of("dead") for node in event["nodes"]} >= {"c2"}
    outcome = simulated(nine(name, **settings, **SITE))
    assert not outcome.of("dead")
    assert len(outcome.of("epoch")) <= 1
    assert outcome.end < 10.0
    assert set(outcome.finals) == set(NINE)
    assert outcome.finals == in_band.finals
    np.testing.assert_array_equal(outcome.final, in_band.final)


def test_a_center_may_die_and_come_back():
    faults = [kill("c2", 0.5), {"at": 0.7, "kind": "restart", "node": "c2"}]
    outcome = simulated(nine("netstorm", testbed__faults=faults, rounds=25, **SITE))
    assert outcome.of("back")
    assert len(set(outcome.finals.values())) == 1
    assert set(outcome.finals) == set(NINE)


def test_changes_of_its_links_are_no_reason_to_plan():
    between = {"between": ["c1", "external"]}
    steps = [{"at": 0.3 + 0.1 * n, **between, "factor": 0.5**n} for n in range(1, 6)]
    outcome = simulated(nine("packing", wan__dynamics={"kind": "steps", "steps": steps}, **SITE))
    assert outcome.of("rates")
    assert not outcome.of("policy")


def test_bounds_do_not_count_its_links(tmp_path):
    figures = [
        run(small_config(overlay__name="packing", **site), tmp_path / str(number))
        for number, site in enumerate([{}, SITE])
    ]
    assert figures[0]["bound_s"] == figures[1]["bound_s"]
    assert figures[0]["latency_bound_s"] == figures[1]["latency_bound_s"]
