"""MLNET: a balanced tree, wherever the links are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geojax.config import OverlayConfig
from geojax.overlay.base import OVERLAYS, Overlay
from geojax.overlay.planners.star import check_root, first_or
from geojax.overlay.policy.policy import Policy, Tree
from geojax.overlay.view import NetworkView
from geojax.settings import key


@dataclass
class MlnetConfig(OverlayConfig):
    """Keys of ``overlay=mlnet``."""

    name: str = "mlnet"
    root: str | None = key(None, "center of the root; null: the first center")
    arity: int = key(2, "most children of a center", least=1)


def mlnet(*, root: str | None = None, arity: int = 2) -> Overlay:
    """One complete tree in which every member has ``arity`` children, filled level by level.

    Members stand in their fixed order, the root before all others; the parent of number i is number
    ⌊(i − 1) / k⌋. Rates play no part. Aggregation on the way up and multicast on the way down spare
    the root the star's load; on a sparse WAN the logical edges follow ``overlay.routes``.

    Args:
      root: as for the star; None, or once it is no member: the first member in WAN order.
      arity: k, at least 1 (1: a chain).

    References:
      Mai, Hong, Costa, *Optimizing Network Performance in Distributed Machine Learning* (HotCloud
      2015). The shape of the tree is reconstructed: the paper says that it aggregates and
      multicasts along trees; NetStorm (arXiv 2404.11352), which compares itself with it, that such
      trees are regular and do not know the network. Its k is not known.

    >>> view = NetworkView(("a", "b", "c", "d"), rate={}, delay={})
    >>> mlnet(root="b").plan(view, ["a", "b", "c", "d"], [10], 1).trees[0].parent
    {'a': 'b', 'c': 'b', 'd': 'a'}
    """

    def plan(
        view: NetworkView, members: Sequence[str], sizes: Sequence[int], version: int
    ) -> Policy:
        del sizes  # one tree carries all chunks
        top = first_or(root, view, members)
        order = [top, *(member for member in members if member != top)]
        parent = {order[i]: order[(i - 1) // arity] for i in range(1, len(order))}
        return Policy(version, tuple(members), (Tree(top, parent),))

    return Overlay("mlnet", plan)


@OVERLAYS.register("mlnet", MlnetConfig)
def _configured(config: MlnetConfig, centers: Sequence[str], sites: Sequence[str]) -> Overlay:
    check_root(config.root, (*centers, *sites))
    return mlnet(root=config.root, arity=config.arity)
