"""The conformance table of overlays: one row each, and every row meets every check."""

import msgpack
import networkx
import pytest

from geojax.config import OverlayConfig
from geojax.errors import ConfigError
from geojax.overlay.planners.mlnet import MlnetConfig, mlnet
from geojax.overlay.planners.multigps import MultigpsConfig, multigps
from geojax.overlay.planners.netstorm import NetstormConfig
from geojax.overlay.planners.ring import RingConfig
from geojax.overlay.planners.sharded_star import sharded_star
from geojax.overlay.planners.star import StarConfig, star
from geojax.overlay.planners.tsengine import TsengineConfig
from geojax.overlay.policy.policy import Policy, deal
from geojax.overlay.registry import OVERLAYS, PackingConfig, build_overlay
from geojax.overlay.view import NetworkView

CENTERS = ("c1", "c2", "c3", "c4", "c5", "c6")
SIZES = [65_536] * 7 + [1_000]

# name of the row -> the configuration of the overlay
OVERLAY_ROWS = {
    "star": OverlayConfig(name="star"),
    "star, root c4": StarConfig(root="c4"),
    "sharded star": OverlayConfig(name="sharded_star"),
    "multigps": MultigpsConfig(servers=2),
    "multigps, named": MultigpsConfig(servers=["c4", "c1", "c5"]),
    "multigps, by key": MultigpsConfig(servers=3, placement="geomx"),
    "butterfly": OverlayConfig(name="butterfly"),
    "mlnet": OverlayConfig(name="mlnet"),
    "mlnet, root c4, arity 3": MlnetConfig(root="c4", arity=3),
    "netstorm": OverlayConfig(name="netstorm"),
    "netstorm, 2 roots": NetstormConfig(roots=2),
    "ring": OverlayConfig(name="ring"),
    "ring, bottleneck": RingConfig(order="bottleneck"),
    "tsengine": OverlayConfig(name="tsengine"),
    "tsengine, faithful, root c4": TsengineConfig(root="c4", faithful=True),
    "packing": OverlayConfig(name="packing"),
    "packing, 2 trees": PackingConfig(max_trees=2),
}


def network(centers=CENTERS):
    """A bidirectional ring with uneven rates: sparse, so that logical edges need routes."""
    ring = list(zip(centers, centers[1:] + centers[:1], strict=True))
    edges = ring + [(target, source) for source, target in ring]
    return NetworkView(
        centers=tuple(centers),
        rate={edge: (10 + 7 * index) * 1e6 for index, edge in enumerate(edges)},
        delay=dict.fromkeys(edges, 0.005),
    )


MEMBER_LISTS = {
    "all": CENTERS,
    "without the first": CENTERS[1:],
    "without c4": tuple(c for c in CENTERS if c != "c4"),
    "two": ("c3", "c5"),
    "one": ("c5",),
}

each_row = pytest.mark.parametrize("row", OVERLAY_ROWS.values(), ids=OVERLAY_ROWS.keys())
each_members = pytest.mark.parametrize("members", MEMBER_LISTS.values(), ids=MEMBER_LISTS.keys())


def plan(row, members, version=3) -> Policy:
    return build_overlay(row, CENTERS).plan(network(), members, SIZES, version)


SITES = ("site/g0", "site/g1")
ON_SITES = {
    "star": OverlayConfig(name="star"),
    "multigps": MultigpsConfig(servers=2),
}
each_on_sites = pytest.mark.parametrize("row", ON_SITES.values(), ids=ON_SITES.keys())


@each_on_sites
@each_members
def test_roots_on_a_site_of_their_own_do_not_contribute(row, members):
    overlay = build_overlay(row, CENTERS, SITES)
    for living in (SITES, SITES[1:]):
        policy = overlay.plan(network(), (*members, *living), SIZES, 3)
        assert policy.members == tuple(members)
        assert policy.passive == (living if row.name == "multigps" else living[:1])
        for tree in policy.trees:
            assert tree.parent == dict.fromkeys(members, tree.root)
        assert Policy.from_dict(policy.to_dict()) == policy
    alone = overlay.plan(network(), members, SIZES, 3)
    assert alone.passive == ()
    assert [tree.root for tree in alone.trees] == [members[0]]


@pytest.mark.parametrize(
    ("servers", "members", "expected"),
    [
        (2, CENTERS, ["c1", "c2"]),
        (2, CENTERS[1:], ["c2", "c3"]),  # c1 died: the next one serves
        (9, ("c2", "c5"), ["c2", "c5"]),
        (["c4", "c2"], CENTERS, ["c4", "c2"]),
        (["c4", "c2"], ("c1", "c2"), ["c2"]),
        (["c4"], ("c6", "c3"), ["c3"]),  # none is left: the first in WAN order
    ],
)
def test_roots_of_multigps(servers, members, expected):
    policy = multigps(servers=servers).plan(network(), members, SIZES, 0)
    assert [tree.root for tree in policy.trees] == expected
    assert policy.placement == "bytes"


def test_every_registered_overlay_has_a_row():
    assert {row.name for row in OVERLAY_ROWS.values()} == set(OVERLAYS)


@each_row
def test_the_overlay_bears_its_configured_name(row):
    assert build_overlay(row, CENTERS).name == row.name


@each_row
@each_members
def test_policy_carries_version_and_members(row, members):
    policy = plan(row, members, version=42)
    assert policy.version == 42
    assert policy.members == tuple(members)
    assert policy.trees


@each_row
@each_members
def test_every_tree_spans_the_members_and_nothing_else(row, members):
    for tree in plan(row, members).trees:
        for way in (tree.parent, tree.source):
            assert {tree.root, *way} == set(members)
            assert set(way.values()) <= set(members)
            assert tree.root not in way


@each_row
@each_members
def test_every_tree_leads_to_its_root_without_a_cycle(row, members):
    for tree in plan(row, members).trees:
        for way in (tree.parent, tree.source):
            graph = networkx.DiGraph()
            graph.add_node(tree.root)
            graph.add_edges_from((up, child) for child, up in way.items())
            assert networkx.is_arborescence(graph)
            assert set(networkx.descendants(graph, tree.root)) | {tree.root} == set(members)


@each_row
@each_members
def test_shares_are_positive_and_sum_to_one(row, members):
    shares = [tree.share for tree in plan(row, members).trees]
    assert all(share > 0 for share in shares)
    assert sum(shares) == pytest.approx(1.0, abs=1e-9)


@each_row
@each_members
def test_children_come_in_member_order(row, members):
    for tree in plan(row, members).trees:
        for member in members:
            for children in (list(tree.children(member)), list(tree.receivers(member))):
                assert children == sorted(children, key=list(members).index)


@each_row
@each_members
def test_planning_is_deterministic(row, members):
    assert plan(row, members) == plan(row, members)
    overlay = build_overlay(row, CENTERS)
    first = overlay.plan(network(), members, SIZES, 1)
    overlay.plan(network(), CENTERS[2:4], SIZES, 2)  # an overlay keeps no memory of other plans
    assert overlay.plan(network(), members, SIZES, 1) == first


@each_row
@each_members
def test_a_policy_survives_the_wire(row, members):
    policy = plan(row, members)
    received = Policy.from_dict(msgpack.unpackb(msgpack.packb(policy.to_dict())))
    assert received == policy
    for tree, sent in zip(received.trees, policy.trees, strict=True):
        assert list(tree.parent) == list(sent.parent)
        assert list(tree.source) == list(sent.source)


@pytest.mark.parametrize(
    ("root", "members", "expected"),
    [
        (None, CENTERS, "c1"),
        ("c4", CENTERS, "c4"),
        ("c4", ("c1", "c2"), "c1"),  # the configured root died
        (None, ("c6", "c3", "c5"), "c3"),  # first in WAN order, not in member order
    ],
)
def test_star_root(root, members, expected):
    (tree,) = star(root=root).plan(network(), members, SIZES, 0).trees
    assert tree.root == expected
    assert set(tree.parent.values()) <= {expected}


@each_members
def test_sharded_star_has_every_member_as_the_root_of_an_equal_share(members):
    policy = sharded_star().plan(network(), members, SIZES, 0)
    assert [tree.root for tree in policy.trees] == list(members)
    assert all(set(tree.parent.values()) <= {tree.root} for tree in policy.trees)
    placed = deal(policy.trees, [1000] * 6 * len(members))
    assert [placed.count(tree) for tree in range(len(members))] == [6] * len(members)


@pytest.mark.parametrize(
    ("arity", "root", "parents"),
    [
        (1, None, {"c2": "c1", "c3": "c2", "c4": "c3", "c5": "c4", "c6": "c5"}),
        (2, None, {"c2": "c1", "c3": "c1", "c4": "c2", "c5": "c2", "c6": "c3"}),
        (2, "c4", {"c1": "c4", "c2": "c4", "c3": "c1", "c5": "c1", "c6": "c2"}),
        (3, None, {"c2": "c1", "c3": "c1", "c4": "c1", "c5": "c2", "c6": "c2"}),
        (5, "c3", dict.fromkeys(("c1", "c2", "c4", "c5", "c6"), "c3")),  # a star
    ],
)
def test_mlnet_fills_its_tree_level_by_level(arity, root, parents):
    (tree,) = mlnet(root=root, arity=arity).plan(network(), CENTERS, SIZES, 0).trees
    assert tree.parent == parents


@pytest.mark.parametrize(
    ("settings", "key", "words"),
    [
        ({"name": "stat"}, "overlay.name", "did you mean 'star'"),
        ({"name": "star", "root": "c9"}, "overlay.root", "valid: c1"),
        ({"name": "sharded_star", "root": "c1"}, "overlay.root", "does not read it"),
        ({"name": "butterfly", "root": "c1"}, "overlay.root", "does not read it"),
        ({"name": "netstorm", "root": "c1"}, "overlay.root", "it reads: roots"),
        ({"name": "netstorm", "roots": 0}, "overlay.roots", "at least 1"),
        ({"name": "netstorm", "roots": 7}, "overlay.roots", "there are 6 centers"),
        ({"name": "mlnet", "arity": 0}, "overlay.arity", "at least 1"),
        ({"name": "ring", "root": "c1"}, "overlay.root", "does not read it"),
        ({"name": "ring", "order": "tps"}, "overlay.order", "did you mean 'tsp'"),
        ({"name": "tsengine", "greed": 1.1}, "overlay.greed", "at least 0, at most 1"),
        ({"name": "star", "chunk_elements": 0}, "overlay.chunk_elements", "at least 1"),
        ({"name": "star", "servers": 2}, "overlay.servers", "read by overlay=multigps"),
        ({"name": "multigps"}, "overlay.servers", "how many"),
        ({"name": "multigps", "servers": 0}, "overlay.servers", "how many"),
        ({"name": "multigps", "servers": "c1"}, "overlay.servers", "list the centers"),
        ({"name": "multigps", "servers": True}, "overlay.servers", "list the centers"),
        ({"name": "multigps", "servers": 7}, "overlay.servers", "6 centers"),
        ({"name": "multigps", "servers": ["c9"]}, "overlay.servers", "valid: c1"),
        ({"name": "multigps", "servers": ["c1", "c1"]}, "overlay.servers", "once"),
        ({"name": "multigps", "servers": 2, "root": "c1"}, "overlay.root", "does not read it"),
        (
            {"name": "multigps", "servers": 2, "placement": "byte"},
            "overlay.placement",
            "did you mean 'bytes'",
        ),
    ],
)
def test_wrong_settings_are_refused(settings, key, words):
    with pytest.raises(ConfigError, match=words) as raised:
        build_overlay(OVERLAYS.settings(settings.pop("name"), **settings), CENTERS)
    assert raised.value.key == key
