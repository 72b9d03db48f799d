"""FSA: fully synchronous algorithm. All centers merge one gradient each per round."""

from __future__ import annotations

from geojax.config import SyncConfig
from geojax.sync.algorithm import SYNCS, SyncAlgorithm
from geojax.sync.parts import barrier, fixed_steps, gradient_offer, weighted_mean


def fsa() -> SyncAlgorithm:
    """Synchronous data-parallel training across centers.

    One round is one step of the global optimizer on the sample-weighted mean gradient; with b
    samples per worker it equals one process with all workers' batches joined.

    GeoMX sums the workers' mean gradients instead of averaging them (so its learning rate grows
    with the number of workers unless the optimizer is scale-free); we average.

    References:
      The synchronous mode of HiPS in GeoMX (INET-RC/GeoMX, ``dist_sync``).
    """
    return SyncAlgorithm(
        "fsa", gradient_offer(), fixed_steps(1), barrier(), weighted_mean(), "optimizer"
    )


@SYNCS.register("fsa")
def _configured(_: SyncConfig) -> SyncAlgorithm:
    return fsa()
