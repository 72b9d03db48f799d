"""The overlays by their configured names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from geojax.config import OverlayConfig
from geojax.errors import ConfigError, nearest
from geojax.overlay.base import Overlay
from geojax.overlay.planners.butterfly import butterfly
from geojax.overlay.planners.mlnet import mlnet
from geojax.overlay.planners.multigps import MULTIGPS, STAR, read_multigps, server_count
from geojax.overlay.planners.netstorm import netstorm
from geojax.overlay.planners.ring import ORDERS, ring
from geojax.overlay.planners.sharded_star import sharded_star
from geojax.overlay.planners.star import star
from geojax.overlay.planners.tsengine import tsengine
from geojax.overlay.routes.auxiliary import check_auxiliary
from geojax.registry import Registry

Build = Callable[[OverlayConfig, Sequence[str], Sequence[str]], Overlay]
OVERLAYS: Registry[Build] = Registry("overlay.name")

OVERLAYS.register(MULTIGPS)(read_multigps)


@OVERLAYS.register(STAR)
def _star(config: OverlayConfig, centers: Sequence[str], sites: Sequence[str]) -> Overlay:
    del centers
    return star(root=config.root, sites=sites)


@OVERLAYS.register("sharded_star")
def _sharded_star(config: OverlayConfig, *_: Sequence[str]) -> Overlay:
    _no_root(config, "every center is a root of sharded_star")
    return sharded_star()


@OVERLAYS.register("packing")
def _packing(config: OverlayConfig, *_: Sequence[str]) -> Overlay:
    from geojax.overlay.planners.packing import packing  # its solver is loaded only where it plans

    _no_root(config, "the plan chooses the roots of packing")
    most = config.max_trees
    if most is not None and (not isinstance(most, int) or most < 1):
        fix = "write how many trees there may be, at least 1, or null for no limit"
        raise ConfigError("overlay.max_trees", most, fix)
    if not 0 <= config.gap < 1:
        fix = "write how far from the optimum the plan may be, a share of it: 0 or more, below 1"
        raise ConfigError("overlay.gap", config.gap, fix)
    return packing(max_trees=most, gap=config.gap)


@OVERLAYS.register("butterfly")
def _butterfly(config: OverlayConfig, *_: Sequence[str]) -> Overlay:
    _no_root(config, "every center is a root of butterfly")
    return butterfly()


@OVERLAYS.register("mlnet")
def _mlnet(config: OverlayConfig, *_: Sequence[str]) -> Overlay:
    if not isinstance(config.arity, int) or config.arity < 1:
        fix = "write the children of a center, a whole number of at least 1"
        raise ConfigError("overlay.arity", config.arity, fix)
    return mlnet(root=config.root, arity=config.arity)


@OVERLAYS.register("netstorm")
def _netstorm(config: OverlayConfig, *_: Sequence[str]) -> Overlay:
    _no_root(config, "netstorm chooses its overlay.roots best roots")
    if config.roots is not None and config.roots < 1:
        fix = "write how many roots serve, at least 1, or null for every center"
        raise ConfigError("overlay.roots", config.roots, fix)
    return netstorm(roots=config.roots)


@OVERLAYS.register("ring")
def _ring(config: OverlayConfig, *_: Sequence[str]) -> Overlay:
    _no_root(config, "every center is a root of ring")
    if config.order not in ORDERS:
        raise ConfigError("overlay.order", config.order, nearest(config.order, ORDERS))
    return ring(order=config.order)


@OVERLAYS.register("tsengine")
def _tsengine(config: OverlayConfig, *_: Sequence[str]) -> Overlay:
    if not 0 <= config.greed <= 1:
        raise ConfigError("overlay.greed", config.greed, "write a probability, from 0 to 1")
    return tsengine(
        root=config.root, greed=config.greed, faithful=config.faithful, seed=config.seed
    )


def _no_root(config: OverlayConfig, why: str) -> None:
    if config.root is not None:
        fix = f"{why}; leave it out, or take overlay=star"
        raise ConfigError("overlay.root", config.root, fix)


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
    build = OVERLAYS[config.name]
    server_count(config)
    check_auxiliary(config)
    if config.root is not None and config.root not in (*centers, *sites):
        fix = f"no such center; {nearest(config.root, (*centers, *sites))}"
        raise ConfigError("overlay.root", config.root, fix)
    if not isinstance(config.chunk_elements, int) or config.chunk_elements < 1:
        fix = "write the elements per chunk, a whole number of at least 1"
        raise ConfigError("overlay.chunk_elements", config.chunk_elements, fix)
    if config.roots is not None and config.roots > len(centers):
        fix = f"there are {len(centers)} centers; write at most that, or null for every center"
        raise ConfigError("overlay.roots", config.roots, fix)
    return build(config, centers, sites)
