"""A policy: the weighted rooted trees that one or more rounds are exchanged along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tree:
    """A tree over the members. ``parent`` has no entry for the root; ``share`` of the chunks.

    ``down``: from whom each member but the root receives the result, where that is not its parent;
    None: results go back the way that contributions came.
    """

    root: str
    parent: Mapping[str, str]
    share: float = 1.0
    down: Mapping[str, str] | None = None

    def children(self, node: str) -> tuple[str, ...]:
        """Members whose parent is ``node``, in the order of ``parent``."""
        return tuple(child for child, up in self.parent.items() if up == node)


@dataclass(frozen=True)
class Policy:
    """Immutable; a new plan is a new version. Members are listed in their fixed order.

    ``members`` contribute. A tree may be rooted at a node that is none of them: a global server on
    a site of its own, which only merges. ``placement`` says how chunks are divided among the trees,
    see :mod:`geojax.overlay.placement`; ``share``: by the trees' shares. ``fixed`` says it chunk by
    chunk instead: the tree of each; empty: it does not.
    """

    version: int
    members: tuple[str, ...]
    trees: tuple[Tree, ...]
    placement: str = "share"
    fixed: tuple[int, ...] = ()

    @property
    def passive(self) -> tuple[str, ...]:
        """Roots that do not contribute, in the order of their trees."""
        roots = dict.fromkeys(tree.root for tree in self.trees)
        return tuple(root for root in roots if root not in self.members)

    def to_dict(self) -> dict[str, object]:
        """JSON/msgpack-ready form."""
        values: dict[str, object] = {
            "version": self.version,
            "members": list(self.members),
            "trees": [
                {
                    "root": tree.root,
                    "parent": list(tree.parent.items()),
                    "share": tree.share,
                    "down": None if tree.down is None else list(tree.down.items()),
                }
                for tree in self.trees
            ],
            "placement": self.placement,
        }
        if self.fixed:
            values["fixed"] = list(self.fixed)
        return values

    @staticmethod
    def from_dict(values: Mapping) -> Policy:
        """The inverse of :meth:`to_dict`."""
        trees = tuple(
            Tree(
                tree["root"],
                dict(map(tuple, tree["parent"])),
                tree["share"],
                None if tree["down"] is None else dict(map(tuple, tree["down"])),
            )
            for tree in values["trees"]
        )
        fixed = tuple(values.get("fixed", ()))
        members, placement = tuple(values["members"]), values["placement"]
        return Policy(values["version"], members, trees, placement, fixed)


def deal(trees: Sequence[Tree], sizes: Sequence[int]) -> tuple[int, ...]:
    """Deals chunks to trees by share: each goes to the tree that is furthest behind its share.

    Args:
      trees: the policy's trees; shares are relative.
      sizes: elements of each chunk, in order.

    Returns:
      The index of its tree for every chunk.

    >>> deal((Tree("a", {}, 2.0), Tree("b", {}, 1.0)), [10, 10, 10])
    (0, 1, 0)
    """
    total = sum(tree.share for tree in trees)
    dealt = [0.0] * len(trees)
    placed, given = [], 0
    for size in sizes:
        given += size
        behind = [given * tree.share / total - dealt[i] for i, tree in enumerate(trees)]
        best = max(range(len(trees)), key=lambda i: (behind[i], -i))
        dealt[best] += size
        placed.append(best)
    return tuple(placed)
