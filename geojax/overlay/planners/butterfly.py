"""Hivemind's all-reduce: everyone sums a part, the faster ones a larger part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geojax.overlay.base import OVERLAYS, Overlay
from geojax.overlay.planners.star import star_tree
from geojax.overlay.policy.policy import Policy, Tree
from geojax.overlay.routes.fastest_routes import member_links
from geojax.overlay.routes.logical import OUTAGE_RATE
from geojax.overlay.view import NetworkView

_NONE = 1e-9  # a smaller share than this is none


def butterfly() -> Overlay:
    """One star around each member; its share of the bytes goes by the member's access rate.

    All send to all, as in :func:`geojax.overlay.planners.sharded_star.sharded_star`, but with the
    shares of :func:`load_shares`. A member that is too slow to sum anything has no tree. A
    member's rate is what it can send or receive over all its links at once, the smaller of the two.
    The overlay knows of no inner links: on a sparse WAN, where messages pass through other members,
    the shares are not optimal. While links are out, only members to which and from which all paths
    are up sum anything, if there are such members. Hivemind would leave out members that cannot be
    reached.

    References:
      Diskin et al., *Distributed Deep Learning in Open Collaborations* (NeurIPS 2021,
      arXiv 2106.10207), adaptive averaging; learning-at-home/hivemind, ``load_balancing.py``.

    >>> rate = {("a", "b"): 4e6, ("b", "c"): 4e6, ("c", "a"): 4e6}
    >>> rate |= {(target, source): value for (source, target), value in rate.items()}
    >>> view = NetworkView(("a", "b", "c"), rate, {}, egress={"c": 4e6})
    >>> [(tree.root, tree.share) for tree in butterfly().plan(view, "abc", [9], 1).trees]
    [('a', 0.5), ('b', 0.5)]
    """

    def plan(
        view: NetworkView, members: Sequence[str], sizes: Sequence[int], version: int
    ) -> Policy:
        del sizes  # the chunks are dealt by the engine
        rates = [access_rate(view, member) for member in members]
        shares = load_shares(rates, _reachable(view, members))
        trees = tuple(
            Tree(member, star_tree(member, members).parent, share)
            for member, share in zip(members, shares, strict=True)
            if share > 0
        )
        return Policy(version, tuple(members), trees)

    return Overlay("butterfly", plan, follows_rates=True)


def access_rate(view: NetworkView, center: str) -> float:
    """What a center can send, or receive if that is less, over all its links at once, bit/s."""
    out = sum(rate for (source, _), rate in view.rate.items() if source == center)
    into = sum(rate for (_, target), rate in view.rate.items() if target == center)
    return min(
        out, into, view.egress.get(center, float("inf")), view.ingress.get(center, float("inf"))
    )


def _reachable(view: NetworkView, members: Sequence[str]) -> list[bool]:
    """Whether all paths to and from each member are up; if that holds for none, True for all."""
    everyone = [True] * len(members)
    if all(rate > 0 for rate in view.rate.values()):  # spares the search for routes
        return everyone
    up = member_links(view, members).rate > OUTAGE_RATE
    np.fill_diagonal(up, True)
    found = [bool(up[at].all() and up[:, at].all()) for at in range(len(members))]
    return found if any(found) else everyone


def load_shares(rates: Sequence[float], sums: Sequence[bool] | None = None) -> list[float]:
    """Shares w of the vector that minimize the time of the slowest member.

    Member i sends (1 − w_i) of the vector to be summed by others and n − 1 copies of its own part,
    in all 1 + (n − 2) · w_i, at rate b_i:

    minimize over w ≥ 0, Σ w = 1: T = max_i [1 + (n − 2) · w_i] / b_i.

    Closed form: no member is faster than 1 / b_i, and at time T member i can carry
    u_i = (T · b_i − 1) / (n − 2), so T = max(max_i 1 / b_i, (2n − 2) / Σ b). Where the first is
    larger, Σ u > 1 and many w are optimal; we take w ∝ u, a linear program's solver any vertex.
    Where only k members sum, w_i = 0 for the others, and the second is (n − 2 + k) / Σ b over
    these k.

    Args:
      rates: b, in any one unit; none negative.
      sums: who sums, at least one; None: everyone.

    Returns:
      w; equal shares of those who sum for one or two members, where w does not change T, and if
      any b is 0: then nothing makes T finite.

    >>> load_shares([2.0, 2.0, 2.0, 1.0])
    [0.333..., 0.333..., 0.333..., 0.0]
    >>> load_shares([3.0, 3.0, 3.0, 3.0])
    [0.25, 0.25, 0.25, 0.25]
    """
    count, sums = len(rates), [True] * len(rates) if sums is None else sums
    summing = [rate for rate, does in zip(rates, sums, strict=True) if does]
    if count <= 2 or min(rates) <= 0:
        return [1.0 / len(summing) if does else 0.0 for does in sums]
    time = max(1.0 / min(rates), (count - 2 + len(summing)) / sum(summing))
    carried = [
        (time * rate - 1.0) / (count - 2) if does else 0.0
        for rate, does in zip(rates, sums, strict=True)
    ]
    carried = [share if share > _NONE else 0.0 for share in carried]
    total = sum(carried)
    return [share / total for share in carried]


@OVERLAYS.register("butterfly")
def _configured(*_: object) -> Overlay:
    return butterfly()
