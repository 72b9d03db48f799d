"""Whether what was read from elsewhere is a policy that rounds can go by."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping

from geojax.overlay.policy.placement import PLACEMENTS
from geojax.overlay.policy.policy import Policy

_LATEST = 2**31 - 1  # version
_MOST_TREES = 100_000


def check_policy(policy: Policy) -> Policy:
    """The same policy.

    Raises:
      ValueError: a field is of the wrong type or out of range, or a tree does not bring the sums of
        all members to its root, or the results back; says which.

    >>> from geojax.overlay.policy.policy import Tree
    >>> check_policy(Policy(0, ("a", "b"), (Tree("a", {"b": "b"}),)))
    Traceback (most recent call last):
    ValueError: policy.trees[0]: b does not come to the root a
    """
    if type(policy.version) is not int or not 0 <= policy.version <= _LATEST:
        raise ValueError(f"policy.version: expected a whole number, came {policy.version!r:.40}")
    names = policy.members
    if not names or not all(type(name) is str and 0 < len(name) <= 200 for name in names):
        raise ValueError(f"policy.nodes: expected names, came {reprlib.repr(names)}")
    if len(set(names)) < len(names):
        raise ValueError("policy.nodes: a name comes twice")
    if not 0 < len(policy.trees) <= _MOST_TREES:
        raise ValueError(f"policy.trees: expected some, came {len(policy.trees)}")
    for at, tree in enumerate(policy.trees):
        where = f"policy.trees[{at}]"
        if type(tree.root) is not str or not tree.root:
            raise ValueError(f"{where}: expected the name of a root, came {tree.root!r:.40}")
        share = tree.share
        if type(share) not in (int, float) or not math.isfinite(share) or share < 0:
            raise ValueError(f"{where}.share: expected a number of at least 0, came {share!r:.40}")
        for parents in (tree.parent, tree.source):
            _check_tree(tree.root, parents, names, where)
    if policy.placement not in PLACEMENTS:
        raise ValueError(f"policy.placement: expected one of {', '.join(PLACEMENTS)}")
    if not all(type(tree) is int and 0 <= tree < len(policy.trees) for tree in policy.fixed):
        raise ValueError("policy.fixed: expected the index of a tree for every chunk")
    if not policy.fixed and not sum(tree.share for tree in policy.trees):
        raise ValueError("policy.trees: their shares are all 0")
    return policy


def _check_tree(root: str, parents: Mapping[str, str], names: tuple[str, ...], where: str) -> None:
    if parents.keys() != {*names} - {root}:
        raise ValueError(f"{where}: expected a parent of every member but the root {root}")
    known = {root}
    for name in parents:
        path, at = [], name
        while at not in known and len(path) <= len(parents):
            path.append(at)
            at = parents.get(at, "")
        if at not in known:
            raise ValueError(f"{where}: {name} does not come to the root {root}")
        known.update(path)
