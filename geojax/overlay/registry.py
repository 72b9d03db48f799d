"""The overlays by their configured names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geojax.config import OverlayConfig
from geojax.overlay.base import OVERLAYS, Overlay
from geojax.overlay.planners import (  # noqa: F401  they register themselves
    butterfly,
    mlnet,
    multigps,
    netstorm,
    ring,
    sharded_star,
    star,
    tsengine,
)
from geojax.settings import key

__all__ = ["OVERLAYS", "PackingConfig", "build_overlay"]


@dataclass
class PackingConfig(OverlayConfig):
    """Keys of ``overlay=packing``."""

    name: str = "packing"
    max_trees: int | None = key(None, "at most so many trees; null: as many as serve", least=1)
    gap: float = key(
        1e-5, "how far from the optimum planning may stop, as a share of it", least=0, below=1
    )
    effort: float = key(
        1.0, "planning stops after about so many seconds' work of one core, counted in operations "
        "so that every machine stops alike; the gap that is proven by then is told",
        above=0,
    )  # fmt: skip


@OVERLAYS.register("packing", PackingConfig)
def _packing(config: PackingConfig, *_: Sequence[str]) -> Overlay:
    from geojax.overlay.planners.packing import packing  # its solver is loaded only where it plans

    return packing(max_trees=config.max_trees, gap=config.gap, effort=config.effort)


def build_overlay(
    config: OverlayConfig, centers: Sequence[str], sites: Sequence[str] = ()
) -> Overlay:
    """The overlay that a configuration names.

    Args:
      config: the overlay group of the run's configuration.
      centers: names of the WAN's centers, for validation.
      sites: names of the global servers on a site of their own (``wan.server_center=external``);
        only a star and multigps have any, see
        :func:`geojax.overlay.planners.multigps.server_count`.

    Raises:
      ConfigError: for an unknown overlay or root, chunks without elements, or another wrong value.
    """
    return OVERLAYS.build(config, centers, sites)
