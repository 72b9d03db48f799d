"""The overlays by their configured names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from geojax.config import OverlayConfig
from geojax.errors import ConfigError, nearest
from geojax.overlay.base import Overlay
from geojax.overlay.multigps import MULTIGPS, read_multigps, server_count
from geojax.overlay.sharded_star import sharded_star
from geojax.overlay.star import star
from geojax.registry import Registry

Build = Callable[[OverlayConfig, Sequence[str], Sequence[str]], Overlay]
OVERLAYS: Registry[Build] = Registry("overlay.name")
WITH_SITES = ("star", MULTIGPS)  # can have their roots on a site of their own

OVERLAYS.register(MULTIGPS)(read_multigps)


@OVERLAYS.register("star")
def _star(config: OverlayConfig, centers: Sequence[str], sites: Sequence[str]) -> Overlay:
    del centers
    return star(root=config.root, sites=sites)


@OVERLAYS.register("sharded_star")
def _sharded_star(config: OverlayConfig, centers: Sequence[str], sites: Sequence[str]) -> Overlay:
    del centers, sites
    if config.root is not None:
        fix = "every center is a root of sharded_star; leave it out, or take overlay=star"
        raise ConfigError("overlay.root", config.root, fix)
    return sharded_star()


def build_overlay(
    config: OverlayConfig, centers: Sequence[str], sites: Sequence[str] = ()
) -> Overlay:
    """The overlay that a configuration names.

    Args:
      config: the overlay group of the run's configuration.
      centers: names of the WAN's centers, for validation.
      sites: names of the global servers on a site of their own (``wan.server_center=external``).

    Raises:
      ConfigError: for an unknown overlay or root, chunks without elements, or an overlay that
        cannot have its roots where the global servers are.
    """
    build = OVERLAYS[config.name]
    if sites and config.name not in WITH_SITES:
        fix = (
            "its trees are rooted in the centers, but wan.server_center=external gives the global "
            f"servers a site of their own; take overlay={' or '.join(WITH_SITES)}, or let "
            "wan.server_center name a center"
        )
        raise ConfigError("overlay.name", config.name, fix)
    server_count(config)
    if config.root is not None and config.root not in (*centers, *sites):
        fix = f"no such center; {nearest(config.root, (*centers, *sites))}"
        raise ConfigError("overlay.root", config.root, fix)
    if not isinstance(config.chunk_elements, int) or config.chunk_elements < 1:
        fix = "write the elements per chunk, a whole number of at least 1"
        raise ConfigError("overlay.chunk_elements", config.chunk_elements, fix)
    return build(config, centers, sites)
