"""Measured rates on the emulated WAN: real TCP, and a link that dies and comes back."""

import json

import pytest

from geojax.config import RunConfig
from geojax.models.registry import SyntheticConfig
from testbed.run import run
from testbed.wan.build import load_preset

pytestmark = [pytest.mark.emulated, pytest.mark.timeout(240)]
OUT, BACK = 3.0, 8.0  # s


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Summary and events of a run in which the link from c2 to c3 is out for a while."""
    config = RunConfig(rounds=17)
    config.wan = load_preset("three_centers")
    config.wan.dynamics = {
        "kind": "outage", "from": "c2", "to": "c3", "at": OUT, "duration": BACK - OUT,
    }  # fmt: skip
    config.testbed.name = "emulated"
    config.model = SyntheticConfig(bytes=4_000_000, pace_s=0.02)
    config.overlay.name, config.overlay.awareness = "netstorm", "measured"
    config.overlay.chunk_elements = 16_384
    folder = tmp_path_factory.mktemp("measured")
    summary = run(config, folder)
    lines = (folder / "events.jsonl").read_text().splitlines()
    return summary, [json.loads(line) for line in lines]


def views(events):
    """Times and believed rates, Mbit/s."""
    believed = {}
    for event in events:
        if event["event"] == "view":
            believed |= {(a, b): rate / 1e6 for a, b, rate, _ in event["links"]}
            yield event["t"], dict(believed)


def test_chunks_alone_tell_the_rates_of_the_links(measured):
    summary, events = measured
    before = [view for t, view in views(events) if t < OUT][-1]
    true = {("c1", "c2"): 100, ("c1", "c3"): 60, ("c2", "c3"): 40}
    for edge, rate in true.items():
        for way in (edge, edge[::-1]):
            expected = pytest.approx(summary["goodput_factor"] * rate, rel=0.25)
            assert before[way] == expected, way
    assert 0 < summary["view_error"]["mean"] < 0.5
    assert summary["probe_bytes"] <= 0.01 * summary["wan_bytes"]


def test_an_outage_and_its_end_are_noticed(measured):
    _, events = measured
    seen = list(views(events))
    went = next(t for t, view in seen if view["c2", "c3"] == 0)
    back = next(t for t, view in seen if t > went and view["c2", "c3"] > 0)
    assert OUT + 2 <= went < OUT + 5
    assert BACK <= back < BACK + 5


def test_rounds_go_round_the_link_before_it_is_back(measured):
    """c2 and c3 reach each other over c1."""
    _, events = measured
    change = next(e for e in events if e["event"] == "policy" and e["reason"] == "outage")
    assert OUT + 2 <= change["t"] < BACK
    for tree in change["policy"]["trees"]:
        nodes = change["policy"]["nodes"]
        for ways in (tree["up"], tree.get("down", tree["up"])):
            pairs = [{node, nodes[up]} for node, up in zip(nodes, ways, strict=True) if up >= 0]
            assert {"c2", "c3"} not in pairs
    held = [e["held"] for e in events if e["event"] == "round" and e["round"] >= change["first"]]
    assert change["t"] < min(held) < BACK
