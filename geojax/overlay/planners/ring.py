"""The ring: every part of the vector goes once round to be summed and once more to be known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geojax.config import OverlayConfig
from geojax.overlay.base import OVERLAYS, Overlay
from geojax.overlay.planners.ring_orders import cheapest_order, widest_order
from geojax.overlay.policy.policy import Policy, Tree
from geojax.overlay.routes.fastest_routes import member_links
from geojax.overlay.routes.logical import LogicalLinks
from geojax.overlay.view import NetworkView
from geojax.settings import key

ORDERS = ("tsp", "bottleneck")


@dataclass
class RingConfig(OverlayConfig):
    """Keys of ``overlay=ring``."""

    name: str = "ring"
    order: str = key(
        "tsp", "least sum of 1 / rate (tsp), or fastest slowest link (bottleneck)", choices=ORDERS
    )


def ring(*, order: str = "tsp") -> Overlay:
    """Ring all-reduce as N trees, each for an equal share of the chunks.

    Reduce-scatter: the chain of a root begins with the member after it, and each sends its sum on
    to the next one, so that it ends at the root when all have added theirs. All-gather: the root
    sends the result on in the same direction, up to the member before it (``Tree.down``). So
    every ring link carries 2 (N − 1) / N of the vector, in one direction. The chunks of a root are
    pipelined; the classic algorithm has N of them and moves in step.

    A logical link on a sparse WAN has the rate of the slowest link along its route, as a flow
    over it would be measured; that several links of the ring may share one of the WAN is not seen.

    Args:
      order: ``tsp``: least Σ 1 / rate around the ring, as PCCL and prime order theirs;
        ``bottleneck``: the slowest link as fast as can be, on which the time of a ring depends.
        Exact for few members (:mod:`geojax.overlay.planners.ring_orders`).

    References:
      Patarasuk, Yuan, *Bandwidth optimal all-reduce algorithms for clusters of workstations*
      (JPDC 2009). Keiblinger et al., *Prime Collective Communications Library* (arXiv 2505.14065):
      asymmetric tour by 1000 / Mbit/s. Jaghouar et al., *INTELLECT-1* (arXiv 2412.01152).

    >>> links = {("a", "b"): 9e6, ("b", "c"): 9e6, ("c", "a"): 9e6}
    >>> links |= {(target, source): 1e6 for source, target in links}
    >>> (tree, *_) = ring().plan(NetworkView(("a", "b", "c"), links, {}), "abc", [1], 1).trees
    >>> tree.root, tree.parent, tree.down
    ('a', {'b': 'c', 'c': 'a'}, {'b': 'a', 'c': 'b'})
    """

    def plan(
        view: NetworkView, members: Sequence[str], sizes: Sequence[int], version: int
    ) -> Policy:
        del sizes  # what matters is rates; the chunks are dealt by the engine
        around = ring_order(member_links(view, members), order)
        after = dict(zip(around, [*around[1:], around[0]], strict=True))
        before = {following: member for member, following in after.items()}
        trees = tuple(
            Tree(
                root,
                {member: after[member] for member in members if member != root},
                1.0 / len(members),
                {member: before[member] for member in members if member != root},
            )
            for root in members
        )
        return Policy(version, tuple(members), trees)

    return Overlay("ring", plan, follows_rates=True)


def ring_order(links: LogicalLinks, order: str) -> list[str]:
    """The members in the order of the ring; each sends to the next, the last to the first.

    Args:
      links: between all pairs of members.
      order: one of :data:`ORDERS`.
    """
    if order == "bottleneck":
        found = widest_order(links.rate)
    else:
        with np.errstate(divide="ignore"):
            found = cheapest_order(1.0 / links.rate)
    return [links.members[index] for index in found]


@OVERLAYS.register("ring", RingConfig)
def _configured(config: RingConfig, *_: Sequence[str]) -> Overlay:
    return ring(order=config.order)
