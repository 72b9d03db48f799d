"""A policy: the weighted rooted trees that one or more rounds are exchanged along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Tree:
    """Paths up to a root and down from it, over the members.

    Attributes:
      root: where sums end and results begin.
      parent: where each other member sends its sum; no entry for the root.
      share: of the chunks, relative to the other trees of a policy.
      down: where each other member receives results from; None: from its ``parent``.
    """

    root: str
    parent: Mapping[str, str]
    share: float = 1.0
    down: Mapping[str, str] | None = None

    @property
    def source(self) -> Mapping[str, str]:
        """Where each member but the root receives results from."""
        return self.parent if self.down is None else self.down

    def children(self, node: str) -> tuple[str, ...]:
        """Members whose sums ``node`` takes, in the order of ``parent``."""
        return self._children.get(node, ())

    def subtree(self, node: str) -> list[str]:
        """``node`` and all whose sums come through it.

        >>> Tree("a", {"b": "a", "c": "b", "d": "a"}).subtree("b")
        ['b', 'c']
        """
        found = [node]
        for each in found:  # grows as children are found
            found += self.children(each)
        return found

    def receivers(self, node: str) -> tuple[str, ...]:
        """Members that ``node`` sends results to, in the order of ``source``."""
        return self._receivers.get(node, ())

    @cached_property
    def _children(self) -> dict[str, tuple[str, ...]]:
        return _below(self.parent)

    @cached_property
    def _receivers(self) -> dict[str, tuple[str, ...]]:
        return self._children if self.down is None else _below(self.down)


def _below(above: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The inverse of a mapping to parents, its order kept."""
    found: dict[str, list[str]] = {}
    for child, up in above.items():
        found.setdefault(up, []).append(child)
    return {up: tuple(children) for up, children in found.items()}


@dataclass(frozen=True)
class Policy:
    """Immutable; a new plan is a new version. Members are listed in their fixed order.

    ``members`` contribute. A tree may be rooted at a node that is none of them: a global server on
    a site of its own, which only merges. ``placement`` says how chunks are divided among the trees,
    see :mod:`geojax.overlay.policy.placement`; ``share``: by the trees' shares. ``fixed``, if not
    empty, gives the tree of each chunk instead.
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
        """JSON/msgpack-ready form, small enough for hundreds of trees in one control message.

        ``trees`` hold indices into ``nodes``, the members and then the passive roots: of the root,
        and of each node's parent (``up``; -1: none). ``down`` is there where it differs.
        """
        nodes = [*self.members, *self.passive]
        index = {node: at for at, node in enumerate(nodes)}

        def parents(of: Mapping[str, str]) -> list[int]:
            return [index[of[node]] if node in of else -1 for node in nodes]

        values: dict[str, object] = {
            "version": self.version,
            "members": len(self.members),
            "nodes": nodes,
            "trees": [
                {
                    "root": index[tree.root],
                    "up": parents(tree.parent),
                    "share": tree.share,
                    **({} if tree.down is None else {"down": parents(tree.down)}),
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
        """The inverse of :meth:`to_dict`; children come in the order of ``nodes``."""
        nodes = values["nodes"]

        def parents(of: Sequence[int] | None) -> dict[str, str] | None:
            if of is None:
                return None
            return {nodes[at]: nodes[up] for at, up in enumerate(of) if up >= 0}

        trees = tuple(
            Tree(
                nodes[tree["root"]],
                parents(tree["up"]) or {},
                tree["share"],
                parents(tree.get("down")),
            )
            for tree in values["trees"]
        )
        members, fixed = tuple(nodes[: values["members"]]), tuple(values.get("fixed", ()))
        return Policy(values["version"], members, trees, values["placement"], fixed)


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
