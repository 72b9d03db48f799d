"""From a WAN to resources and routes: LAN, WAN, and the scheduler."""

from __future__ import annotations

import pytest

from geojax.config import LanConfig, WanConfig
from geojax.hips.cluster import Cluster, NodeSpec
from testbed.simulated.routes import NodeRoutes, resources
from testbed.simulated.transport import Route
from testbed.wan.build import Wan, build_wan
from testbed.wan.hops import hops

MBIT = 1e6
LAN_DELAY = 0.0001  # half of the LAN's rtt of 0.2 ms


def laid_out() -> tuple[Wan, Cluster]:
    """a - b - c in a row; a has three workers, b two; b has access caps; the scheduler is in b."""
    config = WanConfig(
        name="row",
        centers=[{"name": "a", "workers": 3}, {"name": "b", "workers": 2, "egress": 50,
                 "ingress": 60}, "c"],
        links=[
            {"between": ["a", "b"], "rate": 10, "rtt": 20},
            {"from": "b", "to": "c", "rate": 30, "rtt": 40},
            {"from": "c", "to": "b", "rate": 40, "rtt": 60},
        ],
        server_center="b",
    )  # fmt: skip
    wan = build_wan(config, LanConfig(rate=1000.0, rtt=0.2), seed=0)
    cluster = Cluster(tuple(NodeSpec(node.name, node.center, node.role) for node in wan.nodes()))
    return wan, cluster


def test_resources_and_their_rates() -> None:
    found = resources(*laid_out())
    assert {key: rate / MBIT for key, rate in found.items() if key[0] not in ("up", "down")} == {
        ("link", "a", "b"): 10,
        ("link", "b", "a"): 10,
        ("link", "b", "c"): 30,
        ("link", "c", "b"): 40,
        ("egress", "b"): 50,
        ("ingress", "b"): 60,
    }
    ports = {key for key in found if key[0] in ("up", "down")}
    hosts = ["a", "a/w0", "a/w1", "a/w2", "b", "b/w0", "b/w1", "c"]
    assert ports == {(way, host) for way in ("up", "down") for host in hosts}
    assert {found[port] for port in ports} == {1000 * MBIT}


A_TO_B = [("link", "a", "b"), ("ingress", "b")]
B_TO_C = [("egress", "b"), ("link", "b", "c")]


@pytest.mark.parametrize(
    ("source", "target", "crossed", "delay"),
    [
        ("a", "b", A_TO_B, 0.01),
        ("b", "a", [("egress", "b"), ("link", "b", "a")], 0.01),
        ("a", "c", A_TO_B + B_TO_C, 0.03),
        ("c", "b", [("link", "c", "b"), ("ingress", "b")], 0.03),
        # LAN: worker and local server, worker and worker.
        ("a/w0", "a", [("up", "a/w0"), ("down", "a")], LAN_DELAY),
        ("a", "a/w2", [("up", "a"), ("down", "a/w2")], LAN_DELAY),
        ("a/w0", "a/w1", [("up", "a/w0"), ("down", "a/w1")], LAN_DELAY),
        # A worker reaches other centers through its gateway.
        ("a/w1", "b", [("up", "a/w1"), ("down", "a"), *A_TO_B], LAN_DELAY + 0.01),
        (
            "a/w1",
            "b/w0",
            [("up", "a/w1"), ("down", "a"), *A_TO_B, ("up", "b"), ("down", "b/w0")],
            2 * LAN_DELAY + 0.01,
        ),
        # The scheduler is on its center's gateway.
        ("scheduler", "b", [], 0.0),
        ("b", "scheduler", [], 0.0),
        ("b/w1", "scheduler", [("up", "b/w1"), ("down", "b")], LAN_DELAY),
        ("scheduler", "b/w1", [("up", "b"), ("down", "b/w1")], LAN_DELAY),
        ("scheduler", "c", B_TO_C, 0.02),
        ("a", "scheduler", A_TO_B, 0.01),
    ],
)
def test_routes(source: str, target: str, crossed: list, delay: float) -> None:
    route = NodeRoutes(*laid_out())[source, target]
    assert route == Route(tuple(crossed), pytest.approx(delay))


def test_every_route_crosses_known_resources_and_stays_the_same() -> None:
    wan, cluster = laid_out()
    known, routes = resources(wan, cluster), NodeRoutes(wan, cluster)
    names = [place.name for place in cluster.all]
    for source in names:
        for target in names:
            if source != target:
                route = routes[source, target]
                assert set(route.resources) <= set(known)
                assert len(set(route.resources)) == len(route.resources)
                assert routes[source, target] is route


def test_an_unknown_node_has_no_route() -> None:
    with pytest.raises(KeyError):
        NodeRoutes(*laid_out())["a", "nobody"]


def test_hops_are_the_wan_links_that_are_crossed() -> None:
    crossed = hops(*laid_out())
    assert crossed["a", "c"] == (("a", "b"), ("b", "c"))
    assert crossed["a/w0", "b/w1"] == (("a", "b"),)
    assert crossed["c", "scheduler"] == (("c", "b"),)
    assert crossed["a", "a/w0"] == crossed["scheduler", "b"] == ()
