"""The trees within a center: all offers to its local server, or by way of its workers."""

from __future__ import annotations

from collections.abc import Sequence

from geojax.overlay.planners.star import star_tree
from geojax.overlay.policy.policy import Tree


def star_within(center: Sequence[str]) -> tuple[Tree, ...]:
    """One star around the local server, ``center[0]``.

    >>> star_within(["s", "v", "w"])[0].parent
    {'v': 's', 'w': 's'}
    """
    return (star_tree(center[0], center),)


def sharded_within(center: Sequence[str]) -> tuple[Tree, ...]:
    """Each worker sums an equal share of the chunks and has the local server's only link of them.

    With n workers a star's local server takes n vectors in a round and sends n. Here it takes and
    sends one, and a worker (n - 1)/n of one to and from the others besides, as in the two halves of
    a bandwidth-optimal all-reduce (Patarasuk and Yuan, *Bandwidth Optimal All-reduce Algorithms for
    Clusters of Workstations*, 2009), for one more hop each way.

    >>> [dict(tree.parent) for tree in sharded_within(["s", "v", "w"])]
    [{'v': 's', 'w': 'v'}, {'w': 's', 'v': 'w'}]
    """
    server, *workers = center
    share = 1.0 / max(1, len(workers))
    return tuple(
        Tree(server, {first: server, **star_tree(first, workers).parent}, share)
        for first in workers
    )


WITHIN = {"sharded": sharded_within, "star": star_within}
