"""From configuration to WAN: what is built, and how every mistake is refused."""

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.config import LanConfig, WanConfig
from geojax.errors import ConfigError
from testbed.wan.build import Center, Link, NodePlace, build_wan


def config(**fields):
    """Three centers in a triangle; ``fields`` replace parts of it."""
    fields = {
        "name": "triangle",
        "centers": ["c1", "c2", "c3"],
        "links": [
            {"between": ["c1", "c2"], "rate": 100, "rtt": 20},
            {"between": ["c2", "c3"], "rate": 40.5, "rtt": 60},
            {"from": "c1", "to": "c3", "rate": 500, "rtt": 8},
        ],
        **fields,
    }
    return WanConfig(**fields)


def build(lan=None, run_seed=0, **fields):
    return build_wan(config(**fields), lan or LanConfig(), run_seed)


def test_links_in_stated_order_with_units_converted():
    wan = build()
    assert wan.links == (
        Link("c1", "c2", 100e6, 0.010),
        Link("c2", "c1", 100e6, 0.010),
        Link("c2", "c3", 40.5e6, 0.030),
        Link("c3", "c2", 40.5e6, 0.030),
        Link("c1", "c3", 500e6, 0.004),
    )
    assert wan.edges == tuple(link.edge for link in wan.links)


def test_centers_take_lan_defaults_or_their_own():
    lan = LanConfig(rate=2000, rtt=0.4, workers=2)
    own = {"name": "c2", "workers": 5, "egress": 80, "ingress": 90, "lan_rate": 10, "lan_rtt": 2}
    wan = build(lan, centers=["c1", own, {"name": "c3"}])
    assert wan.centers == (
        Center("c1", 2, 2e9, 0.0002),
        Center("c2", 5, 10e6, 0.001, egress=80e6, ingress=90e6),
        Center("c3", 2, 2e9, 0.0002),
    )


def test_access_caps_of_centers_and_by_default():
    own = {"name": "c2", "egress": 80}
    wan = build(centers=["c1", own, "c3"], egress=50, ingress=60, bandwidth_scale=0.5)
    caps = [(center.egress, center.ingress) for center in wan.centers]
    assert caps == [(25e6, 30e6), (40e6, 30e6), (25e6, 30e6)]
    apart = build(
        generator="uniform", centers=2, links=[], rate=10, rtt=1, egress=50,
        server_center="external", external={"rate": 100, "rtt": 1},
    )  # fmt: skip
    assert [center.egress for center in apart.centers] == [50e6, 50e6, None]  # a site is no center


def test_jitter_and_loss_of_links_and_by_default():
    good = config().links
    wan = build(
        jitter={"ms": 1, "distribution": "normal"},
        loss=0.01,
        links=[{**good[0], "jitter": 2, "loss": 0}, *good[1:]],
        delay_scale=2,
    )
    assert [(link.jitter, link.jitter_distribution, link.loss) for link in wan.links[1:3]] == [
        (0.004, "uniform", 0.0),
        (0.002, "normal", 0.01),
    ]
    assert (build().links[0].jitter, build().links[0].loss) == (0.0, 0.0)


def test_positions_and_estimates_are_kept_but_change_nothing():
    good = config().links
    marked = build(
        centers=[
            "c1",
            {"name": "c2", "position": [2.3, 48], "estimated": {"lan_rtt": "guess"}},
            "c3",
        ],
        links=[{**good[0], "estimated": {"rtt": "distance"}}, *good[1:]],
    )
    assert marked.centers[1].position == (2.3, 48.0)
    assert marked.centers[1].estimated == {"lan_rtt": "guess"}
    assert [link.estimated for link in marked.links[1:3]] == [{"rtt": "distance"}, {}]
    assert marked == build()


def test_scales_touch_the_wan_and_leave_the_lan():
    wan = build(
        centers=["c1", "c2", {"name": "c3", "egress": 80, "ingress": 60}],
        bandwidth_scale=0.25,
        delay_scale=2,
    )
    assert wan.links[0] == Link("c1", "c2", 25e6, 0.020)
    assert wan.centers[2].egress == 20e6
    assert wan.centers[2].ingress == 15e6
    assert wan.centers[0].lan_rate == 1e9
    assert wan.centers[0].lan_delay == pytest.approx(0.0001)
    assert (wan.bandwidth_scale, wan.delay_scale) == (0.25, 2.0)


def test_links_default_to_the_wans_rate_and_rtt():
    wan = build(
        rate=7,
        rtt=30,
        links=[
            {"between": ["c1", "c2"]},
            {"between": ["c2", "c3"], "rate": 9},
            {"between": ["c1", "c3"], "rtt": 0},
        ],
    )
    assert [(link.rate, link.delay) for link in wan.links[::2]] == [
        (7e6, 0.015),
        (9e6, 0.015),
        (7e6, 0.0),
    ]


def test_view_holds_what_the_wan_holds():
    view = build(centers=["c1", {"name": "c2", "egress": 80}, "c3"]).view()
    assert view.centers == ("c1", "c2", "c3")
    assert view.rate["c1", "c3"] == 500e6
    assert ("c3", "c1") not in view.rate
    assert view.delay["c2", "c3"] == 0.030
    assert dict(view.egress) == {"c2": 80e6}
    assert dict(view.ingress) == {}


def test_nodes_with_one_and_with_several_workers():
    wan = build(centers=["c1", {"name": "c2", "workers": 2}, "c3"], server_center="c2")
    assert wan.nodes() == (
        NodePlace("scheduler", "c2", "scheduler"),
        NodePlace("c1", "c1", "server"),
        NodePlace("c2", "c2", "server"),
        NodePlace("c2/w0", "c2", "worker"),
        NodePlace("c2/w1", "c2", "worker"),
        NodePlace("c3", "c3", "server"),
    )


def test_the_scheduler_lives_in_the_first_center_by_default():
    assert build().server_center == "c1"


def test_drawn_rates_replace_stated_ones():
    wan = build(draw={"low": 1, "high": 3})
    assert {link.rate for link in wan.links} <= {1e6, 2e6, 3e6}
    assert wan.links[0].delay == 0.010


def test_a_single_center_needs_no_links():
    wan = build(centers=["only"], links=[])
    assert wan.center_names == ("only",)
    assert wan.view().rate == {}


def test_a_directed_ring_is_enough():
    ring = [{"from": a, "to": b, "rate": 1, "rtt": 1} for a, b in ("12", "23", "31")]
    wan = build(centers=["1", "2", "3"], links=ring)
    assert wan.edges == (("1", "2"), ("2", "3"), ("3", "1"))


@given(st.integers(1, 9), st.integers(1, 10_000), st.integers(0, 500))
def test_uniform_is_a_full_mesh_of_equal_links(size, rate, rtt):
    wan = build(generator="uniform", centers=size, links=[], rate=rate, rtt=rtt)
    assert wan.center_names == tuple(f"c{index}" for index in range(1, size + 1))
    assert len(wan.edges) == len(set(wan.edges)) == size * (size - 1)
    assert all(link.rate == rate * 1e6 for link in wan.links)
    assert all(link.delay == pytest.approx(rtt / 2000) for link in wan.links)


def test_uniform_can_draw_its_rates():
    fields = {"generator": "uniform", "centers": 4, "links": [], "rtt": 1}
    wan = build(**fields, draw={"low": 5, "high": 6})
    assert {link.rate for link in wan.links} == {5e6, 6e6}


def test_a_wan_travels_to_other_processes():
    wan = build(dynamics={"kind": "redraw", "period_s": 2, "low": 1, "high": 5})
    assert pickle.loads(pickle.dumps(wan)) == wan


def link(**fields):
    return {"links": [*config().links, {k.rstrip("_"): v for k, v in fields.items()}]}


def first_link(**fields):
    good = config().links
    return {"links": [{**good[0], **fields}, *good[1:]]}


def center(entry):
    return {"centers": ["c1", "c2", "c3", entry]}


LAST = "wan.links[3]"
MISTAKES = {
    "unknown center": (link(between=["c1", "c22"], rate=1), f"{LAST}.between[1]", "mean 'c2'"),
    "unknown from": (link(from_="cc3", to="c1", rate=1), f"{LAST}.from", "did you mean 'c3'"),
    "missing to": (link(from_="c3", rate=1), f"{LAST}.to", "no such center"),
    "center no text": (link(between=["c1", 2], rate=1), f"{LAST}.between[1]", "no such center"),
    "three ends": (link(between=["c1", "c2", "c3"]), f"{LAST}.between", "exactly two"),
    "ends as text": (link(between="c1"), f"{LAST}.between", "list of two centers"),
    "both forms": (link(between=["c1", "c2"], to="c3"), LAST, "either"),
    "neither form": (link(rate=5), LAST, "either"),
    "no mapping": ({"links": ["c1-c2"]}, "wan.links[0]", "mapping with the keys between"),
    "unknown link key": (first_link(latency=3), "wan.links[0].latency", "no such key"),
    "misspelt link key": (first_link(rtts=3), "wan.links[0].rtts", "did you mean 'rtt'"),
    "zero rate": (first_link(rate=0), "wan.links[0].rate", "finite number above 0"),
    "negative rate": (first_link(rate=-5), "wan.links[0].rate", "finite number above 0"),
    "rate is NaN": (first_link(rate=math.nan), "wan.links[0].rate", "finite number above 0"),
    "rate is infinite": (first_link(rate=math.inf), "wan.links[0].rate", "finite number"),
    "rate as text": (first_link(rate="100 Mbit/s"), "wan.links[0].rate", "plain number"),
    "rate is true": (first_link(rate=True), "wan.links[0].rate", "plain number"),
    "missing rate": (first_link(rate=None), "wan.links[0].rate", "or wan.rate for all"),
    "missing rtt": (first_link(rtt=None), "wan.links[0].rtt", "or wan.rtt for all"),
    "negative rtt": (first_link(rtt=-1), "wan.links[0].rtt", "at least 0"),
    "bad default rtt": (first_link(rtt=None) | {"rtt": "x"}, "wan.rtt", "in ms"),
    "bad default rate": (first_link(rate=None) | {"rate": 0}, "wan.rate", "in Mbit/s"),
    "unused rate": ({"rate": 5}, "wan.rate", "use wan.bandwidth_scale"),
    "unused rtt": ({"rtt": 5}, "wan.rtt", "use wan.delay_scale"),
    "negative jitter": (first_link(jitter=-1), "wan.links[0].jitter", "at least 0"),
    "jitter above delay": (
        first_link(jitter=11),
        "wan.links[0].jitter",
        "one-way delay of c1->c2, 10",
    ),
    "jitter no number": (first_link(jitter="x"), "wan.links[0].jitter", "plain number"),
    "jitter, no ms": (first_link(jitter={}), "wan.links[0].jitter.ms", "in ms"),
    "jitter, unknown": (
        first_link(jitter={"ms": 1, "distribution": "norml"}),
        "wan.links[0].jitter.distribution",
        "did you mean 'normal'",
    ),
    "default jitter above a delay": ({"jitter": 5}, "wan.jitter", "one-way delay of c1->c3, 4 ms"),
    "all is lost": (first_link(loss=1), "wan.links[0].loss", "below 1"),
    "negative loss": (first_link(loss=-0.1), "wan.links[0].loss", "at least 0"),
    "loss in percent": (first_link(loss="1%"), "wan.links[0].loss", "share of packets"),
    "bad default loss": ({"loss": 2}, "wan.loss", "below 1"),
    "estimated what": (
        first_link(estimated={"speed": "guess"}),
        "wan.links[0].estimated.speed",
        "valid: jitter",
    ),
    "estimated how": (first_link(estimated={"rtt": 3}), "wan.links[0].estimated.rtt", "the rule"),
    "no rule": (first_link(estimated="yes"), "wan.links[0].estimated", "mapping with the keys"),
    "one coordinate": (center({"name": "d", "position": [1]}), "wan.centers[3].position", "two"),
    "position as text": (center({"name": "d", "position": "x"}), "wan.centers[3].position", "list"),
    "position off the map": (
        center({"name": "d", "position": [0, math.inf]}),
        "wan.centers[3].position",
        "finite",
    ),
    "self link": (link(between=["c1", "c1"], rate=1, rtt=1), LAST, "two different centers"),
    "duplicate link": (
        link(from_="c2", to="c1", rate=1, rtt=1),
        LAST,
        r"wan\.links\[0\] states this link already",
    ),
    "links no list": ({"links": 5}, "wan.links", "list of links"),
    "no center": ({"centers": [], "links": []}, "wan.centers", "at least one center"),
    "centers missing": ({"centers": None}, "wan.centers", "list of centers"),
    "centers a number": ({"centers": 3}, "wan.centers", "only a generator"),
    "duplicate center": (center("c2"), "wan.centers[3]", r"wan\.centers\[1\] has this name"),
    "capital letters": (center("Paris"), "wan.centers[3]", "1 to 40 of the characters"),
    "name too long": (center("a" * 41), "wan.centers[3]", "1 to 40 of the characters"),
    "empty name": (center(""), "wan.centers[3]", "1 to 40 of the characters"),
    "name with slash": (center({"name": "c1/w0"}), "wan.centers[3].name", "1 to 40"),
    "reserved name": (center("scheduler"), "wan.centers[3]", "choose another"),
    "name a number": (center(4), "wan.centers[3]", "in quotes"),
    "no name": (center({"workers": 4}), "wan.centers[3].name", "write the center's name"),
    "unknown center key": (center({"name": "d", "egres": 4}), "wan.centers[3].egres", "'egress'"),
    "zero workers": (center({"name": "d", "workers": 0}), "wan.centers[3].workers", "at least 1"),
    "half a worker": (center({"name": "d", "workers": 1.5}), "wan.centers[3].workers", "whole"),
    "zero cap of all": ({"egress": 0}, "wan.egress", "above 0"),
    "zero egress": (center({"name": "d", "egress": 0}), "wan.centers[3].egress", "above 0"),
    "zero ingress": (center({"name": "d", "ingress": 0}), "wan.centers[3].ingress", "above 0"),
    "bad LAN rate": (center({"name": "d", "lan_rate": -1}), "wan.centers[3].lan_rate", "above 0"),
    "bad LAN rtt": (center({"name": "d", "lan_rtt": -1}), "wan.centers[3].lan_rtt", "at least 0"),
    "cut off": (center("c4"), "wan.links", "no link joins these parts"),
    "one way only": (
        {"links": config().links[:1] + config().links[2:]},
        "wan.links",
        "one direction only",
    ),
    "unknown server center": ({"server_center": "c4"}, "wan.server_center", "no such center"),
    "zero bandwidth": ({"bandwidth_scale": 0}, "wan.bandwidth_scale", "above 0"),
    "negative delay": ({"delay_scale": -0.5}, "wan.delay_scale", "at least 0"),
    "seed no number": ({"seed": "one"}, "wan.seed", "whole number"),
    "negative seed": ({"seed": -1}, "wan.seed", "at least 0"),
    "no WAN name": ({"name": ""}, "wan.name", "a name for the tables"),
    "unknown generator": ({"generator": "unifrom"}, "wan.generator", "did you mean 'uniform'"),
    "generator with links": ({"generator": "uniform"}, "wan.links", "makes the links"),
    "generator, no count": ({"generator": "uniform", "links": []}, "wan.centers", "number of"),
    "generator, zero": (
        {"generator": "uniform", "links": [], "centers": 0, "rate": 1, "rtt": 1},
        "wan.centers",
        "at least 1",
    ),
    "generator, no rate": (
        {"generator": "uniform", "links": [], "centers": 3, "rtt": 1},
        "wan.rate",
        "rate of every link",
    ),
    "generator, no rtt": (
        {"generator": "uniform", "links": [], "centers": 3, "rate": 1},
        "wan.rtt",
        "in ms",
    ),
}


@pytest.mark.parametrize(("fields", "key", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_refused_with_its_key_and_the_fix(fields, key, words):
    with pytest.raises(ConfigError, match=words) as raised:
        build(**fields)
    assert raised.value.key == key
    assert str(raised.value).startswith(f"{key} = ")


@pytest.mark.parametrize(
    ("lan", "key"),
    [
        (LanConfig(rate=0), "lan.rate"),
        (LanConfig(rtt=-1), "lan.rtt"),
        (LanConfig(workers=0), "lan.workers"),
    ],
)
def test_wrong_lan_defaults_are_refused(lan, key):
    with pytest.raises(ConfigError) as raised:
        build(lan)
    assert raised.value.key == key


def test_a_bad_run_seed_is_called_by_its_own_key():
    with pytest.raises(ConfigError) as raised:
        build(run_seed=-3)
    assert raised.value.key == "seed"


def test_the_parts_of_a_disconnected_wan_are_named():
    with pytest.raises(ConfigError) as raised:
        build(
            centers=["c1", "c2", "c3", "c4", "c5"],
            links=[config().links[0], {"between": ["c4", "c3"], "rate": 1, "rtt": 1}],
        )
    assert raised.value.value == "c1, c2 | c3, c4 | c5"


def test_centers_that_reach_others_one_way_only_are_named():
    with pytest.raises(ConfigError) as raised:
        build(links=config().links[:1] + config().links[2:])
    assert raised.value.value == "c1, c2 | c3"
