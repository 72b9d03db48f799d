"""GeoMX's MultiGPS: several global servers, each the root of a star for its share of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geojax.config import OverlayConfig
from geojax.errors import ConfigError, nearest
from geojax.overlay.base import OVERLAYS, Overlay
from geojax.overlay.planners.star import star_tree
from geojax.overlay.policy.policy import Policy, Tree
from geojax.overlay.view import NetworkView
from geojax.settings import key

MULTIGPS, STAR = "multigps", "star"  # can have their roots on a site of their own
PLACEMENTS = ("bytes", "geomx")


@dataclass
class MultigpsConfig(OverlayConfig):
    """Keys of ``overlay=multigps``."""

    name: str = MULTIGPS
    servers: Any = key(None, "how many global servers, or the names of their centers; required")
    placement: str = key(
        "bytes", "chunks to servers by bytes, or by GeoMX's key hash", choices=PLACEMENTS
    )

    def check(self) -> None:
        """See :meth:`geojax.settings.Settings.check`."""
        servers = self.servers
        number = isinstance(servers, int) and not isinstance(servers, bool) and servers > 0
        named = isinstance(servers, Sequence) and not isinstance(servers, str) and servers
        if not number and not named:
            fix = "write how many global servers there are, or list the centers that serve"
            raise ConfigError("overlay.servers", servers, fix)


def multigps(
    *, servers: int | Sequence[str], placement: str = "bytes", sites: Sequence[str] = ()
) -> Overlay:
    """One star for each global server; the chunks are divided among them.

    MultiGPS, a technique of GeoMX (the INET-RC/GeoMX project, 2023), spreads the model over several
    global servers so that no single one is the bottleneck, and finds a layer's server by a hash of
    its key, as MXNet's KVStore does. A hash does not look at bytes. So by default the chunks are
    placed by bytes (:func:`geojax.overlay.policy.placement.by_bytes`) and cut small enough for that
    (:func:`geojax.overlay.policy.cutting.chunk_ranges`); ``placement="geomx"`` is GeoMX's own rule.

    Args:
      servers: the names of the centers that serve, or how many of them: the first ones that live,
        in WAN order. With ``sites`` these serve instead.
      placement: ``bytes`` or ``geomx``.
      sites: global servers on a site of their own, which do not contribute.

    When the last of the named servers has died, the first living center serves.

    >>> view = NetworkView(("a", "b", "c"), rate={}, delay={})
    >>> plan = multigps(servers=2).plan
    >>> [tree.root for tree in plan(view, ["a", "b", "c"], [9], 1).trees]
    ['a', 'b']
    >>> [tree.root for tree in plan(view, ["b", "c"], [9], 2).trees]
    ['b', 'c']
    """

    def plan(
        view: NetworkView, members: Sequence[str], sizes: Sequence[int], version: int
    ) -> Policy:
        del sizes  # the engine places the chunks
        centers = [member for member in members if member not in sites]
        in_order = [name for name in view.centers if name in centers]
        if sites:
            roots = [member for member in members if member in sites]
        elif isinstance(servers, int):
            roots = in_order[:servers]
        else:
            roots = [name for name in servers if name in centers]
        stars = [star_tree(root, centers) for root in roots or in_order[:1]]
        trees = tuple(Tree(star.root, star.parent, 1.0 / len(stars)) for star in stars)
        return Policy(version, tuple(centers), trees, placement)

    return Overlay(MULTIGPS, plan, serves=True)


def server_count(config: OverlayConfig) -> int:
    """How many global servers there are, in centers or on a site of their own.

    ``overlay.servers`` says it for multigps, a star has one. The roots of other overlays are always
    in centers: a site of its own (``wan.server_center=external``) is then the scheduler's alone.

    Raises:
      ConfigError: it is neither a number nor a list of names.
    """
    if config.name != MULTIGPS:
        return 1 if config.name == STAR else 0
    settings: MultigpsConfig = OVERLAYS.complete(config)
    settings.check()
    return settings.servers if isinstance(settings.servers, int) else len(settings.servers)


@OVERLAYS.register(MULTIGPS, MultigpsConfig)
def read_multigps(config: MultigpsConfig, centers: Sequence[str], sites: Sequence[str]) -> Overlay:
    """The overlay that a configuration describes.

    Args:
      config: the overlay group of the run's configuration.
      centers: names of the WAN's centers.
      sites: names of the global servers on a site of their own.

    Raises:
      ConfigError: names the key, the value and the fix.
    """
    servers = config.servers
    count = server_count(config)
    if isinstance(servers, int):
        if not sites and count > len(centers):
            fix = f"there are {len(centers)} centers; write at most as many, or use "
            raise ConfigError("overlay.servers", servers, fix + "wan.server_center=external")
        return multigps(servers=count, placement=config.placement, sites=sites)
    if sites:
        fix = "with wan.server_center=external no center serves; write how many servers there are"
        raise ConfigError("overlay.servers", list(servers), fix)
    for name in servers:
        if name not in centers:
            raise ConfigError("overlay.servers", name, nearest(str(name), centers))
    if len(set(servers)) < count:
        raise ConfigError("overlay.servers", list(servers), "name every center once")
    return multigps(servers=tuple(servers), placement=config.placement)
