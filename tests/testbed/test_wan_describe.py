"""What ``python -m testbed describe`` shows."""

import io
import itertools
import json

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from geojax.config import LanConfig, WanConfig
from geojax.overlay.bounds.cut import min_cut
from testbed.wan.build import build_wan, load_preset
from testbed.wan.describe import describe, main, render


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


def test_min_cut_of_a_large_mesh_is_the_slowest_center():
    wan = build_wan(WanConfig("mesh", "full_mesh", 40, rate=100, rtt=1), LanConfig(), 0)
    cut = min_cut(wan.view())
    assert cut.rate == 39 * 100e6
    assert sorted(cut.near + cut.far) == sorted(wan.center_names)


@examples(25)
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
    assert found["links"][2] == {
        "from": "c1",
        "to": "c3",
        "rate_mbit": 60.0,
        "delay_ms": 20.0,
        "jitter_ms": 0.0,
        "jitter_distribution": "uniform",
        "loss": 0.0,
        "estimated": {},
    }
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


def test_estimates_jitter_and_loss_are_shown():
    assert "~120.8" in text_of(wan_of("aws8_2025"))  # Mumbai's rtt
    assert " 73.8 " in text_of(wan_of("aws8_2025"))  # measured
    assert "~428.1/476.3" in text_of(wan_of("aws8_2025"))
    text = text_of(wan_of("three_centers", jitter=2, loss=0.01))
    assert "2; 0.01 | 2; 0.01" in text
    assert "~" not in text


def test_scripts_are_named():
    outage = {"kind": "outage", "between": ["c1", "c2"], "at": 30, "duration": 10}
    steps = {"kind": "steps", "steps": [{"at": 5, "all": True, "factor": 0.5}]}
    text = text_of(wan_of(dynamics=[outage, steps]))
    assert "outage from 30 to 40 s of c1->c2, c2->c1" in text
    assert "1 step until 5 s" in text


def test_a_large_wan_is_summed_up():
    wan = wan_of("random_sparse", centers=120)
    found = describe(wan)
    assert found["routes"] is None
    assert found["min_cut_mbit"] > 0
    text = text_of(wan)
    assert "out-degree 4 to 4, mean 4" in text
    assert "routes left out: 120 centers" in text
    assert len(text.splitlines()) < 40


def test_a_min_cut_that_would_take_minutes_is_left_out(monkeypatch):
    monkeypatch.setattr("testbed.wan.describe.CUT_WORK", 20)
    found = describe(wan_of())
    assert found["min_cut_mbit"] is None
    assert "4 maximum flows" in found["left_out"]["min_cut"]


@pytest.mark.parametrize("end", ["png", "svg", "pdf"])
def test_a_picture_on_the_command_line(tmp_path, capsys, end):
    path = tmp_path / f"wan.{end}"
    assert main(["wan=three_centers", "--picture", str(path)]) == 0
    assert path.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml", b"%PDF-")
    assert str(path) in capsys.readouterr().err


def test_a_trace_on_the_command_line_is_read_again(tmp_path):
    path = tmp_path / "rates.csv"
    assert main(["wan=netstorm9_dynamic", "--trace", str(path), "--until", "400"]) == 0
    original = wan_of("netstorm9_dynamic")
    replayed = wan_of("netstorm9_dynamic", dynamics=[{"kind": "trace", "file": str(path)}])
    assert original.links == replayed.links
    changes = list(itertools.takewhile(lambda change: change.at < 400, original.changes()))
    assert list(replayed.changes()) == changes
    assert len(changes) == 2


def test_no_number_of_a_table_is_cut_on_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["wan=aws8_2025"]) == 0
    printed = capsys.readouterr().out
    assert "~459.3/390.4" in printed
    assert "…" not in printed


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--picture", "wan.gif"], "end the name with one of .png, .svg, .pdf"),
        (["--picture", "nowhere/wan.png"], "there is no folder nowhere"),
        (["--trace", "nowhere/rates.csv"], "there is no folder nowhere"),
        (["--trace", "rates.csv", "--until", "0"], "above 0"),
    ],
)
def test_files_that_cannot_be_written(capsys, more, words):
    assert main(["wan=three_centers", *more]) == 2
    assert words in capsys.readouterr().err


def test_a_mistake_on_the_command_line(capsys):
    assert main(["wan=three_center"]) == 2
    captured = capsys.readouterr()
    assert "did you mean 'three_centers'" in captured.err
    assert captured.out == ""


def test_bounds_of_one_synchronization(capsys):
    assert main(["wan=netstorm9_static", "--format", "json", "--bytes", "1000000"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"] == 1_000_000
    assert found["cut_bound_s"] == pytest.approx(8e6 / (found["min_cut_mbit"] * 1e6), abs=1e-6)
    assert found["bound_s"] >= max(found["cut_bound_s"], found["volume_bound_s"])
    assert found["node_bound_s"] <= found["cut_bound_s"]
    assert found["latency_bound_s"] > 0


def test_the_model_is_leafs_cnn_unless_stated():
    found = describe(wan_of())
    assert found["bytes"] == 26_414_840
    assert "one synchronization of 26,414,840 bytes takes at least" in text_of(wan_of())


def test_a_single_center_waits_for_nobody():
    found = describe(wan_of("single_center"))
    assert found["bound_s"] == found["latency_bound_s"] == 0
    assert "at least" not in text_of(wan_of("single_center"))


def test_bounds_of_large_meshes_are_left_out():
    mesh = build_wan(WanConfig("mesh", "full_mesh", 24, rate=100, rtt=1), LanConfig(), 0)
    found = describe(mesh)
    assert found["bound_s"] is found["cut_bound_s"] is None
    assert "24 centers and 552 links" in found["left_out"]["bounds"]
    assert "bounds left out" in text_of(mesh)


def test_a_model_without_bytes_is_refused(capsys):
    assert main(["wan=three_centers", "--bytes", "0"]) == 2
    assert "--bytes" in capsys.readouterr().err
