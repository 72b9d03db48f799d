"""The synchronization algorithms by their configured names."""

from __future__ import annotations

from geojax.config import SyncConfig
from geojax.sync import esync, fsa, hfa, local_steps, mixed_sync  # noqa: F401  they register
from geojax.sync.algorithm import SYNCS, SyncAlgorithm

__all__ = ["SYNCS", "build_sync"]


def build_sync(config: SyncConfig) -> SyncAlgorithm:
    """The configured algorithm; wrong names and values raise ``ConfigError``."""
    return SYNCS.build(config)
