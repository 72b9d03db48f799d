"""The synchronization algorithms by their configured names."""

from __future__ import annotations

from collections.abc import Callable

from geojax.config import SyncConfig
from geojax.errors import ConfigError
from geojax.registry import Registry
from geojax.sync.algorithm import SyncAlgorithm
from geojax.sync.fsa import fsa
from geojax.sync.hfa import hfa, hierfavg
from geojax.sync.local_steps import local_steps
from geojax.sync.mixed_sync import mixed_sync

SYNCS: Registry[Callable[[SyncConfig], SyncAlgorithm]] = Registry("sync.name")


@SYNCS.register("fsa")
def _fsa(config: SyncConfig) -> SyncAlgorithm:
    if config.local_steps != 1:
        raise ConfigError(
            "sync.local_steps", config.local_steps, "fsa takes one step; use sync=local_steps"
        )
    return fsa()


@SYNCS.register("local_steps")
def _local_steps(config: SyncConfig) -> SyncAlgorithm:
    return local_steps(steps=config.local_steps)


@SYNCS.register("hfa")
def _hfa(config: SyncConfig) -> SyncAlgorithm:
    return hfa(steps=config.local_steps, lan_rounds=config.lan_rounds)


@SYNCS.register("hierfavg")
def _hierfavg(config: SyncConfig) -> SyncAlgorithm:
    return hierfavg(steps=config.local_steps, lan_rounds=config.lan_rounds)


@SYNCS.register("mixed_sync")
def _mixed_sync(config: SyncConfig) -> SyncAlgorithm:
    if config.local_steps != 1:
        fix = "mixed_sync pushes the gradient of one step; leave it at 1"
        raise ConfigError("sync.local_steps", config.local_steps, fix)
    return mixed_sync(compensation=config.compensation, lam=config.lam, staleness=config.staleness)


def build_sync(config: SyncConfig) -> SyncAlgorithm:
    """The configured algorithm; wrong names and values raise ``ConfigError``."""
    return SYNCS[config.name](config)
