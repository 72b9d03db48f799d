"""What the trees of a policy load onto the links of a WAN."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from geojax.overlay.policy.policy import Tree
from geojax.overlay.view import Edge


class Flow(NamedTuple):
    """What crosses one directed link in a round, as a share of the model's bytes.

    More than 1 where the model crosses it several times, as the sums of several centers on their
    way to one root do.
    """

    up: float = 0.0  # sums, towards roots
    down: float = 0.0  # results, away from them

    @property
    def total(self) -> float:
        """In both directions of the tree."""
        return self.up + self.down


def tree_flows(tree: Tree, share: float, hops: Mapping[Edge, Sequence[Edge]]) -> dict[Edge, Flow]:
    """What one tree loads onto each link that it uses.

    Args:
      tree: every member sends its sum to its parent and takes results from its source.
      share: of the model's bytes, that the tree carries.
      hops: the directed links from one member to another.

    >>> tree = Tree("a", {"b": "a", "c": "a"})
    >>> hops = {"ba": ["ba"], "ab": ["ab"], "ca": ["cb", "ba"], "ac": ["ab", "bc"]}
    >>> flows = tree_flows(tree, 0.5, {tuple(pair): map(tuple, hop) for pair, hop in hops.items()})
    >>> flows["b", "a"], flows["b", "c"]
    (Flow(up=1.0, down=0.0), Flow(up=0.0, down=0.5))
    """
    up: dict[Edge, float] = defaultdict(float)
    down: dict[Edge, float] = defaultdict(float)
    for child, parent in tree.parent.items():
        for link in hops[child, parent]:
            up[link] += share
    for node, source in tree.source.items():
        for link in hops[source, node]:
            down[link] += share
    return {link: Flow(up.get(link, 0.0), down.get(link, 0.0)) for link in {**up, **down}}


def all_flows(
    trees: Sequence[Tree], shares: Sequence[float], hops: Mapping[Edge, Sequence[Edge]]
) -> dict[Edge, Flow]:
    """What all trees of a policy load onto each link; arguments as of :func:`tree_flows`."""
    found: dict[Edge, Flow] = {}
    for tree, share in zip(trees, shares, strict=True):
        for link, flow in tree_flows(tree, share, hops).items():
            before = found.get(link, Flow())
            found[link] = Flow(before.up + flow.up, before.down + flow.down)
    return found


def relative_times(flows: Mapping[Edge, Flow], rates: Mapping[Edge, float]) -> dict[Edge, float]:
    """How long each link is busy with its load, relative to the link that is busy longest.

    A link without a rate (an outage) counts as the longest.
    """
    times = {
        link: flow.total / rates[link] if rates[link] > 0 else float("inf")
        for link, flow in flows.items()
    }
    longest = max((time for time in times.values() if time < float("inf")), default=1.0)
    return {link: min(time / longest, 1.0) for link, time in times.items()}
