"""TSEngine as a planner: trees such as its online scheduler would have led to."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

import numpy as np

from geojax.config import OverlayConfig
from geojax.overlay.base import OVERLAYS, Overlay
from geojax.overlay.planners.star import check_root, first_or
from geojax.overlay.policy.policy import Policy, Tree
from geojax.overlay.routes.fastest_paths import distances, tree_from, tree_to
from geojax.overlay.routes.fastest_routes import member_links
from geojax.overlay.routes.logical import OUTAGE_RATE
from geojax.overlay.view import NetworkView
from geojax.settings import key

Choose = Callable[[Sequence[int], np.ndarray, np.ndarray, float, Random], int]
_DRAWS = 16  # trees of one policy, at most: the scheduler decides anew for every key


@dataclass
class TsengineConfig(OverlayConfig):
    """Keys of ``overlay=tsengine``."""

    name: str = "tsengine"
    root: str | None = key(None, "center of the root; null: the first center")
    greed: float = key(0.9, "cap on the probability of taking the best link known", least=0, most=1)
    faithful: bool = key(False, "with the quirks of the published code, see its module")
    seed: int = key(0, "of its random choices", least=0)


def tsengine(
    *, root: str | None = None, greed: float = 0.9, faithful: bool = False, seed: int = 0
) -> Overlay:
    """Trees from TSEngine's rules, played through in advance on the rates of the view.

    **This approximates the system.** TSEngine's scheduler is asked before each single transfer, for
    every key, while the round goes on. Here its rules are run on paper for a key of one full
    chunk, with transfers at the rates of the view that disturb nobody, and what comes out is the
    policy: one pair of an in-tree and an out-tree per draw, a draw per chunk (the same ones
    again after the first 16), new draws for each policy version. Then the engine moves many
    chunks at once, and a node sends to its children side by side; the release has one key at a
    time in flight and one receiver per sender.

    *Aggregation*: whoever holds a sum asks; of the asking, the first two are paired. If one is the
    root, the other sends to it; else the one with the better measured rate towards the other sends.
    The receiver adds and asks again. All ask at once at the beginning; their order is drawn.

    *Dissemination*: the root, and whoever has received, asks again and again for a receiver among
    those without one: with probability ``g = min(known / (known + unknown), greed)`` the one to
    which the measured rate is highest, else one drawn from those to which it is unknown (if
    none is, from all). A rate is unknown if its age in the view is infinite; the release forgets
    rates after five rounds, here the view's own ageing decides.

    With ``faithful`` as the release: g by integer division, so that it is 0 while any rate is
    unknown; greedy if a digit drawn from 0–9 is at most 10 · g, so that a cap of 0.9 is none; else
    one drawn from all; and a rate is a whole number of transfers a second, whatever their size.
    While paths between members are out, nobody is paired with or chosen for one that cannot be
    reached; a draw that gets stuck is replaced by the tree of fastest paths.
    Not taken over: its measuring of CPU time instead of elapsed time, its reseeding by the clock,
    and that it never learns from aggregation, since the rates come from the view.

    Args:
      root: the server; as for the star, None or no member any more: the first member in WAN order.
      greed: MAX_GREED_RATE, from 0 to 1; 0.9 in GeoMX.
      faithful: with these quirks.
      seed: of the draws.

    References:
      Zhou et al., *TSEngine: Enable Efficient Communication Overlay in Distributed Machine Learning
      in WANs* (IEEE TNSM 18(4), 2021); zhouhuaman/TSEngine at 6ac192e, INET-RC/GeoMX at 6e14d3c.

    >>> links = {("a", "b"): 9e6, ("b", "a"): 9e6, ("b", "c"): 9e6, ("c", "b"): 9e6}
    >>> view = NetworkView(("a", "b", "c"), links, {})
    >>> (tree,) = tsengine(greed=1.0).plan(view, ["a", "b", "c"], [1000], 1).trees
    >>> tree.root, tree.down
    ('a', {'b': 'a', 'c': 'a'})
    """

    def plan(
        view: NetworkView, members: Sequence[str], sizes: Sequence[int], version: int
    ) -> Policy:
        links = member_links(view, members)
        seconds = links.seconds(max(sizes))
        measured = np.floor(1.0 / seconds) if faithful else links.rate
        known, up = np.isfinite(links.age), links.rate > OUTAGE_RATE
        choose = _choose_faithfully if faithful else _choose
        top = list(members).index(first_or(root, view, members))
        trees = []
        draws = min(len(sizes), _DRAWS)
        for draw in range(draws):
            rng = Random(f"tsengine {seed} {version} {draw}")
            parent = _aggregate(top, seconds, measured, up, rng)
            if parent is None:
                parent = _others(tree_to(seconds, distances(seconds.T)[top]))
            down = _disseminate(top, seconds, measured, known, up, greed, choose, rng)
            if down is None:
                down = _others(tree_from(seconds, distances(seconds)[top]))
            others = [index for index in range(len(members)) if index != top]
            trees.append(
                Tree(
                    members[top],
                    {members[index]: members[parent[index]] for index in others},
                    1.0 / draws,
                    {members[index]: members[down[index]] for index in others},
                )
            )
        return Policy(version, tuple(members), tuple(trees))

    return Overlay("tsengine", plan, follows_rates=True)


def _others(tree: np.ndarray) -> dict[int, int]:
    """The next node of each but the root."""
    return {node: int(other) for node, other in enumerate(tree) if other >= 0}


def _aggregate(
    top: int, seconds: np.ndarray, measured: np.ndarray, up: np.ndarray, rng: Random
) -> dict[int, int] | None:
    """Where each node but the root sends its sum; None: in the end all paths of some are out."""
    asking = deque(rng.sample(range(len(seconds)), len(seconds)))
    parent: dict[int, int] = {}
    arriving: list[tuple[float, int, int]] = []  # time, number of the transfer, receiver
    now = 0.0
    while len(parent) < len(seconds) - 1:
        while (pair := _first_pair(asking, top, measured, up)) is not None:
            sender, receiver = pair
            asking.remove(sender)
            asking.remove(receiver)
            parent[sender] = receiver
            heapq.heappush(arriving, (now + seconds[sender, receiver], len(parent), receiver))
        if not arriving:
            return None
        now, _, receiver = heapq.heappop(arriving)
        asking.append(receiver)
    return parent


def _first_pair(
    asking: Sequence[int], top: int, measured: np.ndarray, up: np.ndarray
) -> tuple[int, int] | None:
    """The first two that ask, as sender and receiver; not those whose path is out."""
    for sender, receiver in combinations(asking, 2):
        if sender == top or (
            receiver != top and not measured[sender, receiver] > measured[receiver, sender]
        ):
            sender, receiver = receiver, sender
        if up[sender, receiver]:
            return sender, receiver
    return None


def _disseminate(
    top: int, seconds: np.ndarray, measured: np.ndarray, known: np.ndarray, up: np.ndarray,
    greed: float, choose: Choose, rng: Random,
) -> dict[int, int] | None:  # fmt: skip
    """Where each node but the root gets the result from; None: all paths to some are out."""
    waiting = [node for node in range(len(seconds)) if node != top]
    down: dict[int, int] = {}
    asking = [(0.0, 0, top)]  # time, number of the request, who asks
    requests = 0
    while waiting and asking:
        now, _, sender = heapq.heappop(asking)
        reached = [node for node in waiting if up[sender, node]]
        if not reached:
            continue
        receiver = choose(reached, measured[sender], known[sender], greed, rng)
        waiting.remove(receiver)
        down[receiver] = sender
        for node in (sender, receiver):
            requests += 1
            heapq.heappush(asking, (now + seconds[sender, receiver], requests, node))
    return None if waiting else down


def _choose(
    waiting: Sequence[int], measured: np.ndarray, known: np.ndarray, greed: float, rng: Random
) -> int:
    """The next receiver, by the rule that the paper's authors meant."""
    familiar = [node for node in waiting if known[node]]
    if rng.random() < min(len(familiar) / len(waiting), greed):
        return max(familiar, key=lambda node: measured[node])
    return rng.choice([node for node in waiting if not known[node]] or list(waiting))


def _choose_faithfully(
    waiting: Sequence[int], measured: np.ndarray, known: np.ndarray, greed: float, rng: Random
) -> int:
    """The next receiver, by the rule that the release has."""
    familiar = [node for node in waiting if known[node]]
    share = min(len(familiar) // len(waiting), greed)
    if familiar and rng.randrange(10) <= 10 * share:
        return max(familiar, key=lambda node: measured[node])
    return rng.choice(list(waiting))


@OVERLAYS.register("tsengine", TsengineConfig)
def _configured(config: TsengineConfig, centers: Sequence[str], sites: Sequence[str]) -> Overlay:
    check_root(config.root, (*centers, *sites))
    return tsengine(
        root=config.root, greed=config.greed, faithful=config.faithful, seed=config.seed
    )
