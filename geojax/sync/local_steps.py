"""Fixed local steps: each worker trains on its own for a while, then all average."""

from __future__ import annotations

from dataclasses import dataclass

from geojax.config import SyncConfig
from geojax.settings import key
from geojax.sync.algorithm import SYNCS, SyncAlgorithm
from geojax.sync.parts import barrier, delta_offer, fixed_steps, weighted_mean


@dataclass
class LocalStepsConfig(SyncConfig):
    """Keys of ``sync=local_steps``."""

    name: str = "local_steps"
    local_steps: int = key(1, "steps of a worker between two exchanges", least=1)


def local_steps(*, steps: int) -> SyncAlgorithm:
    """``steps`` local steps with the inner optimizer between two exchanges.

    With the default outer optimizer the parameters become the sample-weighted mean of the
    workers' parameters (local SGD). Inner optimizer state stays with its worker.

    Args:
      steps: local steps per round, at least 1.

    References:
      Stich, *Local SGD Converges Fast and Communicates Little*, ICLR 2019, arXiv 1805.09767.
    """
    return SyncAlgorithm(
        "local_steps", delta_offer(), fixed_steps(steps), barrier(), weighted_mean(), "average"
    )


@SYNCS.register("local_steps", LocalStepsConfig)
def _configured(config: LocalStepsConfig) -> SyncAlgorithm:
    return local_steps(steps=config.local_steps)
