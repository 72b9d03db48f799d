"""Routes against a brute force over all simple paths."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.errors import ConfigError
from geojax.overlay.routes.static_routes import routes, two_way
from geojax.overlay.view import NetworkView


def network(centers, edges):
    return NetworkView(tuple(centers), dict.fromkeys(edges, 1e6), dict.fromkeys(edges, 0.0))


def brute_force(centers, edges, source, target):
    """The best of all simple paths: fewest hops, then the smallest sequence of indices."""
    between = [c for c in centers if c not in (source, target)]
    paths = (
        (source, *middle, target)
        for length in range(len(between) + 1)
        for middle in itertools.permutations(between, length)
    )
    valid = [path for path in paths if set(itertools.pairwise(path)) <= set(edges)]
    return min(valid, key=lambda path: (len(path), [centers.index(c) for c in path]), default=None)


@st.composite
def graphs(draw):
    size = draw(st.integers(1, 6))
    centers = draw(st.permutations([f"c{index}" for index in range(size)]))
    pairs = list(itertools.permutations(centers, 2))
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    if draw(st.booleans()):  # a ring: connected, whatever else was drawn
        edges = list(dict.fromkeys([*edges, *zip(centers, centers[1:] + centers[:1], strict=True)]))
        edges = [edge for edge in edges if edge[0] != edge[1]]
    return centers, edges


@given(graphs())
def test_routes_equal_the_brute_force(graph):
    centers, edges = graph
    expected = {
        pair: brute_force(centers, edges, *pair) for pair in itertools.permutations(centers, 2)
    }
    if None in expected.values():
        with pytest.raises(ConfigError) as raised:
            routes(network(centers, edges))
        source, target = raised.value.value.split("->")
        assert expected[source, target] is None
    else:
        assert routes(network(centers, edges)) == expected


@given(graphs(), st.randoms(use_true_random=False))
def test_routes_do_not_depend_on_the_order_of_links(graph, shuffler: random.Random):
    centers, edges = graph
    edges = list(dict.fromkeys([*edges, *itertools.pairwise([*centers, centers[0]])]))
    edges = [edge for edge in edges if edge[0] != edge[1]]
    shuffled = list(edges)
    shuffler.shuffle(shuffled)
    assert routes(network(centers, edges)) == routes(network(centers, shuffled))


def test_the_rest_of_a_route_is_the_route_of_the_rest():
    """Next-hop tables that only know the destination realize the routes."""
    rng = random.Random(7)
    centers = [f"c{index}" for index in range(12)]
    ring = list(zip(centers, centers[1:] + centers[:1], strict=True))
    edges = {*ring, *(tuple(rng.sample(centers, 2)) for _ in range(12))}
    found = routes(network(centers, edges))
    for path in found.values():
        for start in range(1, len(path) - 1):
            assert found[path[start], path[-1]] == path[start:]


def test_a_tie_goes_to_the_lowest_index():
    edges = [("a", "c"), ("c", "d"), ("a", "b"), ("b", "d"), ("d", "a")]
    assert routes(network("abcd", edges))["a", "d"] == ("a", "b", "d")
    assert routes(network("acbd", edges))["a", "d"] == ("a", "c", "d")


def test_a_single_center_has_no_routes():
    assert routes(network(["a"], [])) == {}


def test_a_link_is_out_while_its_way_back_is():
    """d -> a is a link of one direction: what it carries is acknowledged over a -> b -> c -> d."""
    path = [("a", "b"), ("b", "c"), ("c", "d")]
    view = network("abcd", [*path, *((there, here) for here, there in path), ("d", "a")])
    assert two_way(view) is view

    def out(*edges):
        found = two_way(view.with_rates(dict.fromkeys(edges, 0.0)))
        return {edge for edge, rate in found.rate.items() if rate == 0}

    assert out(("b", "c")) == {("b", "c"), ("c", "b"), ("d", "a")}
    assert out(("c", "b")) == {("b", "c"), ("c", "b")}
    assert out(("d", "a")) == {("d", "a")}
