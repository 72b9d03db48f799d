"""Tree packing: as many weighted trees, up and down, as reach the WAN's optimum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geojax.overlay.base import Overlay
from geojax.overlay.planners.columns import Columns, Packing, Pair, pack
from geojax.overlay.planners.short_trees import refit, shorten
from geojax.overlay.policy.policy import Policy, Tree
from geojax.overlay.routes.shared_links import SharedLinks, shared_links
from geojax.overlay.view import NetworkView

_CROWDING = 200.0  # how sharply a chunk avoids resources that are used most


def packing(*, max_trees: int | None = None, gap: float = 1e-3) -> Overlay:
    """Trees whose joint rate is the fluid optimum, each with paths of its own up and down.

    Weighted pairs of an in-tree and an out-tree with one root are packed into the links and caps of
    the WAN by column generation (:mod:`geojax.overlay.planners.columns`), which gives the optimum
    of :func:`geojax.overlay.bounds.fluid.fluid_optimum`, then replaced by short ones where that
    pays (:mod:`geojax.overlay.planners.short_trees`). Chunks are dealt in proportion to the
    weights, in whole numbers that load links evenly.

    The idea is old for single broadcasts (Edmonds 1973; Blink: Wang et al., MLSys 2020; ForestColl:
    Zhao et al., 2024); pairs with one root, so that reduction and broadcast overlap on whatever
    links are free, are ours. Small chunks matter: a pipe fills in depth × chunk ÷ rate.

    Args:
      max_trees: at most so many trees, the heaviest, their weights solved for anew; None: all.
      gap: planning stops when the rate is proven to be within this share of the optimum.

    >>> path = [("a", "b"), ("b", "c"), ("c", "b"), ("b", "a")]
    >>> view = NetworkView(("a", "b", "c"), rate=dict.fromkeys(path, 1e6), delay={})
    >>> [(tree.root, tree.share) for tree in packing().plan(view, view.centers, [9] * 9, 1).trees]
    [('b', 1.0)]
    """

    def plan(
        view: NetworkView, members: Sequence[str], sizes: Sequence[int], version: int
    ) -> Policy:
        if len(members) == 1:
            return Policy(version, tuple(members), (Tree(members[0], {}),))
        links = shared_links(view, members)
        columns, rates, _ = pack(links, gap=gap)
        found = shorten(columns, rates, max(sizes) / sum(sizes))
        if max_trees is not None and len(found.pairs) > max_trees:
            heaviest = np.argsort(-found.rates, kind="stable")[:max_trees]
            found = refit(columns, [found.pairs[index] for index in heaviest])
        shares = whole_chunks(columns, found, len(sizes)) / len(sizes)
        trees = (
            _tree(links, pair, float(share))
            for pair, share in zip(found.pairs, shares, strict=True)
            if share > 0
        )
        return Policy(version, tuple(members), tuple(trees))

    return Overlay("packing", plan, follows_rates=True)


def whole_chunks(columns: Columns, found: Packing, chunks: int) -> np.ndarray:
    """How many chunks each pair gets: its weight's share, rounded so that no link is overloaded.

    Shares are rounded down, then every further chunk goes to the pair that adds least to
    Σ_r exp(β · load_r / c_r), which stands for the largest load.
    """
    columns.add(found.pairs)
    load = np.array([columns.uses[pair] for pair in found.pairs]) / columns.capacity
    exact = chunks * found.rates / found.value
    counts = np.floor(exact + 1e-9).astype(int)
    scale = _CROWDING / (exact @ load).max()
    total = counts @ load
    for _ in range(chunks - counts.sum()):
        after = (total + load) * scale
        best = int(np.exp(after - after.max()).sum(axis=1).argmin())
        counts[best] += 1
        total = total + load[best]
    return counts


def _tree(links: SharedLinks, pair: Pair, share: float) -> Tree:
    """A pair as a tree over names, children in member order."""
    members, sources, targets = links.members, links.sources, links.targets
    up = {members[i]: members[targets[link]] for i, link in enumerate(pair.up) if link >= 0}
    down = {members[i]: members[sources[link]] for i, link in enumerate(pair.down) if link >= 0}
    return Tree(members[pair.root], up, share, down)
