"""Random streams: every use of randomness on data has its own, addressed by numbers."""

from __future__ import annotations

import numpy as np

from geojax.errors import ConfigError

_PURPOSES = {
    "subset": 0,
    "partition": 1,
    "batches": 2,
    "devices": 3,
    "selection": 4,
}  # fixed: a new number is a new order


def stream(purpose: str, seed: int, *address: int) -> np.random.Generator:
    """A counter-based generator that depends on its arguments alone.

    Streams of different purposes or addresses are independent, so that no result depends on how
    often or in which order other streams were read.

    Args:
      purpose: ``subset``, ``partition``, ``batches``, ``devices`` or ``selection``.
      seed: not negative.
      *address: numbers that single out one stream, e.g. worker index and epoch.
    """
    if seed < 0:
        raise ConfigError("seed", seed, "use a seed of 0 or more")
    key = np.random.SeedSequence(seed, spawn_key=(_PURPOSES[purpose], *address))
    return np.random.Generator(np.random.Philox(key))
