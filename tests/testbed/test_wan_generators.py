"""Generated WANs: the promised shape, for any number of centers and any seed."""

import math
import time

import networkx
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from geojax.config import LanConfig
from geojax.errors import ConfigError
from geojax.overlay.routes.static_routes import routes
from testbed.wan.build import build_wan
from testbed.wan.generators import GENERATORS


def build(generator, seed=0, **fields):
    degree = {"degree": 4} if generator.startswith("random") else {}
    fields = {"name": "generated", "centers": 12, "rate": 100, "rtt": 40, **degree, **fields}
    return build_wan(GENERATORS.settings(generator, **fields), LanConfig(), seed)


def graph_of(wan):
    graph = networkx.Graph()
    graph.add_nodes_from(wan.center_names)
    graph.add_edges_from(wan.edges)
    return graph


@examples(40)
@given(st.integers(3, 40), st.integers(2, 6), st.integers(0, 2**40))
def test_random_sparse_gives_every_center_its_degree(size, degree, seed):
    degree = min(degree, size - 1)
    if size * degree % 2:
        with pytest.raises(ConfigError, match="must be even"):
            build("random_sparse", seed, centers=size, degree=degree)
        return
    wan = build("random_sparse", seed, centers=size, degree=degree)
    graph = graph_of(wan)
    assert {degree for _, degree in graph.degree} == {degree}
    assert networkx.is_connected(graph)
    assert len(wan.edges) == len(set(wan.edges)) == size * degree
    assert {(target, source) for source, target in wan.edges} == set(wan.edges)


@examples(40)
@given(st.integers(3, 40), st.integers(2, 6), st.integers(0, 2**40))
def test_random_geometric_links_near_centers_and_all_of_them(size, degree, seed):
    degree = min(degree, size - 1)
    wan = build("random_geometric", seed, centers=size, degree=degree, rtt=100)
    graph = graph_of(wan)
    assert networkx.is_connected(graph)
    assert len(wan.edges) == 2 * max(size - 1, math.ceil(size * degree / 2))
    points = {center.name: center.position for center in wan.centers}
    for link in wan.links:
        (x, y), (x2, y2) = points[link.source], points[link.target]
        length = ((x - x2) ** 2 + (y - y2) ** 2) ** 0.5
        assert 2e3 * link.delay == pytest.approx(100 * length, abs=0.05)


@pytest.mark.parametrize("generator", ["full_mesh", "uniform"])
def test_a_full_mesh_links_every_pair(generator):
    wan = build(generator, centers=6)
    assert networkx.density(graph_of(wan)) == 1
    assert len(wan.edges) == 30


@pytest.mark.parametrize("generator", ["random_sparse", "random_geometric"])
def test_a_generator_follows_the_seed(generator):
    assert build(generator, 3) == build(generator, 3)
    assert build(generator, 3).edges != build(generator, 4).edges


@pytest.mark.parametrize("generator", ["random_sparse", "random_geometric"])
def test_wan_seed_comes_before_the_runs_seed(generator):
    fields = {"name": "generated", "centers": 12, "degree": 4, "rate": 100, "rtt": 40, "seed": 3}
    config = GENERATORS.settings(generator, **fields)
    assert build_wan(config, LanConfig(), 77).edges == build(generator, 3).edges


@pytest.mark.parametrize("generator", ["random_sparse", "random_geometric"])
def test_a_thousand_centers_are_ready_in_seconds(generator):
    started = time.process_time()
    wan = build(generator, centers=1000, draw={"low": 20, "high": 155}, rate=None)
    found = routes(wan.view())
    hops = [len(found["c1", name]) - 1 for name in wan.center_names[1:]]
    assert time.process_time() - started < 10
    assert len(wan.links) == 4000
    assert min(hops) == 1
    assert len(found) == 999_000


@pytest.mark.parametrize(
    ("fields", "key", "words"),
    [
        ({"degree": None}, "wan.degree", "neighbours of a center"),
        ({"degree": 12}, "wan.degree", "at most 11"),
        ({"degree": 1}, "wan.degree", "at least 2 neighbours"),
        ({"degree": 2.5}, "wan.degree", "whole number"),
        ({"centers": None}, "wan.centers", "number of centers"),
        ({"centers": ["a"]}, "wan.centers", "number of centers"),
        ({"rate": None}, "wan.rate", "rate of every link"),
        ({"rtt": None}, "wan.rtt", "in ms"),
        ({"links": [{"between": ["c1", "c2"]}]}, "wan.links", "makes the links"),
    ],
)
@pytest.mark.parametrize("generator", ["random_sparse", "random_geometric"])
def test_mistakes_are_refused(generator, fields, key, words):
    with pytest.raises(ConfigError, match=words) as raised:
        build(generator, **fields)
    assert raised.value.key == key


def test_a_degree_that_a_mesh_would_ignore_is_refused():
    with pytest.raises(ConfigError, match="does not read it"):
        build("full_mesh", degree=4)
