"""HiPS's star: every center sends to one root and gets the merged result back from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geojax.config import OverlayConfig
from geojax.errors import ConfigError, nearest
from geojax.overlay.base import OVERLAYS, Overlay
from geojax.overlay.policy.policy import Policy, Tree
from geojax.overlay.view import NetworkView
from geojax.settings import key


@dataclass
class StarConfig(OverlayConfig):
    """Keys of ``overlay=star``."""

    name: str = "star"
    root: str | None = key(None, "center of the root; null: the external server, or the first")


def star(*, root: str | None = None, sites: Sequence[str] = ()) -> Overlay:
    """One tree of depth one: a single global server, as in GeoMX's HiPS and in MXNet's KVStore.

    On a sparse WAN its edges are logical: they follow ``overlay.routes``, and a
    center in between relays without adding anything.

    Args:
      root: the center that merges; None, or once it is no member any more (it died, say): the
        first living one of ``sites``, then the first member in WAN order.
      sites: global servers on a site of their own, which merge without contributing.

    >>> view = NetworkView(("a", "b", "c"), rate={}, delay={})
    >>> star(root="b").plan(view, ["a", "b", "c"], [10], 1).trees[0].parent
    {'a': 'b', 'c': 'b'}
    >>> star(sites=["s"]).plan(view, ["a", "b", "c", "s"], [10], 1).trees[0].parent
    {'a': 's', 'b': 's', 'c': 's'}
    """

    def plan(
        view: NetworkView, members: Sequence[str], sizes: Sequence[int], version: int
    ) -> Policy:
        del sizes  # one tree carries all chunks, whatever their sizes
        centers = tuple(member for member in members if member not in sites)
        preferred = (name for name in (root, *sites) if name in members)
        merges = next(preferred, None) or first_or(None, view, centers)
        return Policy(version, centers, (star_tree(merges, centers),))

    return Overlay("star", plan, serves=True)


def check_root(root: str | None, names: Sequence[str]) -> None:
    """Raises ``ConfigError`` when ``overlay.root`` is none of ``names``."""
    if root is not None and root not in names:
        raise ConfigError("overlay.root", root, f"no such center; {nearest(root, names)}")


def first_or(root: str | None, view: NetworkView, members: Sequence[str]) -> str:
    """The configured root; None, or one that is no member: the first member in WAN order."""
    if root is not None and root in members:
        return root
    return next(name for name in view.centers if name in members)


def star_tree(root: str, members: Sequence[str]) -> Tree:
    """The tree in which ``root`` is the parent of every other member, children in member order."""
    return Tree(root, {member: root for member in members if member != root})


@OVERLAYS.register("star", StarConfig)
def _configured(config: StarConfig, centers: Sequence[str], sites: Sequence[str]) -> Overlay:
    check_root(config.root, (*centers, *sites))
    return star(root=config.root, sites=sites)
