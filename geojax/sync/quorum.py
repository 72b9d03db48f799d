"""Quorum and grace: a merge waits for some centers, and a little longer for the others."""

from __future__ import annotations

from dataclasses import dataclass

from geojax.config import SyncConfig
from geojax.settings import key
from geojax.sync import admission
from geojax.sync.algorithm import SYNCS, SyncAlgorithm
from geojax.sync.merging import share_weighted_mean
from geojax.sync.parts import delta_offer, fixed_steps


@dataclass
class QuorumConfig(SyncConfig):
    """Keys of ``sync=quorum``."""

    name: str = "quorum"
    local_steps: int = key(20, "H: local steps before an exchange", least=1)
    quorum: int = key(2, "K: centers that a merge waits for; at most as many as there are", least=1)
    grace_s: float = key(1.0, "how long it waits for others then", unit="s", least=0)
    margin: float | None = key(
        None, "the grace is at most this share of the measured slack; null: it is grace_s", above=0
    )


def quorum(*, steps: int, size: int, grace: float, margin: float | None = None) -> SyncAlgorithm:
    """DiLoCo whose merges wait for K centers and for those that come within a grace period.

    The server takes the weighted mean of the deltas that are there, Δ = Σ w_m·Δ_m / Σ w_m, and
    makes one outer step: by default DiLoCo's, Nesterov's momentum 0.9 at a rate of 0.7. A center
    that comes later is in the next merge. With a quorum of all centers it is the barrier.

    This is the admission of Decoupled DiLoCo. With ``margin`` its grace adapts to the slack that
    the server measures; how is reconstructed (:func:`geojax.sync.admission.slack`). What the paper
    has besides is not here: fragments, training on during the exchange, radial-directional
    averaging. Centers count by their workers; its weights (tokens²/steps) are equal too where all
    centers have equally many, which take equally many samples.

    Args:
      steps: H.
      size: K.
      grace: seconds; with a margin, at most.
      margin: share of the slack that the grace is at most; None: the grace is fixed.

    References:
      *Decoupled DiLoCo*, 2026, arXiv 2604.21428.
    """
    return SyncAlgorithm(
        "quorum", delta_offer(), fixed_steps(steps),
        admission.quorum(size, grace, "sync.quorum", margin), share_weighted_mean(), "nesterov",
    )  # fmt: skip


@SYNCS.register("quorum", QuorumConfig)
def _configured(config: QuorumConfig) -> SyncAlgorithm:
    return quorum(
        steps=config.local_steps, size=config.quorum, grace=config.grace_s, margin=config.margin
    )
