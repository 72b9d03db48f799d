"""A site of its own for scheduler and global servers: links, nodes, descriptions, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from geojax.config import LanConfig, WanConfig
from geojax.errors import ConfigError
from geojax.hips.cluster import Cluster, NodeSpec
from testbed.emulated.layout import Layout
from testbed.simulated.routes import NodeRoutes, resources
from testbed.wan.build import NodePlace, Wan, build_wan
from testbed.wan.describe import describe
from testbed.wan.picture import draw
from testbed.wan.tables import render

LINKS = [{"between": ["c1", "c2"], "rate": 100, "rtt": 20}]
SITE = {"name": "external", "workers": 0}
NUMBERS = {"rate": 50, "rtt": 30}


def build(servers: int = 1, lan: LanConfig | None = None, **fields: Any) -> Wan:
    """Two centers and the site."""
    made = {
        "name": "pair", "centers": ["c1", "c2"], "links": LINKS, "server_center": "external",
        "external": NUMBERS, **fields,
    }  # fmt: skip
    return build_wan(WanConfig(**made), lan or LanConfig(), 0, servers)


def links(wan: Wan) -> dict[tuple[str, str], tuple[float, float]]:
    """Mbit/s and one-way ms of the links that the site has."""
    return {
        link.edge: (link.rate / 1e6, round(link.delay * 1e3, 6))
        for link in wan.links
        if "external" in link.edge
    }


BOTH_WAYS = [(a, b) for c in ("c1", "c2") for a, b in ((c, "external"), ("external", c))]


def test_every_center_has_links_to_it_and_back() -> None:
    wan = build()
    assert wan.center_names == wan.view().centers == ("c1", "c2", "external")
    assert links(wan) == dict.fromkeys(BOTH_WAYS, (50, 15))
    assert [link.edge for link in wan.links[:2]] == [("c1", "c2"), ("c2", "c1")]
    assert wan.centers[-1].workers == 0
    assert wan.server_center == "external"


def test_scales_defaults_and_draws_hold_for_its_links_too() -> None:
    scaled = build(bandwidth_scale=0.5, delay_scale=2, jitter=1, loss=0.01)
    assert links(scaled) == dict.fromkeys(BOTH_WAYS, (25, 30))
    assert {(link.jitter, link.loss) for link in scaled.links} == {(0.002, 0.01)}
    uniform = {"generator": "uniform", "centers": 2, "links": [], "rate": 80, "rtt": 10}
    assert links(build(**uniform, external=None)) == dict.fromkeys(BOTH_WAYS, (80, 5))
    assert links(build(**uniform, external={"rtt": 6})) == dict.fromkeys(BOTH_WAYS, (80, 3))
    drawn = build(draw={"low": 1, "high": 3}, external={"rtt": 6})
    assert {rate for rate, _ in links(drawn).values()} <= {1, 2, 3}
    redrawn = build(dynamics={"kind": "redraw", "period_s": 5, "low": 4, "high": 9})
    assert set(next(redrawn.changes()).rates) == {link.edge for link in redrawn.links}


def test_the_site_does_not_change_what_the_other_links_draw() -> None:
    draw = {"low": 1, "high": 1000}
    with_site = build(draw=draw).links[:2]
    assert with_site == build(draw=draw, server_center=None, external=None).links


def test_a_wan_may_state_the_sites_own_links() -> None:
    own = {"centers": [SITE, "c1", "c2"], "external": None}
    stated = [
        *LINKS,
        {"between": ["c1", "external"], "rate": 7, "rtt": 4},
    ]
    wan = build(**own, links=stated)
    assert wan.center_names == ("c1", "c2", "external")
    assert links(wan) == dict.fromkeys(BOTH_WAYS[:2], (7, 2))


@pytest.mark.parametrize(
    ("servers", "names"),
    [(1, ["external"]), (3, ["external/g0", "external/g1", "external/g2"])],
)
def test_scheduler_and_global_servers_live_there(servers: int, names: list[str]) -> None:
    wan = build(servers, LanConfig(workers=2))
    nodes = wan.nodes()
    assert nodes[0] == NodePlace("scheduler", "external", "scheduler")
    assert [node for node in nodes if node.role == "global"] == [
        NodePlace(name, "external", "global") for name in names
    ]
    assert list(nodes[-servers:]) == [NodePlace(name, "external", "global") for name in names]
    cluster = Cluster(tuple(NodeSpec(*node) for node in nodes))
    assert cluster.servers == ("c1", "c2")
    assert cluster.global_servers == tuple(names)
    assert cluster.trainers == ("c1/w0", "c1/w1", "c2/w0", "c2/w1")
    assert cluster.members[-servers:] == tuple(names)
    living = [name for name in cluster.members if name != names[0]]
    assert cluster.groups(living)[0] == ("c1", "c2", *names[1:])
    assert cluster.survivors(cluster.members, names[:1]) == tuple(living)
    assert cluster.groups(cluster.members)[1] == ("c1", "c1/w0", "c1/w1")


LINE = {
    "centers": ["c1", "c2", "c3", "c4"],
    "links": [
        *LINKS,
        {"between": ["c2", "c3"], "rate": 100, "rtt": 20},
        {"between": ["c3", "c4"], "rate": 100, "rtt": 20},
    ],
}


def test_with_no_server_there_the_site_is_the_schedulers_alone() -> None:
    """Plans and bounds see the WAN without it, and nothing between centers passes through it."""
    wan = build(0, **LINE)
    alone = build(**LINE, server_center=None, external=None)
    assert [node for node in wan.nodes() if node.center == "external"] == [
        NodePlace("scheduler", "external", "scheduler")
    ]
    assert wan.center_names == ("c1", "c2", "c3", "c4", "external")
    assert wan.view() == alone.view()
    found = wan.routes()
    assert {pair: found[pair] for pair in alone.routes()} == dict(alone.routes())
    assert found["c1", "c4"] == ("c1", "c2", "c3", "c4")
    assert found["external", "c4"] == ("external", "c4")
    assert build(1, **LINE).routes()["c1", "c4"] == ("c1", "external", "c4")


def test_a_site_with_few_links_is_reached_over_centers() -> None:
    stated = [*LINE["links"], {"between": ["c1", "external"], "rate": 7, "rtt": 4}]
    wan = build(0, centers=[*LINE["centers"], SITE], links=stated, external=None)
    assert wan.routes()["external", "c4"] == ("external", "c1", "c2", "c3", "c4")
    assert wan.routes()["c4", "external"] == ("c4", "c3", "c2", "c1", "external")
    lines = Layout(wan, "gtest").gateway_lines(wan.centers[2])
    assert [line.split(" dev")[0] for line in lines if " via " in line] == [
        "route add 10.200.0.1/32 via 10.200.0.2", "route add 10.200.0.5/32 via 10.200.0.2",
    ]  # fmt: skip


def test_centers_must_be_joined_without_the_schedulers_site() -> None:
    hub = {"links": [], "centers": ["c1", "c2"]}
    assert len(build(1, **hub).links) == 4
    with pytest.raises(ConfigError, match="no link joins these parts") as raised:
        build(0, **hub)
    assert raised.value.value == "c1 | c2"
    assert build(0, centers=["c1"], links=[]).view().centers == ("c1",)


def test_routes_lead_from_a_worker_over_its_gateway_to_a_global_server() -> None:
    wan = build(2, LanConfig(workers=2))
    cluster = Cluster(tuple(NodeSpec(*node) for node in wan.nodes()))
    routes = NodeRoutes(wan, cluster)
    assert routes["c1", "external/g1"].resources == (("link", "c1", "external"),)
    assert routes["external/g0", "c1"].delay == 0.015
    assert routes["external/g0", "scheduler"].resources == ()
    assert routes["scheduler", "c1/w1"].resources == (
        ("link", "external", "c1"), ("up", "c1"), ("down", "c1/w1"),
    )  # fmt: skip
    assert set(routes["c2/w0", "scheduler"].resources) <= set(resources(wan, cluster))


def test_emulated_global_servers_are_processes_of_one_host() -> None:
    wan = build(2, LanConfig(workers=2))
    addresses = Layout(wan, "gtest").addresses
    on_site = {addresses[name] for name in ("scheduler", "external/g0", "external/g1")}
    assert on_site == {addresses["external"]} == {"10.200.0.3"}
    assert {node.name for node in wan.nodes()} <= set(addresses)
    assert Layout(build(), "gtest").has_lan(wan.centers[-1]) is False


def test_descriptions_and_pictures_tell_the_site_from_the_centers(tmp_path: Path) -> None:
    wan = build()
    found = describe(wan)
    assert [center["workers"] for center in found["centers"]] == [1, 1, 0]
    console = Console(record=True, width=120)
    render(found, console)
    assert "2 centers, 6 directed links, scheduler and global server in external" in (
        console.export_text()
    )
    positions = [{"name": "c1", "position": [0, 0]}, {"name": "c2", "position": [10, 5]}]
    for number, made in enumerate([wan, build(centers=positions)]):
        path = tmp_path / f"{number}.svg"
        draw(made, path)
        svg = path.read_text()
        assert "pair: 2 centers, servers in external, 6 directed links" in svg
    draw(build(0), tmp_path / "alone.svg")
    assert "pair: 2 centers, scheduler in external" in (tmp_path / "alone.svg").read_text()


MISTAKES = {
    "no numbers": ({"external": None}, "wan.external", r"wan.external=\{rate: 100, rtt: 40\}"),
    "no rtt": ({"external": {"rate": 5}}, "wan.external", "wan.rtt for all"),
    "no rate": ({"external": {"rtt": 5}}, "wan.external", "wan.rate and"),
    "other key": ({"external": {"delay": 5}}, "wan.external.delay", "valid: rate, rtt"),
    "bad rate": ({"external": {"rate": -5, "rtt": 1}}, "wan.external.rate", "above 0"),
    "bad rtt": ({"external": {"rate": 5, "rtt": -1}}, "wan.external.rtt", "at least 0"),
    "no mapping": ({"external": 5}, "wan.external", "mapping with the keys rate, rtt"),
    "not used": ({"server_center": "c1"}, "wan.external", "wan.server_center=external only"),
    "site not used": (
        {"centers": ["c1", "c2", SITE], "server_center": None, "external": None},
        "wan.server_center",
        "write external",
    ),
    "stated twice": ({"centers": ["c1", "c2", SITE]}, "wan.external", "leave this out"),
    "with workers": (
        {"centers": ["c1", "c2", {"name": "external", "workers": 2}], "external": None},
        "wan.centers[2].workers",
        "workers: 0",
    ),
    "workers by default": (
        {"centers": ["c1", "c2", "external"], "external": None},
        "wan.centers[2].workers",
        "workers: 0",
    ),
    "nobody else": (
        {"centers": [SITE], "links": [], "external": None}, "wan.centers", "at least one center",
    ),
    "cut off": (
        {"centers": ["c1", "c2", SITE], "external": None}, "wan.links", "no link joins",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "key", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_refused_with_its_key_and_the_fix(
    fields: dict[str, Any], key: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        build(**fields)
    assert raised.value.key == key
