"""What ``python -m testbed describe`` shows."""

import io
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from geojax.config import LanConfig, WanConfig
from testbed.describe import describe, main, render
from testbed.wan import build_wan, load_preset


def wan_of(name="three_centers", **overrides):
    return build_wan(load_preset(name, **overrides), LanConfig(), 0)


def text_of(wan):
    console = Console(file=io.StringIO(), width=120)
    render(describe(wan), console)
    return console.file.getvalue()


def brute_force_cut(centers, rate, egress, ingress):
    """The cheapest way to part the centers, over every side of every access point."""
    names = [(kind, c) for kind in ("center", "out", "in") for c in centers]
    best = float("inf")
    for sides in itertools.product((True, False), repeat=len(names)):
        near = dict(zip(names, sides, strict=True))
        if len({near["center", c] for c in centers}) == 1:
            continue
        cost = 0.0
        for c in centers:
            if near["center", c] and not near["out", c]:
                cost += egress.get(c, float("inf"))
            if near["in", c] and not near["center", c]:
                cost += ingress.get(c, float("inf"))
        cost += sum(r for (a, b), r in rate.items() if near["out", a] and not near["in", b])
        best = min(best, cost)
    return best


@settings(max_examples=25)
@given(
    st.lists(st.integers(1, 100), min_size=6, max_size=6),
    st.lists(st.none() | st.integers(1, 150), min_size=6, max_size=6),
)
def test_min_cut_equals_the_brute_force(rates, caps):
    names = ["a", "b", "c"]
    pairs = list(itertools.permutations(names, 2))
    config = WanConfig(
        name="random",
        centers=[
            {"name": name, "egress": caps[i], "ingress": caps[3 + i]}
            for i, name in enumerate(names)
        ],
        links=[
            {"from": a, "to": b, "rate": rate} for (a, b), rate in zip(pairs, rates, strict=True)
        ],
        rtt=10,
    )
    view = build_wan(config, LanConfig(), 0).view()
    found = describe(build_wan(config, LanConfig(), 0))
    expected = brute_force_cut(names, view.rate, view.egress, view.ingress)
    assert found["min_cut_mbit"] == pytest.approx(expected / 1e6)
    assert sorted(found["min_cut_from"] + found["min_cut_to"]) == names
    assert found["min_cut_from"]
    assert found["min_cut_to"]


def test_description_of_three_centers():
    found = describe(wan_of())
    assert found["min_cut_mbit"] == 100
    assert {"from": "c1", "to": "c3", "rate_mbit": 60.0, "delay_ms": 20.0} in found["links"]
    assert {"from": "c3", "to": "c2", "path": ["c3", "c2"], "rtt_ms": 60.0} in found["routes"]
    assert [c["out_mbit"] for c in found["centers"]] == [160, 140, 100]
    assert found["dynamics"] == {"kind": "constant", "draw": None}


def test_routes_cross_intermediate_centers():
    routes = {(r["from"], r["to"]): r for r in describe(wan_of("netstorm9_static"))["routes"]}
    assert len(routes) == 72
    assert routes["c1", "c8"]["path"] == ["c1", "c2", "c5", "c7", "c8"]
    assert routes["c1", "c8"]["rtt_ms"] == pytest.approx(40)


def test_a_single_center_has_no_cut():
    found = describe(wan_of("single_center"))
    assert (found["min_cut_mbit"], found["routes"], found["links"]) == (None, [], [])


def test_text_names_everything_a_reader_needs():
    text = text_of(
        wan_of(
            "netstorm9_dynamic",
            bandwidth_scale=0.25,
            centers=[{"name": "c1", "egress": 40}] + [f"c{i}" for i in range(2, 10)],
        )
    )
    for words in (
        "netstorm9_dynamic: 9 centers, 26 directed links, scheduler in c1",
        "bandwidth_scale 0.25, delay_scale 1",
        "redrawn every 180 s from U{20..155} Mbit/s, seed 0",
        "10/-",  # the cap of c1, scaled
        "min-cut",
        "c8 via c2 c5 c7 (40)",
        "arXiv 2404.11352",
        "estimated rtt",
    ):
        assert words in text


def test_text_of_one_way_links():
    ring = [{"from": a, "to": b, "rate": 8} for a, b in ("xy", "yz", "zx")]
    wan = build_wan(WanConfig("ring", None, list("xyz"), ring, rtt=6), LanConfig(), 0)
    text = text_of(wan)
    assert text.count("no link") == 3
    assert "3 one way" in text
    assert "z via y" in text


def test_text_of_a_wan_without_links_and_of_one_draw():
    assert "1 center, 0 directed links" in text_of(wan_of("single_center"))
    assert "drawn once from U{20..155}" in text_of(wan_of("netstorm9_draw"))


def test_json_on_the_command_line(capsys):
    assert main(["wan=uniform", "--format", "json", "wan.centers=4", "wan.rate=25"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["centers"]) == 4
    assert {link["rate_mbit"] for link in found["links"]} == {25}


def test_table_on_the_command_line(capsys):
    assert main(["wan=three_centers"]) == 0
    assert "c1 - c2" in capsys.readouterr().out


def test_a_mistake_on_the_command_line(capsys):
    assert main(["wan=three_center"]) == 2
    captured = capsys.readouterr()
    assert "did you mean 'three_centers'" in captured.err
    assert captured.out == ""
