"""SSP: asynchronous across centers, but nobody more than s rounds ahead of the slowest."""

from __future__ import annotations

from dataclasses import dataclass

from geojax.config import SyncConfig
from geojax.settings import key
from geojax.sync.algorithm import SYNCS, SyncAlgorithm
from geojax.sync.mixed_sync import mixed_sync


@dataclass
class SspConfig(SyncConfig):
    """Keys of ``sync=ssp``."""

    name: str = "ssp"
    s: int = key(3, "rounds that a center may be ahead of the slowest", least=0)


def ssp(*, s: int) -> SyncAlgorithm:
    """The stale synchronous parallel parameter server.

    A center that has done round c may begin the next one when c − min_q c_q ≤ s. Its gradient is
    applied when it arrives, as one step of the run's optimizer. With s = 0 all begin each round
    together (BSP): plain SGD then moves by the sum of the centers' gradients, FSA at as many times
    its learning rate as there are centers. With s → ∞ it is ASGD. It is ``sync=mixed_sync
    sync.staleness=s``, under the name and with the key of its paper.

    Ho et al. promise that a read at clock c contains all updates up to c − s − 1; here an answer
    has every update that the server has applied when it leaves, which is at least that.

    Args:
      s: the bound; customary values are 0, 1, 3 and 10.

    References:
      Ho et al., *More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server*,
      NIPS 2013.
    """
    return mixed_sync(staleness=s)._replace(name="ssp")


@SYNCS.register("ssp", SspConfig)
def _configured(config: SspConfig) -> SyncAlgorithm:
    return ssp(s=config.s)
