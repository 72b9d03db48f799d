"""NetStorm: a tree of fastest paths to each root, chunks shared out by the roots' scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geojax.config import OverlayConfig
from geojax.errors import ConfigError
from geojax.overlay.base import OVERLAYS, Overlay
from geojax.overlay.policy.policy import Policy, Tree
from geojax.overlay.routes.fastest_paths import distances, levels, tree_from, tree_to
from geojax.overlay.routes.logical import neighbour_links
from geojax.overlay.view import NetworkView
from geojax.settings import key


@dataclass
class NetstormConfig(OverlayConfig):
    """Keys of ``overlay=netstorm``."""

    name: str = "netstorm"
    roots: int | None = key(None, "how many of the best roots serve; null: every center", least=1)
    weight: str = key(
        "rate", "how long a link is: 1/rate, as in the release, or delay + chunk/rate (ours)",
        choices=("delay", "rate"),
    )  # fmt: skip


def netstorm(
    *, roots: int | None = None, weight: str = "rate", processing_s: float = 0.0
) -> Overlay:
    """FAPT: fastest aggregation path trees, one to each of the best roots.

    A link has the length w = s / rate for a chunk of s bits (the release leaves out s); or, with
    ``weight="delay"``, the time in which a chunk crosses it, w = s / rate + λ + π (λ: delay of the
    link, π: processing at its end). A node sends on when all its children's contributions are in,
    so that a leaf's contribution is at root r after the sum of w along its path, and the whole sum
    after D(r) = max over the leaves. The tree of shortest paths under w has the least D(r) of all
    spanning in-trees: it minimizes every node's distance to r at once, and no tree's D(r) is less
    than the largest of these distances. Results go down the same tree. Chunks are dealt to the
    roots in proportion to their scores (:func:`root_scores`).

    Chunks follow each other along a tree: a delay passes once for all of them, and what a rate
    costs comes with each. So the release's weight is often the faster one. The system finds paths
    by enumeration of all simple ones, and deals chunks in turn until a root has its share; here it
    is Dijkstra's algorithm and the engine's own dealing. When a center is no member, routes through
    its gateway are links too.
    The published chunk has 1,000,000 elements; ``overlay.chunk_elements`` is 65,536 unless set.

    Args:
      weight: ``rate`` or ``delay``, see above.
      roots: R, how many of the roots with the highest scores serve; None: every member.
      processing_s: π, s.

    References:
      Li et al., *Accelerating Geo-distributed Machine Learning with Network-Aware Adaptive Tree and
      Auxiliary Route* (IEEE/ACM ToN 2024, arXiv 2404.11352). Its theorems were not at hand:
      the statement and proof above are reconstructed; score, shares and defaults are those of the
      authors' release (fengwenjiao/netstorm at 3eaeba1, ``compute_performance``,
      ``PolicyDecision``).

    >>> links = {("a", "b"): 8e6, ("b", "a"): 8e6, ("b", "c"): 4e6, ("c", "b"): 4e6}
    >>> links |= {("a", "c"): 1e6, ("c", "a"): 1e6}
    >>> view = NetworkView(("a", "b", "c"), links, {})
    >>> [tree.parent for tree in netstorm(roots=2).plan(view, ["a", "b", "c"], [1000], 1).trees]
    [{'b': 'a', 'c': 'b'}, {'a': 'b', 'c': 'b'}]
    """

    def plan(
        view: NetworkView, members: Sequence[str], sizes: Sequence[int], version: int
    ) -> Policy:
        links = neighbour_links(view, members)
        seconds = links.seconds(max(sizes), processing_s=processing_s)
        if weight == "rate":
            with np.errstate(divide="ignore"):
                seconds = 1.0 / links.rate
        scores = root_scores(links.rate, seconds)
        best = sorted(range(len(members)), key=lambda root: (-scores[root], root))[:roots]
        total = sum(scores[root] for root in best)
        lengths = distances(seconds.T)
        trees = []
        for root in sorted(best):
            after = tree_to(seconds, lengths[root])
            parent = {
                member: members[int(up)]
                for member, up in zip(members, after, strict=True)
                if up >= 0
            }
            trees.append(Tree(members[root], parent, scores[root] / total))
        return Policy(version, tuple(members), tuple(trees))

    return Overlay("netstorm", plan, follows_rates=True)


def root_scores(rate: np.ndarray, seconds: np.ndarray) -> list[float]:
    """How well each node serves as a root: ``perf`` of the release, relative to the others.

    For root i take the fastest paths from it; of their links at depth k, m_k is the slowest rate;
    ``perf_i = 1 / Σ_k 1 / m_k``, as if every level waited for its slowest link. As in the release,
    paths lead out of the root although contributions come in, and only rates count.

    Args:
      rate: of every link ``[from, to]``, bit/s.
      seconds: the time of every link, by which paths are fast, s.

    >>> rate = np.array([[0, 8.0, 0], [8.0, 0, 4.0], [0, 4.0, 0]])
    >>> with np.errstate(divide="ignore"):
    ...     seconds = 1 / rate
    >>> [round(score, 2) for score in root_scores(rate, seconds)]
    [2.67, 4.0, 2.67]
    """
    if len(rate) == 1:
        return [1.0]
    scores = []
    for length in distances(seconds):
        before = tree_from(seconds, length)
        slowest: dict[int, float] = {}
        for node, level in enumerate(levels(before, length)):
            if level:
                slowest[level] = min(slowest.get(level, np.inf), float(rate[before[node], node]))
        scores.append(1.0 / sum(1.0 / value for value in slowest.values()))
    return scores


@OVERLAYS.register("netstorm", NetstormConfig)
def _configured(config: NetstormConfig, centers: Sequence[str], _: Sequence[str]) -> Overlay:
    if config.roots is not None and config.roots > len(centers):
        fix = f"there are {len(centers)} centers; write at most that, or null for every center"
        raise ConfigError("overlay.roots", config.roots, fix)
    return netstorm(roots=config.roots, weight=config.weight)
