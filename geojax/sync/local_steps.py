"""Fixed local steps: each worker trains on its own for a while, then all average."""

from __future__ import annotations

from geojax.errors import ConfigError
from geojax.sync.algorithm import SyncAlgorithm
from geojax.sync.parts import barrier, delta_offer, fixed_steps, weighted_mean


def local_steps(*, steps: int) -> SyncAlgorithm:
    """``steps`` local steps with the inner optimizer between two exchanges.

    With the default outer optimizer the parameters become the sample-weighted mean of the
    workers' parameters (local SGD). Inner optimizer state stays with its worker.

    Args:
      steps: local steps per round, at least 1.

    References:
      Stich, *Local SGD Converges Fast and Communicates Little*, ICLR 2019, arXiv 1805.09767.
    """
    if steps < 1:
        raise ConfigError("sync.local_steps", steps, "give a whole number of at least 1")
    return SyncAlgorithm(
        "local_steps", delta_offer(), fixed_steps(steps), barrier(), weighted_mean(), "average"
    )
