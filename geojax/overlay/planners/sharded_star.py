"""The star with a root in every center: MXNet's sharded key-value store, without a hot spot."""

from __future__ import annotations

from collections.abc import Sequence

from geojax.overlay.base import OVERLAYS, Overlay
from geojax.overlay.planners.star import star_tree
from geojax.overlay.policy.policy import Policy, Tree
from geojax.overlay.view import NetworkView


def sharded_star() -> Overlay:
    """One star around each member, each for an equal share of the bytes: all send to all.

    MXNet's distributed KVStore (Li et al., *Scaling Distributed Machine Learning with the Parameter
    Server*, 2014, which MXNet follows) has several servers: it cuts an array of a million elements
    or more evenly over all of them, and gives a smaller one whole to a server by a hash of its key.
    Here the unit is the chunk, and chunks are dealt so that every root gets its share of the bytes
    (:func:`geojax.overlay.policy.policy.deal`), which is what the hash aims at. A model should have
    at least as many chunks as there are centers (``overlay.chunk_elements``), or some roots stay
    without work.

    >>> view = NetworkView(("a", "b"), rate={}, delay={})
    >>> [(tree.root, tree.share) for tree in sharded_star().plan(view, ["a", "b"], [9], 1).trees]
    [('a', 0.5), ('b', 0.5)]
    """

    def plan(
        view: NetworkView, members: Sequence[str], sizes: Sequence[int], version: int
    ) -> Policy:
        del view, sizes  # whatever the WAN, everyone serves; the chunks are dealt by the engine
        share = 1.0 / len(members)
        trees = (star_tree(root, members) for root in members)
        return Policy(version, tuple(members), tuple(Tree(t.root, t.parent, share) for t in trees))

    return Overlay("sharded_star", plan, serves=True)


@OVERLAYS.register("sharded_star")
def _configured(*_: object) -> Overlay:
    return sharded_star()
