"""The synchronization algorithms by their configured names."""

from __future__ import annotations

from geojax.config import SyncConfig
from geojax.sync import (  # noqa: F401  they register themselves
    async_diloco,
    dc_aha,
    diloco,
    esync,
    fedasync,
    fedat,
    fedbuff,
    fedgs,
    fsa,
    halos,
    hfa,
    local_steps,
    mixed_sync,
    quorum,
    ssp,
    streaming_diloco,
    tifl,
)
from geojax.sync.algorithm import SYNCS, SyncAlgorithm

__all__ = ["SYNCS", "build_sync"]


def build_sync(config: SyncConfig) -> SyncAlgorithm:
    """The configured algorithm; wrong names and values raise ``ConfigError``."""
    return SYNCS.build(config)
