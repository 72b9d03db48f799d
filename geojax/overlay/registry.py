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
