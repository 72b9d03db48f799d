"""The overlays by their configured names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from geojax.config import OverlayConfig
from geojax.errors import ConfigError, nearest
from geojax.overlay.base import Overlay
from geojax.overlay.sharded_star import sharded_star
from geojax.overlay.star import star
from geojax.registry import Registry

OVERLAYS: Registry[Callable[[OverlayConfig], Overlay]] = Registry("overlay.name")


@OVERLAYS.register("star")
def _star(config: OverlayConfig) -> Overlay:
    return star(root=config.root)


@OVERLAYS.register("sharded_star")
def _sharded_star(config: OverlayConfig) -> Overlay:
    if config.root is not None:
        fix = "every center is a root of sharded_star; leave it out, or take overlay=star"
        raise ConfigError("overlay.root", config.root, fix)
    return sharded_star()


@OVERLAYS.register("packing")
def _packing(config: OverlayConfig) -> Overlay:
    from geojax.overlay.packing import packing  # its solver is loaded only where it plans

    if config.root is not None:
        fix = "the plan chooses the roots of packing; leave it out, or take overlay=star"
        raise ConfigError("overlay.root", config.root, fix)
    most = config.max_trees
    if most is not None and (not isinstance(most, int) or most < 1):
        fix = "write how many trees there may be, at least 1, or null for no limit"
        raise ConfigError("overlay.max_trees", most, fix)
    if not 0 <= config.gap < 1:
        fix = "write how far from the optimum the plan may be, a share of it: 0 or more, below 1"
        raise ConfigError("overlay.gap", config.gap, fix)
    return packing(max_trees=most, gap=config.gap)


def build_overlay(config: OverlayConfig, centers: Sequence[str]) -> Overlay:
    """The overlay that a configuration names.

    Args:
      config: the overlay group of the run's configuration.
      centers: names of the WAN's centers, for validation.

    Raises:
      ConfigError: for an unknown overlay or root, or chunks without elements.
    """
    if config.root is not None and config.root not in centers:
        fix = f"no such center; {nearest(config.root, centers)}"
        raise ConfigError("overlay.root", config.root, fix)
    if not isinstance(config.chunk_elements, int) or config.chunk_elements < 1:
        fix = "write the elements per chunk, a whole number of at least 1"
        raise ConfigError("overlay.chunk_elements", config.chunk_elements, fix)
    return OVERLAYS[config.name](config)
