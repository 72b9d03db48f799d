"""Tree packing: as many weighted trees, up and down, as reach the WAN's optimum."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from geojax.overlay.base import Overlay
from geojax.overlay.planners.columns import SAME, Packed, Packing, Pair, pack
from geojax.overlay.planners.effort import Effort
from geojax.overlay.planners.rehearsal import TRANSMISSION, Rehearsal
from geojax.overlay.planners.short_trees import Paths, refit, shorten
from geojax.overlay.policy.policy import Policy, Tree
from geojax.overlay.routes.logical import ELEMENT_BITS
from geojax.overlay.routes.shared_links import SharedLinks, shared_links
from geojax.overlay.view import NetworkView

log = logging.getLogger("geojax.planning")

_CROWDING = 200.0  # how sharply a chunk avoids resources that are used most
_LARGEST = 300.0  # exponent
PACKING_SHARE = 0.5  # share of the effort that may be spent on the packing
# κ, δ: what waiting and delays are worth; the first ones where there is no effort for more
_WEIGHTS = ((3.0, 1.0), (3.0, 4.0), (10.0, 4.0), (1.0, 1.0), (15.0, 1.0), (30.0, 1.0), (6.0, 1.0))
_LEADS = (0.0, 1.0, 1.5)  # by how much of its F_t a tree is done before the last one
_AGAIN, _LATE = 4, 0.3  # times that late trees are begun earlier, by such a share of how late
_MOST_LEAD = 0.9
_COLD = 0.1  # weight of a round whose connections are new beside one whose connections are not
_NEAR = 1.02  # what takes so many times as long as the best does not count
_LISTED = 2048  # chunks up to which a policy lists the tree of each
_POLICY_BYTES = 40_000  # of all trees of a policy, so that it fits into a control message


def packing(
    *, max_trees: int | None = None, gap: float = 1e-5, effort: float = 1.0
) -> Overlay:  # fmt: skip
    """Trees whose joint rate is the fluid optimum, each with paths of its own up and down.

    Weighted pairs of an in-tree and an out-tree with one root are packed into the links and caps of
    the WAN by column generation (:mod:`geojax.overlay.planners.columns`), which gives the optimum
    of :func:`geojax.overlay.bounds.fluid.fluid_optimum`, then replaced by short ones where that
    pays (:mod:`geojax.overlay.planners.short_trees`). Chunks are dealt in proportion to the
    weights, in whole numbers that load links evenly, and so that long trees are done first. How
    much short trees are worth is tried out: of several plans the one is taken that is fastest when
    it is rehearsed (:mod:`geojax.overlay.planners.rehearsal`).

    The idea is old for single broadcasts (Edmonds 1973; Blink: Wang et al., MLSys 2020; ForestColl:
    Zhao et al., 2024); pairs with one root, so that reduction and broadcast overlap on whatever
    links are free, are ours. Small chunks matter: a pipe fills in depth × chunk ÷ rate.

    Args:
      max_trees: at most so many trees, the heaviest, their weights solved for anew; None: all.
      gap: packing stops when the rate is proven to be within this share of the optimum.
      effort: planning stops after about so many seconds' work, counted and not measured
        (:mod:`geojax.overlay.planners.effort`); what is proven by then is told.

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
        whole = Effort(effort, f"trees for {len(members)} centers")
        packed = pack(links, gap=gap, effort=whole.part(PACKING_SHARE))
        if packed.gap > gap + SAME:
            log.warning(
                "overlay.effort = %g is spent: trees for %d centers, whose rate is proven to be "
                "within %.2g %% of the optimum (overlay.gap = %g)",
                effort, len(members), 100 * packed.gap, gap,
            )  # fmt: skip
        best = _Planner(links, sizes, whole, max_trees).best(packed)
        used = np.flatnonzero(best.counts).tolist()
        shares = best.counts / len(sizes)
        trees = [_tree(links, best.found.pairs[at], float(shares[at])) for at in used]
        number = {at: index for index, at in enumerate(used)}
        fixed = tuple(number[at] for at in best.placed)
        return Policy(version, tuple(members), tuple(trees), fixed=fixed)

    def sketch(
        view: NetworkView, members: Sequence[str], sizes: Sequence[int], version: int
    ) -> Policy:
        del sizes
        if len(members) == 1:
            return Policy(version, tuple(members), (Tree(members[0], {}),))
        links = shared_links(view, members)
        paths = Paths(links, slowness(links))
        trees = paths.shortest(np.zeros(len(links.sources)), 1.0)
        pair = Pair.of(trees[paths.longest(trees).argmin()].tolist())
        return Policy(version, tuple(members), (_tree(links, pair, 1.0),))

    return Overlay("packing", plan, follows_rates=True, sketch=sketch)


class _Choice(NamedTuple):
    """A plan to choose from.

    Attributes:
      found: its trees.
      counts: how many chunks each of them carries.
      leads: by what share of all chunks each tree is done before the last chunk.
      placed: the tree of each chunk; empty: by their shares.
    """

    found: Packing
    counts: np.ndarray
    leads: np.ndarray
    placed: Sequence[int]


class _Planner:
    """Makes plans of one packing, and chooses among them.

    Args:
      links: what trees are made of.
      sizes: elements of each chunk.
      effort: what all of it may take.
      most: trees of a plan; None: as many as a control message has room for.
    """

    def __init__(
        self, links: SharedLinks, sizes: Sequence[int], effort: Effort, most: int | None
    ):  # fmt: skip
        self._links, self._sizes, self._effort = links, sizes, effort
        room = max(1, _POLICY_BYTES // (4 * len(links.members) + 24))
        self._most = room if most is None else min(most, room)
        self._bits = np.array(sizes, float) * ELEMENT_BITS
        self._slowness = slowness(links)
        self._rehearsal = Rehearsal(links)
        self._rehearsed: dict[tuple, np.ndarray] = {}  # several choices may be the same
        transmissions = 2 * (len(links.members) - 1) * len(sizes)
        self._costs = TRANSMISSION * transmissions if len(sizes) <= _LISTED else np.inf

    def best(self, packed: Packed) -> _Choice:
        """The plan that is fastest when it is rehearsed; the first, where nothing can be."""
        delayed = bool(self._links.delay.any())
        choices: list[_Choice] = []
        for wait, delay in _WEIGHTS if delayed else dict(_WEIGHTS).items():
            begun = self._effort.left
            choices += self._choices(packed, wait, delay)
            another = begun - self._effort.left + len(_LEADS) * self._costs
            if not self._affords(len(choices), another):
                break
        if len(choices) == 1 or not self._affords(len(choices)):
            return choices[0]
        warm = [float(self._held(choice).max()) for choice in choices]
        near = [at for at, took in enumerate(warm) if took <= _NEAR * min(warm)]
        chosen = int(np.argmin(warm))
        if delayed and self._affords(len(near)):
            both = [warm[at] + _COLD * self._held(choices[at], cold=True).max() for at in near]
            chosen = near[int(np.argmin(both))]
        return self._refined(choices[chosen], warm[chosen], packed)

    def _affords(self, rehearsals: int, more: float = 0.0) -> bool:
        """Whether there is effort for so many rehearsals, and more."""
        return self._effort.left >= rehearsals * self._costs + more

    def _refined(self, choice: _Choice, took: float, packed: Packed) -> _Choice:
        """The same plan with its chunks in a better order, if one is found."""
        best, seconds, used = choice, float(self._bits.sum()) / packed.value, choice.counts > 0
        for _ in range(_AGAIN):
            if not self._affords(2):
                break
            last = np.zeros(len(used))
            np.maximum.at(last, choice.placed, self._held(choice))
            late = (last - np.median(last[used])) / seconds
            leads = np.where(used, np.clip(choice.leads + _LATE * late, 0.0, _MOST_LEAD), 0.0)
            choice = choice._replace(leads=leads, placed=ordered(choice.counts, leads))
            if (again := float(self._held(choice).max())) < took:
                best, took = choice, again
        return best

    def _choices(self, packed: Packed, wait: float, delay: float) -> list[_Choice]:
        """Plans by one worth of short trees: one for each way to let long trees be done first."""
        seconds = float(self._bits.sum()) / packed.value
        crossing, delays = float(self._bits.max()) * self._slowness, self._links.delay
        found = shorten(packed, (wait * crossing + delay * delays) / seconds, self._effort)
        if len(found.pairs) > self._most:
            heaviest = np.argsort(-found.rates, kind="stable")[: self._most]
            found = refit(packed.columns, [found.pairs[at] for at in heaviest])
        counts = whole_chunks(found, len(self._sizes))
        if len(self._sizes) > _LISTED:
            return [_Choice(found, counts, np.zeros(0), ())]
        trees = np.array([[*pair.up, *pair.down] for pair in found.pairs])
        latest = Paths(self._links, (crossing + delays) / seconds).longest(trees)
        return [
            _Choice(found, counts, leads, ordered(counts, leads))
            for leads in (np.minimum(share * latest, _MOST_LEAD) for share in _LEADS)
        ]

    def _held(self, choice: _Choice, *, cold: bool = False) -> np.ndarray:
        key = choice.found.pairs, tuple(choice.placed), cold
        if key not in self._rehearsed:
            self._effort.spend(self._costs)
            pairs, placed, _ = key
            bits = self._bits.tolist()
            self._rehearsed[key] = self._rehearsal.held(pairs, placed, bits, cold=cold)
        return self._rehearsed[key]


def slowness(links: SharedLinks) -> np.ndarray:
    """1/rate of each link, s/bit: of the slowest resource on its route."""
    slowest = np.zeros(len(links.sources))
    rows, columns = links.use.nonzero()
    np.maximum.at(slowest, columns, 1.0 / links.capacity[rows])
    return slowest


def ordered(counts: np.ndarray, leads: np.ndarray) -> list[int]:
    """The tree of each chunk, so that trees keep pace with each other and long ones end earlier.

    A tree that carries a share q of all has had a share x of that when a share x (1 - lead) of all
    chunks is dealt: the next chunk goes to the tree that is due first, as long as it has some left.

    Args:
      counts: chunks of each tree.
      leads: by what share of all chunks each tree is done before the last chunk; below 1.

    >>> ordered(np.array([2, 2]), np.array([0.0, 0.5]))
    [1, 0, 1, 0]
    """
    left = counts.copy()
    dealt = np.zeros(len(counts))
    pace = (1.0 - leads) / np.maximum(counts, 1)
    placed = []
    for _ in range(int(counts.sum())):
        due = np.where(left > 0, (dealt + 0.5) * pace, np.inf)
        tree = int(due.argmin())
        dealt[tree] += 1
        left[tree] -= 1
        placed.append(tree)
    return placed


def whole_chunks(found: Packing, chunks: int) -> np.ndarray:
    """How many chunks each pair gets: its weight's share, rounded so that no link is overloaded.

    Shares are rounded down, then every further chunk goes to the pair that adds least to
    Σ_r exp(β · load_r / c_r), which stands for the largest load.
    """
    exact = chunks * found.rates / found.value
    counts = np.floor(exact + 1e-9).astype(int)
    loads = found.loads * (_CROWDING / (exact @ found.loads).max())
    adds = np.expm1(np.minimum(loads, _LARGEST))
    total = counts @ loads
    for _ in range(chunks - counts.sum()):
        best = int((adds @ np.exp(total - total.max())).argmin())
        counts[best] += 1
        total = total + loads[best]
    return counts


def _tree(links: SharedLinks, pair: Pair, share: float) -> Tree:
    """A pair as a tree over names, children in member order."""
    members, sources, targets = links.members, links.sources, links.targets
    up = {members[i]: members[targets[link]] for i, link in enumerate(pair.up) if link >= 0}
    down = {members[i]: members[sources[link]] for i, link in enumerate(pair.down) if link >= 0}
    return Tree(members[pair.root], up, share, down)
