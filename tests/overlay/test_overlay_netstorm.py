"""NetStorm's trees, scores and auxiliary routes against enumerations."""

import itertools

import networkx
import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from overlay_graphs import auxiliary_routes, networks

from geojax.overlay.planners.netstorm import netstorm
from geojax.overlay.view import NetworkView

ELEMENTS = 1000
BITS = 32 * ELEMENTS


def both_ways(rates, delay=0.0):
    """A WAN from ``{"ab": Mbit/s}``, the same rate in both directions."""
    edges = {tuple(pair): rate * 1e6 for pair, rate in rates.items()}
    edges |= {(b, a): rate for (a, b), rate in edges.items()}
    return NetworkView(tuple(sorted({a for a, _ in edges})), edges, dict.fromkeys(edges, delay))


def seconds(view, edge):
    return BITS / view.rate[edge] + view.delay[edge]


def aggregated(view, tree, node):
    """When a node has the sum of its subtree: it waits for the last child. ``tree``: children."""
    return max(
        (aggregated(view, tree, child) + seconds(view, (child, node)) for child in tree[node]),
        default=0.0,
    )


def in_trees(view, root):
    """Every spanning in-tree along the WAN's links, as ``{node: children}``."""
    others = [center for center in view.centers if center != root]
    for ups in itertools.product(*(view.neighbours(center) for center in others)):
        graph = networkx.DiGraph((up, child) for child, up in zip(others, ups, strict=True))
        if networkx.is_arborescence(graph) and graph.in_degree(root) == 0:
            yield {node: list(graph.successors(node)) for node in graph}


def plan(view, *, members=None, weight="delay", **options):
    return netstorm(weight=weight, **options).plan(view, members or view.centers, [ELEMENTS, 7], 1)


@examples(60)
@given(networks())
def test_no_spanning_tree_aggregates_faster(view):
    for tree in plan(view).trees:
        best = min(aggregated(view, other, tree.root) for other in in_trees(view, tree.root))
        ours = {center: tree.children(center) for center in view.centers}
        assert aggregated(view, ours, tree.root) == pytest.approx(best)


@given(networks(most=7))
def test_every_way_to_a_root_is_a_fastest_path(view):
    graph = networkx.DiGraph()
    graph.add_weighted_edges_from((a, b, seconds(view, (a, b))) for a, b in view.rate)
    for tree in plan(view).trees:
        for member in view.centers:
            length, here = 0.0, member
            while here != tree.root:
                length += seconds(view, (here, tree.parent[here]))
                here = tree.parent[here]
            assert length == pytest.approx(networkx.dijkstra_path_length(graph, member, tree.root))


def test_delay_counts_against_rate():
    rates = {"ab": 8, "bc": 8, "ac": 3}  # 4 ms, 4 ms and 10.7 ms for a chunk
    (at_a, *_) = plan(both_ways(rates)).trees
    assert at_a.parent == {"b": "a", "c": "b"}
    (at_a, *_) = plan(both_ways(rates, delay=0.01)).trees
    assert at_a.parent == {"b": "a", "c": "a"}
    (at_a, *_) = plan(both_ways(rates), processing_s=0.01).trees
    assert at_a.parent == {"b": "a", "c": "a"}


def test_the_release_s_weight_knows_no_delay():
    rates = {"ab": 8, "bc": 8, "ac": 3}
    near, far = (plan(both_ways(rates, delay=delay), weight="rate") for delay in (0.0, 0.01))
    assert near == far == netstorm().plan(both_ways(rates), ("a", "b", "c"), [ELEMENTS, 7], 1)
    assert near.trees[0].parent == {"b": "a", "c": "b"}


@given(networks(most=7))
def test_by_the_release_s_weight_every_way_is_the_shortest_in_seconds_a_bit(view):
    graph = networkx.DiGraph()
    graph.add_weighted_edges_from((a, b, 1 / view.rate[a, b]) for a, b in view.rate)
    for tree in plan(view, weight="rate").trees:
        lengths = networkx.single_source_dijkstra_path_length(graph.reverse(), tree.root)
        for member, up in tree.parent.items():
            assert lengths[member] == pytest.approx(1 / view.rate[member, up] + lengths[up])


def test_an_access_cap_slows_all_links_of_a_center():
    view = both_ways({"ab": 8, "bc": 8, "ac": 3})
    capped = NetworkView(view.centers, view.rate, view.delay, egress={"b": 3e6})
    assert plan(capped).trees[0].parent == {"b": "a", "c": "a"}


def test_of_equal_paths_the_first_center_is_taken():
    view = both_ways({"ab": 5, "ac": 5, "bd": 5, "cd": 5})
    parents = {tree.root: tree.parent for tree in plan(view).trees}
    assert parents["a"]["d"] == "b"
    assert parents["d"]["a"] == "b"


def test_shares_go_by_the_slowest_link_of_each_level():
    view = both_ways({"ab": 8, "bc": 4})  # a and c: 1 / (1/8 + 1/4) = 8/3; b: one level, 4
    shares = {tree.root: tree.share for tree in plan(view).trees}
    assert shares == pytest.approx({"a": 2 / 7, "b": 3 / 7, "c": 2 / 7})


def test_scores_follow_the_paths_out_of_a_root():
    rate = {("a", "b"): 9e6, ("b", "a"): 1e6, ("b", "c"): 9e6, ("c", "b"): 9e6}
    view = NetworkView(("a", "b", "c"), rate, {})
    shares = {tree.root: tree.share for tree in plan(view).trees}
    # out of a: 9 and 9 Mbit/s; out of b: the slower of 1 and 9; out of c: 9, then 1
    assert shares == pytest.approx({"a": 4.5 / 6.4, "b": 1 / 6.4, "c": 0.9 / 6.4})


def test_the_best_roots_serve():
    view = both_ways({"ab": 8, "bc": 4})
    assert [tree.root for tree in plan(view, roots=1).trees] == ["b"]
    assert [tree.root for tree in plan(view, roots=2).trees] == ["a", "b"]  # a before c: a tie
    assert [tree.share for tree in plan(view, roots=1).trees] == [1.0]


def test_routes_through_a_dead_center_are_links():
    view = both_ways({"ab": 8, "bc": 8, "cd": 8})
    (at_a, *_) = plan(view, members=("a", "c", "d")).trees
    assert at_a.parent == {"c": "a", "d": "c"}


def test_a_link_that_is_out_is_the_last_resort():
    rate = {"ab": 8, "bc": 8, "ac": 0}
    parents = [tree.parent for tree in plan(both_ways(rate)).trees]
    assert parents == [{"b": "a", "c": "b"}, {"a": "b", "c": "b"}, {"a": "b", "b": "c"}]
    (at_a, _) = plan(both_ways({"ab": 0})).trees
    assert at_a.parent == {"b": "a"}


def greedy(view, source, target):
    """The release's rule: all simple paths in increasing time, those without a used interior."""
    graph = networkx.DiGraph(list(view.rate))
    paths = list(networkx.all_simple_paths(graph, source, target))
    paths.sort(key=lambda path: sum(seconds(view, edge) for edge in itertools.pairwise(path)))
    used, found = set(), []
    for path in paths:
        if used.isdisjoint(path[1:-1]):
            used.update(path[1:-1])
            found.append(tuple(path))
    return found


@st.composite
def untied(draw):
    """A WAN on which no two paths take equally long: rates with few common factors."""
    view = draw(networks(most=6, delays=False))
    primes = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79,
              83, 89, 97, 101, 103, 107, 109, 113)  # fmt: skip
    order = draw(st.permutations(primes))
    rate = {edge: order[index] * 1e5 for index, edge in enumerate(view.rate)}
    return NetworkView(view.centers, rate, view.delay)


@examples(40)
@given(untied())
def test_auxiliary_routes_are_those_of_the_enumeration(view):
    for source, target in itertools.permutations(view.centers, 2):
        routes = auxiliary_routes(view, source, target, elements=ELEMENTS)
        assert routes == greedy(view, source, target)


@examples(40)
@given(networks(most=7))
def test_auxiliary_routes_are_simple_disjoint_and_ordered(view):
    parents = {tree.root: tree.parent for tree in plan(view).trees}
    for source, target in itertools.permutations(view.centers, 2):
        routes = auxiliary_routes(view, source, target, elements=ELEMENTS)
        assert len(set(routes)) == len(routes)
        interiors = [center for route in routes for center in route[1:-1]]
        assert len(set(interiors)) == len(interiors)
        assert not {source, target} & set(interiors)
        assert all((route[0], route[-1]) == (source, target) for route in routes)
        times = [sum(seconds(view, e) for e in itertools.pairwise(route)) for route in routes]
        assert np.all(np.diff(times) >= -1e-12)
        primary = [source]
        while primary[-1] != target:
            primary.append(parents[target][primary[-1]])
        assert routes[0] == tuple(primary)
        assert ((source, target) in routes) == ((source, target) in view.rate)


def test_only_members_relay():
    view = both_ways({"ab": 8, "bd": 8, "ac": 2, "cd": 2, "ad": 1})
    assert auxiliary_routes(view, "a", "d") == [("a", "b", "d"), ("a", "c", "d"), ("a", "d")]
    assert auxiliary_routes(view, "a", "d", members=("a", "c", "d")) == [
        ("a", "c", "d"),
        ("a", "d"),
    ]
