"""Trees of fastest paths, with ties that agree along every path."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def distances(seconds: np.ndarray) -> np.ndarray:
    """The length of the fastest path between every two nodes.

    Args:
      seconds: time of every link ``[from, to]``, s; inf: no link.

    Returns:
      ``[from, to]``, s, added up from the start of the path on, so that they fit
      :func:`tree_from`; for :func:`tree_to` take those of the transposed links.
    """
    from scipy.sparse import csr_array  # half of a node's start, and most nodes plan nothing
    from scipy.sparse.csgraph import dijkstra

    links = np.nonzero(np.isfinite(seconds))
    return dijkstra(csr_array((seconds[links], links), shape=seconds.shape))


def tree_from(seconds: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The node before each on its fastest path from one source.

    Of equally fast paths it takes the one whose last node but one comes first in the order of
    nodes. So the beginning of a path is the path to any node on it, and all paths from a source
    make a tree.

    Args:
      seconds: time of every link ``[from, to]``, s, greater than 0; inf: no link.
      length: of the fastest path from the source to each node, s (a row of :func:`distances`).

    Returns:
      Index of the node before each; the source's own is -1.

    >>> seconds = np.array([[np.inf, 1, 2], [np.inf, np.inf, 1], [np.inf, np.inf, np.inf]])
    >>> tree_from(seconds, distances(seconds)[0]).tolist()
    [-1, 0, 0]
    """
    before = np.argmin(length[:, None] + seconds, axis=0)
    before[length == 0] = -1
    return before


def tree_to(seconds: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The node after each on its fastest path to one target: :func:`tree_from` turned round.

    Args:
      seconds: as there.
      length: of the fastest path from each node to the target, s (a row of the
        :func:`distances` of the transposed links).
    """
    return tree_from(seconds.T, length)


def levels(before: np.ndarray, length: np.ndarray) -> list[int]:
    """Links between the source of a tree and each node.

    Args:
      before: the tree, of :func:`tree_from`.
      length: as there; a node is further away than the one before it.
    """
    found = [0] * len(before)
    for node in np.argsort(length, kind="stable"):
        if before[node] >= 0:
            found[node] = found[before[node]] + 1
    return found


def disjoint_paths(
    seconds: np.ndarray, source: int, target: int, *, most: int | None = None
) -> list[tuple[int, ...]]:
    """Paths from one node to another that share no interior node, the fastest one first.

    Each is the fastest of those that keep clear of the earlier ones' interior nodes, and differs
    from them; the first is the node's own path in the target's :func:`tree_to`. The search ends
    after ``most`` of them.

    >>> links = {(0, 1): 5.0, (0, 2): 1.0, (2, 1): 1.0, (2, 3): 1.0, (3, 1): 1.0}
    >>> seconds = np.full((4, 4), np.inf)
    >>> for link, value in links.items():
    ...     seconds[link] = value
    >>> disjoint_paths(seconds, 0, 1)
    [(0, 2, 1), (0, 1)]
    """
    free = seconds.copy()
    found: list[tuple[int, ...]] = []
    while most is None or len(found) < most:
        length = _lengths_to(free, target)
        if not np.isfinite(length[source]):
            return found
        after = tree_to(free, length)
        path = [source]
        while path[-1] != target:
            path.append(int(after[path[-1]]))
        found.append(tuple(path))
        block(free, path)
    return found


def block(free: np.ndarray, path: Sequence[int]) -> None:
    """Takes a path's interior nodes out of ``free``, or its link if it has none."""
    interior = list(path[1:-1])
    free[interior, :] = free[:, interior] = np.inf
    if not interior:
        free[path[0], path[1]] = np.inf


def _lengths_to(seconds: np.ndarray, target: int) -> np.ndarray:
    """The length of the fastest path from each node, by Bellman's equation.

    It is what :func:`distances` finds of the transposed links, to the bit: both add up from the
    target on, and sums in floating point keep their order.
    """
    length = np.full(len(seconds), np.inf)
    length[target] = 0.0
    while True:
        shorter = np.minimum(length, (seconds + length).min(axis=1))
        if np.array_equal(shorter, length):
            return length
        length = shorter
