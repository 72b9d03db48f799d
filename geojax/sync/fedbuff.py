"""FedBuff: asynchronous centers, and a server that steps when its buffer is full."""

from __future__ import annotations

from dataclasses import dataclass

from geojax.config import SyncConfig
from geojax.settings import key
from geojax.sync.admission import buffer
from geojax.sync.algorithm import SYNCS, SyncAlgorithm
from geojax.sync.merging import buffered_mean
from geojax.sync.parts import delta_offer, fixed_steps
from geojax.sync.staleness import NAMES, build_weighting


@dataclass
class FedBuffConfig(SyncConfig):
    """Keys of ``sync=fedbuff``."""

    name: str = "fedbuff"
    local_steps: int = key(10, "local steps before an exchange", least=1)
    buffer: int = key(2, "K: deltas in a step of the server; at most as many as centers", least=1)
    s: str = key("polynomial", "s(τ): what a delta counts by its staleness τ", choices=NAMES)
    a: float | None = key(None, "a of s; null: 0.5 if polynomial, 10 if hinge", above=0)
    b: int | None = key(None, "b of the hinge: staleness that costs nothing; null: 4", least=0)


def fedbuff(
    *, steps: int, size: int, s: str = "polynomial", a: float | None = None, b: int | None = None
) -> SyncAlgorithm:
    """Federated learning with buffered asynchronous aggregation.

    A center offers Δ_i, how far its local steps moved the parameters that it was sent, and goes on
    at once from the server's present ones. Of every K = ``size`` offers, the first ones in order of
    arrival, the server makes one step::

        w ← w + η_g·(1/K)·Σ_i s(τ_i)·Δ_i,      s(τ) = (1 + τ)^(−1/2) unless set otherwise

    where τ_i is the number of the server's steps since center i was sent its parameters. η_g, and
    momentum if wished, are those of ``outer_optimizer``; by default η_g = 1. (FLSim's example has
    K = 10, η_g = 0.7 and momentum 0.9, and normalizes s by its value at a mean staleness, which
    here η_g would do.) With K = 1, s = 1 and η_g = 1 every delta is added when it arrives.

    Args:
      steps: local steps, at least 1.
      size: K. A center's second push may stand in the same buffer as its first.
      s: name of the function of staleness.
      a: its a; None: 0.5 for ``polynomial``, 10 for ``hinge``.
      b: of ``hinge``; None: 4.

    Raises:
      ConfigError: a or b would go unused.

    References:
      Nguyen et al., *Federated Learning with Buffered Asynchronous Aggregation*, AISTATS 2022,
      Algorithm 1, arXiv 2106.06639.
    """
    return SyncAlgorithm(
        "fedbuff", delta_offer(), fixed_steps(steps), buffer(size, "sync.buffer"),
        buffered_mean(build_weighting(s, a, b)), "average",
    )  # fmt: skip


@SYNCS.register("fedbuff", FedBuffConfig)
def _configured(config: FedBuffConfig) -> SyncAlgorithm:
    return fedbuff(steps=config.local_steps, size=config.buffer, s=config.s, a=config.a, b=config.b)
