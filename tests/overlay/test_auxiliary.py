"""Path tables: simple disjoint routes beside the primary way, for every pair of every overlay."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from overlay_graphs import auxiliary_routes
from test_overlays import CENTERS, OVERLAY_ROWS, SIZES, network
from wans import full_mesh, random_wan, wan_of

from geojax.config import OverlayConfig
from geojax.errors import ConfigError
from geojax.overlay.planners.netstorm import netstorm
from geojax.overlay.planners.star import star_tree
from geojax.overlay.policy.policy import Policy, Tree
from geojax.overlay.registry import build_overlay
from geojax.overlay.routes.auxiliary import MOST_ROUTES, Route, from_lists, path_tables, to_lists
from geojax.overlay.routes.fastest_paths import distances, tree_to
from geojax.overlay.routes.fastest_routes import fastest_routes, member_links
from geojax.overlay.routes.logical import OUTAGE_RATE, neighbour_links
from geojax.overlay.routes.static_routes import routes
from geojax.overlay.view import NetworkView

KINDS = ("fastest", "paced", "random")


def pairs(policy):
    up = {(child, parent) for tree in policy.trees for child, parent in tree.parent.items()}
    return up | {(top, child) for tree in policy.trees for child, top in tree.source.items()}


def check(view, policy, tables):
    assert list(tables) == list(policy.members)
    ways = routes(view)
    for source, table in tables.items():
        for target, found in table.items():
            assert (source, target) in pairs(policy)
            assert 1 <= len(found) <= MOST_ROUTES
            interior = list(ways[source, target][1:-1])
            for route in found:
                hops = route.hops
                assert (hops[0], hops[-1]) == (source, target)
                assert len(hops) >= 3
                assert len(set(hops)) == len(hops)
                assert set(hops) <= set(policy.members)
                interior += hops[1:-1]
            assert len(set(interior)) == len(interior)
            times = [sum(1 / view.rate[h] for h in itertools.pairwise(r.hops)) for r in found]
            assert times == sorted(times)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", OVERLAY_ROWS.values(), ids=OVERLAY_ROWS.keys())
def test_routes_of_all_overlays_are_simple_and_disjoint(row, kind):
    view = network()
    policy = build_overlay(row, CENTERS).plan(view, CENTERS, SIZES, 0)
    tables = path_tables(view, policy, kind=kind)
    check(view, policy, tables)
    assert any(tables.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(20))
def test_the_same_on_random_wans(seed, kind):
    view = random_wan(seed, caps=False)
    policy = netstorm().plan(view, view.centers, SIZES, 0)
    tables = path_tables(view, policy, kind=kind, elements=2**30, seed=seed)
    if kind == "random":
        assert tables == path_tables(view, policy, kind=kind, elements=2**30, seed=seed)
    for source, target in pairs(policy):
        found = tables[source].get(target, ())
        interiors = [hop for route in found for hop in route.hops[1:-1]]
        assert len(set(interiors)) == len(interiors)
        primary, *others = auxiliary_routes(view, source, target, elements=2**30)
        if kind == "fastest" and primary == (source, target):
            assert [route.hops for route in found] == others[:MOST_ROUTES]


def test_random_routes_differ_by_seed_and_kind():
    view = full_mesh(7, rate=8e6)
    policy = netstorm().plan(view, view.centers, SIZES, 0)
    one, other = (path_tables(view, policy, kind="random", seed=seed) for seed in (0, 1))
    assert one != other
    assert one != path_tables(view, policy, kind="fastest")
    check(view, policy, one)


def test_a_way_over_several_links_leaves_out_all_members_on_it():
    """Around a ring there is one other way; a star's center is reached past others."""
    view = network()
    star = Policy(0, CENTERS, (Tree("c1", dict.fromkeys(CENTERS[1:], "c1")),))
    tables = path_tables(view, star)
    assert tables["c3"] == {"c1": (tables["c3"]["c1"][0],)}
    assert tables["c3"]["c1"][0].hops == ("c3", "c4", "c5", "c6", "c1")


def test_a_faster_way_than_the_tree_s_link_is_the_first_auxiliary_route():
    rate = dict.fromkeys(itertools.permutations("abc", 2), 8e6) | {("a", "c"): 1e6}
    view = NetworkView(("a", "b", "c"), rate, {})
    policy = Policy(0, ("a", "b", "c"), (Tree("a", {"b": "a", "c": "a"}),))
    assert auxiliary_routes(view, "a", "c")[0] == ("a", "b", "c")
    assert [route.hops for route in path_tables(view, policy)["a"]["c"]] == [("a", "b", "c")]


def test_paced_routes_know_their_slowest_link():
    rate = dict.fromkeys(itertools.permutations("abc", 2), 8000000.0) | {("b", "c"): 2e6}
    view = NetworkView(("a", "b", "c"), rate, {})
    policy = Policy(0, ("a", "b", "c"), (Tree("c", {"a": "c", "b": "c"}),))
    assert path_tables(view, policy, kind="paced")["a"]["c"][0].rate == 2e6
    assert path_tables(view, policy)["a"]["c"][0].rate == float("inf")


def test_links_that_are_out_and_centers_that_are_no_members_relay_nothing():
    view = full_mesh(4, rate=8e6)
    out = {edge: 0.0 if "c3" in edge else rate for edge, rate in view.rate.items()}
    policy = Policy(0, view.centers, (Tree("c1", dict.fromkeys(view.centers[1:], "c1")),))
    found = path_tables(NetworkView(view.centers, out, {}), policy)
    assert [route.hops for route in found["c2"]["c1"]] == [("c2", "c4", "c1")]
    assert found["c3"] == {}
    three = Policy(0, ("c1", "c2", "c4"), (Tree("c1", {"c2": "c1", "c4": "c1"}),))
    assert [r.hops for r in path_tables(view, three)["c2"]["c1"]] == [("c2", "c4", "c1")]


def test_a_root_on_a_site_of_its_own_has_no_auxiliary_routes():
    view = full_mesh(3, rate=8e6)
    policy = Policy(0, view.centers, (Tree("site/g0", dict.fromkeys(view.centers, "site/g0")),))
    assert path_tables(view, policy) == {"c1": {}, "c2": {}, "c3": {}}


@pytest.mark.parametrize("kind", KINDS)
def test_tables_are_the_same_after_travelling(kind):
    view = full_mesh(6, rate=8e6)
    policy = netstorm().plan(view, view.centers, SIZES, 0)
    tables = path_tables(view, policy, kind=kind)
    for table in tables.values():
        assert from_lists(to_lists(table, view.centers), view.centers) == table


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("auxiliary", "fast", "fastest"),
        ("primary_busy", -1, "at least 0"),
        ("primary_busy", 1.5, "whole number"),
        ("auxiliary_queue", 0, "at least 1"),
    ],
)
def test_wrong_values_are_refused(key, value, says):
    with pytest.raises(ConfigError) as caught:
        build_overlay(OverlayConfig("star", **{key: value}), CENTERS)
    assert caught.value.key == f"overlay.{key}"
    assert says in caught.value.fix


def test_a_path_goes_round_a_link_of_others_that_is_out():
    """The fastest path a-c-b-d: c has a link to d, which is out."""
    fast, slow = [("a", "c"), ("c", "b"), ("b", "d")], [("a", "b")]
    rates = dict.fromkeys(fast, 9000000.0) | dict.fromkeys(slow, 1000000.0) | {("c", "d"): 0.0}
    rates |= {(there, here): rate for (here, there), rate in rates.items()}
    paths = fastest_routes(NetworkView(("a", "b", "c", "d"), rates, {}), ["a", "b", "c", "d"])
    assert paths["a", "d"] == ("a", "c", "b", "d")
    assert paths["c", "d"] == ("c", "d")  # their own link: a plan that needs it is stuck


def test_the_primary_path_of_who_has_no_link_is_the_fastest():
    """c2-c4-c3 is faster than c2-c1-c3, which packets take; neighbours have their link."""
    pairs = [(0, 1), (0, 2), (1, 3), (3, 2)]
    view = wan_of(4, pairs + [(b, a) for a, b in pairs], rate=[1.0, 1.0, 9.0, 9.0] * 2)
    policy = Policy(0, view.centers, (star_tree("c3", view.centers),))
    relayed = path_tables(replace(view, relayed=True), policy, kind="none")
    assert relayed["c2"] == {"c3": (Route(("c2", "c4", "c3"), primary=True),)}
    assert relayed["c3"] == {"c2": (Route(("c3", "c4", "c2"), primary=True),)}
    assert relayed["c1"] == relayed["c4"] == {}
    assert not any(path_tables(view, policy, kind="none").values())
    links = member_links(replace(view, relayed=True), view.centers)
    assert (links.rate[1, 2], member_links(view, view.centers).rate[1, 2]) == (9.0, 1.0)


def eager(links):
    """Every path of :func:`fastest_routes`, worked out at once."""
    with np.errstate(divide="ignore"):
        seconds = 1.0 / links.rate
    linked, members = np.isfinite(seconds), links.members
    found = {}
    for target, length in enumerate(distances(seconds.T)):
        goes_on = linked[:, target] & (links.rate[:, target] > OUTAGE_RATE)
        after = tree_to(seconds, length).tolist()
        for source in range(len(members)):
            if source != target:
                path = [source, target if linked[source, target] else after[source]]
                while path[-1] != target:
                    here = path[-1]
                    path.append(target if goes_on[here] else after[here])
                found[members[source], members[target]] = tuple(members[at] for at in path)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_paths_of_relayed_chunks_are_the_same_asked_for_one_by_one_or_all_together(seed):
    rng = random.Random(seed)
    names = [f"c{number}" for number in range(9)]
    ring = {(a, names[at - 1]) for at, a in enumerate(names)}
    edges = {*ring, *(tuple(rng.sample(names, 2)) for _ in range(8))}
    rates = {edge: rng.choice([1e6, 2e6, 5e6]) for edge in sorted(edges)}
    rates |= {(there, here): rate for (here, there), rate in rates.items()}
    view = NetworkView(tuple(names), rates, {})
    expected = eager(neighbour_links(view, names))
    found = fastest_routes(view, names)
    assert list(found.items()) == list(expected.items())
    pair = rng.choice(sorted(expected))
    assert fastest_routes(view, names)[pair] == expected[pair]
    assert len(found) == len(expected)
