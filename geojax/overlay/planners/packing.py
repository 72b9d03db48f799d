"""Tree packing: as many weighted trees, up and down, as reach the WAN's optimum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from geojax.overlay.base import Overlay
from geojax.overlay.planners.columns import Packed, Packing, Pair, pack
from geojax.overlay.planners.rehearsal import Rehearsal
from geojax.overlay.planners.short_trees import Paths, refit, shorten
from geojax.overlay.policy.policy import Policy, Tree
from geojax.overlay.routes.logical import ELEMENT_BITS
from geojax.overlay.routes.shared_links import SharedLinks, shared_links
from geojax.overlay.view import NetworkView

_CROWDING = 200.0  # how sharply a chunk avoids resources that are used most
WAITS = ((3.0, 0.0), (3.0, 1.0))
LEADS = (0.0, 1.0)


def plan_packing(
    view: NetworkView, members: Sequence[str], sizes: Sequence[int], version: int,
    max_trees=None, gap=1e-3, waits=None, leads=None, report=None,
) -> Policy:
    if len(members) == 1:
        return Policy(version, tuple(members), (Tree(members[0], {}),))
    links = shared_links(view, members)
    packed = pack(links, gap=gap)
    bits = np.array(sizes) * ELEMENT_BITS
    seconds = float(bits.sum()) / (packed.master.value * packed.columns.unit)
    slow = slowness(links)
    rehearsal = Rehearsal(links)
    best = None
    for wait, delay in waits or WAITS:
        hops = (wait * float(bits.max()) * slow + delay * links.delay) / seconds
        found = shorten(packed, hops)
        counts = whole_chunks(found, len(sizes))
        paths = Paths(links, float(bits.max()) * slow + links.delay)
        trees = np.array([[*pair.up, *pair.down] for pair in found.pairs])
        latencies = paths.longest(trees)
        for lead in leads or LEADS:
            placed = ordered(counts / len(sizes), sizes, lead * latencies / seconds)
            took = rehearsal.play(found.pairs, placed, bits.tolist())
            if report is not None:
                report.append(((wait, delay, lead), took))
            if best is None or took < best[0]:
                best = took, found, counts, placed
    _, found, counts, placed = best
    used = np.flatnonzero(counts)
    number = {old: new for new, old in enumerate(used.tolist())}
    return Policy(
        version, tuple(members),
        tuple(_tree(links, found.pairs[at], float(counts[at] / len(sizes))) for at in used),
        fixed=tuple(number[at] for at in placed),
    )


def slowness(links: SharedLinks) -> np.ndarray:
    """1/rate of each link: of the slowest resource on it, s/bit."""
    slowest = np.zeros(len(links.sources))
    rows, columns = links.use.nonzero()
    np.maximum.at(slowest, columns, 1.0 / links.capacity[rows])
    return slowest


def ordered(shares: np.ndarray, sizes: Sequence[int], leads: np.ndarray) -> list[int]:
    total = sum(sizes)
    dealt = np.zeros(len(shares))
    pace = (1.0 - np.minimum(leads, 0.9)) / np.maximum(shares, 1e-12) / total
    full = shares * total
    placed = []
    for size in sizes:
        due = (dealt + 0.5 * size) * pace
        due = np.where(dealt + 0.5 * size > full * (1 + 1e-9), np.inf, due)
        best = int(due.argmin())
        if due[best] == np.inf:
            best = int((full - dealt).argmax())
        dealt[best] += size
        placed.append(best)
    return placed


def packing(*, max_trees: int | None = None, gap: float = 1e-3) -> Overlay:
    def plan(view, members, sizes, version):
        return plan_packing(view, members, sizes, version, max_trees, gap)
    return Overlay("packing", plan, follows_rates=True)


def whole_chunks(found: Packing, chunks: int) -> np.ndarray:
    """How many chunks each pair gets: its weight's share, rounded so that no link is overloaded.

    Shares are rounded down, then every further chunk goes to the pair that adds least to
    Σ_r exp(β · load_r / c_r), which stands for the largest load.
    """
    exact = chunks * found.rates / found.value
    counts = np.floor(exact + 1e-9).astype(int)
    scale = _CROWDING / (exact @ found.loads).max()
    adds = np.expm1(np.minimum(scale * found.loads, 300.0))
    total = scale * (counts @ found.loads)
    for _ in range(chunks - counts.sum()):
        best = int((adds @ np.exp(total - total.max())).argmin())
        counts[best] += 1
        total = total + scale * found.loads[best]
    return counts


def _tree(links: SharedLinks, pair: Pair, share: float) -> Tree:
    """A pair as a tree over names, children in member order."""
    members, sources, targets = links.members, links.sources, links.targets
    up = {members[i]: members[targets[link]] for i, link in enumerate(pair.up) if link >= 0}
    down = {members[i]: members[sources[link]] for i, link in enumerate(pair.down) if link >= 0}
    return Tree(members[pair.root], up, share, down)
