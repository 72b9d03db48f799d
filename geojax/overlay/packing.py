"""Tree packing: as many weighted trees, up and down, as the WAN's optimum takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from geojax.overlay.base import Overlay
from geojax.overlay.columns import Packing, Pair, pack, refit
from geojax.overlay.logical import LogicalLinks, logical_links
from geojax.overlay.policy import Policy, Tree
from geojax.overlay.view import NetworkView


def packing(*, max_trees: int | None = None, gap: float = 1e-3) -> Overlay:
    def plan(
        view: NetworkView, members: Sequence[str], sizes: Sequence[int], version: int
    ) -> Policy:
        if len(members) == 1:
            return Policy(version, tuple(members), (Tree(members[0], {}),))
        links = logical_links(view, members)
        found = pack(links, gap=gap)
        return Policy(version, tuple(members), tuple(_tree(links, p, r/found.value) for p, r in zip(found.pairs, found.rates)))
    return Overlay("packing", plan)


def _tree(links: LogicalLinks, pair: Pair, share: float) -> Tree:
    """A pair as a tree over names, children in member order."""
    members, sources, targets = links.members, links.sources, links.targets
    up = {members[i]: members[targets[link]] for i, link in enumerate(pair.up) if link >= 0}
    down = {members[i]: members[sources[link]] for i, link in enumerate(pair.down) if link >= 0}
    return Tree(members[pair.root], up, float(share), down)
