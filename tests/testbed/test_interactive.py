"""``testbed up``: its hints name the WAN's own centers, and its rates change in time."""

from __future__ import annotations

import threading

from geojax.config import LanConfig
from testbed.emulated.interactive import hints, playing
from testbed.wan.build import build_wan, load_preset
from testbed.wan.dynamics.base import Change

LINK = ("a", "b")


def test_hints_name_the_centers_of_the_wan() -> None:
    wan = build_wan(load_preset("gc4_2024"), LanConfig(), 0)
    first, second = wan.center_names[:2]
    told = hints(wan)
    assert f"{first} ping -c3 {second}" in told
    assert "c1" not in told
    assert "wan.dynamics" not in told


def test_dynamics_are_told_and_played() -> None:
    redraw = {"kind": "redraw", "period_s": 60, "low": 5, "high": 9}
    wan = build_wan(load_preset("three_centers", dynamics=redraw), LanConfig(), 0)
    assert "Its rates change" in hints(wan)
    seen, came = [], threading.Event()

    def apply(rates: object) -> None:
        seen.append(rates)
        came.set()

    soon, later = Change(0.0, {LINK: 1.0}), Change(3600.0, {LINK: 2.0})
    with playing(iter([soon, later]), apply):
        assert came.wait(10.0)
    assert seen == [{LINK: 1.0}]  # and nobody waits for an hour
