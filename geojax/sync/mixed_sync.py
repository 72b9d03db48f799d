"""MixedSync: synchronous inside a center, asynchronous across centers."""

from __future__ import annotations

from dataclasses import dataclass

from geojax.config import SyncConfig
from geojax.settings import key
from geojax.sync.admission import immediately
from geojax.sync.algorithm import SYNCS, SyncAlgorithm
from geojax.sync.compensation import build_compensation
from geojax.sync.merging import one_by_one
from geojax.sync.parts import fixed_steps, gradient_offer


@dataclass
class MixedSyncConfig(SyncConfig):
    """Keys of ``sync=mixed_sync``."""

    name: str = "mixed_sync"
    compensation: str = key(
        "none", "what makes up for delay (DC-ASGD)", choices=("none", "constant", "adaptive")
    )
    lam: float | None = key(None, "λ of the compensation; null: the published one", least=0)
    staleness: int | None = key(
        None, "rounds that a center may be ahead of the slowest; null: any number", least=0
    )


def mixed_sync(
    *, compensation: str = "none", lam: float | None = None, staleness: int | None = None
) -> SyncAlgorithm:
    """Every center's mean gradient is applied when it arrives, and only that center is answered.

    The workers of a center are merged synchronously over their LAN. The global server takes one
    step of the run's optimizer (SGD, momentum, Adam) with each center's gradient, so N centers
    take N steps where FSA takes one on their mean; with plain SGD and ``staleness=0`` it is FSA at
    N times its learning rate. With ``compensation`` and SGD it is DC-ASGD; with one worker in a
    center and neither bound nor compensation it is ASGD (``sync=asgd``).

    Where GeoMX differs, and we do not follow it: it keeps one ``w_prev`` for all centers, updated
    at every push, so that its compensation knows the last update and not the sender's delay (here
    every center has a backup of what it pulled last, as in the paper); ``--mixed-sync --dcasgd``
    chooses Adam; MixedSync with Bi-Sparse never answers a push, and hangs; nothing bounds or counts
    staleness.

    Args:
      compensation: ``none``, ``constant`` or ``adaptive``, see :mod:`geojax.sync.compensation`.
      lam: its λ; None: 0.04 for ``constant`` (MXNet's), 2.0 for ``adaptive`` (the paper's).
      staleness: s: a center starts no round that is more than s + 1 beyond the last one which
        every center has pushed (Ho et al., 2013); 0: all start each round together; None: no
        bound.

    Raises:
      ConfigError: see :func:`geojax.sync.compensation.build_compensation`.

    References:
      MixedSync in GeoMX (INET-RC/GeoMX, ``dist_async``); Zheng et al., ICML 2017; Ho et al., *More
      Effective Distributed ML via a Stale Synchronous Parallel Parameter Server*, NIPS 2013.
    """
    merge = one_by_one(build_compensation(compensation, lam))
    return SyncAlgorithm(
        "mixed_sync", gradient_offer(), fixed_steps(1), immediately(staleness), merge, "optimizer"
    )


@SYNCS.register("mixed_sync", MixedSyncConfig)
def _configured(config: MixedSyncConfig) -> SyncAlgorithm:
    return mixed_sync(compensation=config.compensation, lam=config.lam, staleness=config.staleness)
