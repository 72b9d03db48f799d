"""Keeps the servers that hold parameters as roots when a new policy is planned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from geojax.errors import GeojaxError
from geojax.overlay.planners.star import star_tree
from geojax.overlay.policy.policy import Policy, Tree


def keep_roots(
    before: Policy,
    planned: Policy,
    sizes: Sequence[int],
    place: Callable[[Policy, Sequence[int]], Sequence[int]],
    *,
    holding: Collection[str],
    fresh: Mapping[str, int],
) -> Policy:
    """The planned policy, but no chunk leaves a root that still holds it.

    A root of a tree exchange holds nothing between two rounds and may change at any time. A global
    server holds parameters and optimizer state, so its chunks move when it dies, and only then: to
    their planned root if that is a center with parameters, else to the center whose parameters are
    the freshest, the first of several.

    Args:
      before: the policy so far; its trees and those of ``planned`` are stars.
      planned: the new one.
      sizes: elements of each chunk.
      place: which tree of a policy each chunk takes.
      holding: the living nodes that have what they held under ``before``.
      fresh: the centers that have parameters, in member order, with their last whole rounds.

    Raises:
      GeojaxError: chunks are left without a root, and no center has parameters.

    >>> from geojax.overlay.policy.placement import place
    >>> both = Policy(0, ("a", "b"), (Tree("a", {"b": "a"}), Tree("b", {"a": "b"})))
    >>> alone = Policy(1, ("a", "b"), (Tree("b", {"a": "b"}),))
    >>> fresh = {"a": 3, "b": 3}
    >>> policy = keep_roots(both, alone, [9, 9], place, holding=("a", "b"), fresh=fresh)
    >>> [tree.root for tree in policy.trees], policy.fixed
    (['a', 'b'], (0, 1))
    """
    freshest = max(fresh, key=fresh.__getitem__, default=None)
    homes: list[str] = []
    for was, will in zip(place(before, sizes), place(planned, sizes), strict=True):
        home, next_home = before.trees[was].root, planned.trees[will].root
        if home not in holding:
            home = next_home if next_home in fresh else freshest
        if home is None:
            raise GeojaxError(
                f"the parameters are lost: {before.trees[was].root} is dead, and no living center "
                "has any"
            )
        homes.append(home)
    roots = tuple(dict.fromkeys(homes))
    elements = dict.fromkeys(roots, 0)
    for home, size in zip(homes, sizes, strict=True):
        elements[home] += size
    trees = tuple(
        Tree(root, star_tree(root, planned.members).parent, elements[root] / sum(sizes))
        for root in roots
    )
    fixed = tuple(roots.index(home) for home in homes)
    return Policy(planned.version, planned.members, trees, fixed=fixed)
