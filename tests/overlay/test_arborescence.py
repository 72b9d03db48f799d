"""Minimum arborescences from every root, against networkx."""

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.overlay.planners.arborescence import minimum_arborescences

_LARGE = 1000.0  # more than any tree weighs: branchings of the most edges weigh most


def strongly_connected(rng, nodes, whole):
    """A ring in random order and random further edges, shuffled; some of them twice."""
    ring = rng.permutation(nodes)
    edges = list(zip(ring, np.roll(ring, -1), strict=True)) if nodes > 1 else []
    extra = rng.integers(0, nodes, (int(rng.integers(0, 3 * nodes)), 2))
    edges += [(a, b) for a, b in extra if a != b]
    edges = np.array(edges, int).reshape(-1, 2)[rng.permutation(len(edges))]
    weights = rng.integers(0, 4, len(edges)) if whole else rng.random(len(edges))
    return edges[:, 0], edges[:, 1], weights.astype(float)


def cheapest(nodes, sources, targets, weights, root):
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(nodes))
    for source, target, weight in sorted(zip(sources, targets, weights, strict=True), key=_last):
        if target != root and not graph.has_edge(source, target):
            graph.add_edge(int(source), int(target), weight=_LARGE - float(weight))
    tree = networkx.maximum_branching(graph)
    assert networkx.is_arborescence(tree)
    return sum(_LARGE - weight for *_, weight in tree.edges(data="weight"))


def _last(edge):
    return edge[-1]


@given(st.integers(2, 9), st.booleans(), st.integers(0, 2**32))
def test_every_root_has_the_cheapest_tree(nodes, whole, seed):
    sources, targets, weights = strongly_connected(np.random.default_rng(seed), nodes, whole)
    found = minimum_arborescences(nodes, sources, targets, weights)
    for root, tree in enumerate(found):
        assert tree[root] == -1
        used = np.delete(tree, root)
        assert targets[used].tolist() == [node for node in range(nodes) if node != root]
        graph = networkx.DiGraph(zip(sources[used].tolist(), targets[used].tolist(), strict=True))
        assert networkx.is_arborescence(graph)
        expected = cheapest(nodes, sources, targets, weights, root)
        assert weights[used].sum() == pytest.approx(expected, abs=1e-9)


def test_one_node_has_an_empty_tree():
    nothing = np.zeros(0, int)
    assert minimum_arborescences(1, nothing, nothing, np.zeros(0)).tolist() == [[-1]]


@pytest.mark.parametrize("edges", [[(0, 1), (1, 2)], [(0, 1), (1, 0), (1, 2)], [(0, 1), (1, 0)]])
def test_a_graph_that_is_not_strongly_connected_is_refused(edges):
    sources, targets = np.array(edges).T
    with pytest.raises(ValueError, match="strongly connected"):
        minimum_arborescences(3, sources, targets, np.ones(len(edges)))
