"""Minimum-weight arborescences from every root at once.

Edmonds' algorithm (Chu and Liu 1965; Edmonds 1967) contracts cycles of cheapest incoming edges,
then expands them from the root. In a strongly connected graph the contraction can go on until one
node is left, and then depends on no root (Gabow, Galil, Spencer and Tarjan, *Efficient Algorithms
for Finding Minimum Spanning Trees in Undirected and Directed Graphs*, 1986): a set that holds the
root is never entered by the expanded tree, so that its dual value does not count. One contraction,
O(N²) in arrays, serves all N roots, and so does one expansion.
"""

from __future__ import annotations

import numpy as np


def minimum_arborescences(
    count: int, sources: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The cheapest spanning tree away from every root of a strongly connected directed graph.

    Args:
      count: nodes, numbered from 0.
      sources: of each edge.
      targets: of each edge; parallel edges are allowed, loops are not.
      weights: of each edge; finite.

    Returns:
      ``[root, node]``: the index of the edge that enters the node in the tree of that root; -1 at
      the root itself. Of equally cheap trees it is some one, always the same.

    Raises:
      ValueError: if some node cannot be reached from another one.

    >>> edges = np.array([[0, 1], [1, 0], [1, 2], [2, 1], [0, 2]])
    >>> minimum_arborescences(3, *edges.T, np.array([1.0, 5.0, 1.0, 1.0, 3.0]))
    array([[-1,  0,  2],
           [ 1, -1,  2],
           [ 1,  3, -1]])
    """
    above, entering = _contract(count, sources, targets, weights)
    return _expand(count, np.array(above), np.array(entering), targets)


def _contract(
    count: int, sources: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> tuple[list[int], list[int]]:
    """Contracts cycles until one node is left.

    Returns:
      Of each node, first the ``count`` given ones, then the contracted ones in the order they were
      made: the node that it became part of (-1: none), and the edge that enters it.
    """
    most = 2 * count - 1
    everyone = np.arange(most)
    cost = np.full((most, most), np.inf)  # [target, source], between the nodes there are now
    edge = np.zeros((most, most), np.int64)
    cheapest_last = np.argsort(-weights, kind="stable")
    cost[targets[cheapest_last], sources[cheapest_last]] = weights[cheapest_last]
    edge[targets[cheapest_last], sources[cheapest_last]] = cheapest_last
    above, entering = [-1] * most, [-1] * most
    path, place = [0], {0: 0}  # each node on it is entered from the next one
    made, left = count, count
    while left > 1:
        before = int(cost[path[-1]].argmin())
        if np.isinf(cost[path[-1], before]):
            raise ValueError("the graph is not strongly connected")
        entering[path[-1]] = int(edge[path[-1], before])
        if before not in place:
            place[before] = len(path)
            path.append(before)
            continue
        cycle = path[place[before] :]
        del path[place[before] :]
        for part in cycle:
            above[part] = made
        place[made] = len(path)
        path.append(made)
        _merge(np.array(cycle), made, everyone, cost, edge)
        made, left = made + 1, left - len(cycle) + 1
    return above[:made], entering[:made]


def _merge(
    cycle: np.ndarray, made: int, everyone: np.ndarray, cost: np.ndarray, edge: np.ndarray
) -> None:
    """Puts one node in the place of a cycle.

    An edge into the cycle replaces the cycle's own edge into the same node: it costs that much
    less.
    """
    into = cost[cycle] - cost[cycle].min(axis=1, keepdims=True)
    into[:, cycle] = np.inf
    best = into.argmin(axis=0)
    cost[made], edge[made] = into[best, everyone], edge[cycle[best], everyone]
    away = cost[:, cycle]
    away[cycle] = np.inf
    best = away.argmin(axis=1)
    cost[:, made], edge[:, made] = away[everyone, best], edge[everyone, cycle[best]]
    cost[cycle] = np.inf
    cost[:, cycle] = np.inf
    cost[made, made] = np.inf


def _expand(count: int, above: np.ndarray, entering: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Takes contracted nodes apart, from the last one made on, in the trees of all roots at once.

    A contracted node is entered by one edge, or holds the root. The part of it in which that edge
    ends is entered by the same edge, or holds the root; the others by their cycle's own edges.
    """
    roots = np.arange(count)
    within = np.zeros((len(above), count), bool)  # which given nodes are part of a node
    within[roots, roots] = True
    for node, parent in enumerate(above[:-1].tolist()):
        within[parent] |= within[node]
    enters = np.full((len(above), count), -1)  # [node, root]
    for node in range(len(above) - 2, -1, -1):
        edge = enters[above[node]]
        at = np.where(edge < 0, roots, targets[edge])
        enters[node] = np.where(within[node, at], edge, entering[node])
    return enters[:count].T
