"""What is waited for when links are measured follows their round trips; names are just text."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from geojax.config import LanConfig
from testbed.emulated.measure import verify
from testbed.emulated.measure.verify import Agent, LinkCheck, goodput_factor
from testbed.progress import RunProgress
from testbed.wan import fields
from testbed.wan.build import build_wan, load_preset
from testbed.wan.describe import describe
from testbed.wan.tables import render


def test_slow_start_is_waited_for_however_long_the_round_trip() -> None:
    """10 segments, doubled every 0.6 s, are the 2,590 of this link after 8 doublings."""
    assert verify.skip_s(50e6, 0.6) > 8 * 0.6
    assert verify.skip_s(50e6, 0.02) < 0.3
    assert verify.measure_s(0.6) > 2 * 0.6


def test_an_echo_is_waited_for_longer_than_its_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []

    class Answering(Agent):
        def __init__(self) -> None:
            self.ports = {"echo": 7}

        def order(self, **what: float) -> None:
            orders.append(what)

        def answer(self, work_s: float = 0.0) -> dict[str, list[float]]:
            assert work_s > 2.5
            return {"rtts": [2.5]}

    agents = {"a": Answering(), "b": Answering()}
    target = verify.Target(("a", "b"), 1e6, 2.5, "10.0.0.1")
    assert verify._echo_all([target], agents) == {("a", "b"): 2.5}
    assert orders[0]["wait_s"] > 2.5


def test_a_link_that_was_measured_badly_flatters_no_run() -> None:
    good, bad = (LinkCheck(("a", "b"), 1e8, rate, 0.6, 0.6) for rate in (9e7, 1.1e7))
    assert goodput_factor([good]) == pytest.approx(0.9)
    assert goodput_factor([good, bad]) == pytest.approx((0.9 + 0.95) / 2)


def test_names_of_regions_are_names_of_centers() -> None:
    assert fields.center_name("wan.centers[0]", "ap-northeast-1") == "ap-northeast-1"


def test_a_name_is_not_read_as_markup() -> None:
    name = "a[/bold] [red]b"
    written = io.StringIO()
    console = Console(file=written, width=200)
    render(describe(build_wan(load_preset("three_centers", name=name), LanConfig(), 0)), console)
    with RunProgress(f"{name}: fsa", 3, console=console):
        pass
    assert written.getvalue().count(name) == 2
