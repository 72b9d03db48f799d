"""FedGS: a super node synchronizes in every step, and all centers every T steps."""

from __future__ import annotations

from dataclasses import dataclass

from geojax.config import SyncConfig
from geojax.settings import key
from geojax.sync.algorithm import SYNCS, SyncAlgorithm
from geojax.sync.parts import barrier, delta_offer, fixed_steps, weighted_mean


@dataclass
class FedGsConfig(SyncConfig):
    """Keys of ``sync=fedgs``."""

    name: str = "fedgs"
    local_steps: int = key(
        50, "T: steps of a super node, each synchronized inside it, between two exchanges", least=1
    )
    execution: str = key(
        "auto", "how the T steps are made: a call each (loop), or all by one program (scan); auto: "
        "the faster one for model and backend, see docs/fedgs.md", choices=("auto", "loop", "scan"),
    )  # fmt: skip


def fedgs(*, steps: int, execution: str = "auto") -> SyncAlgorithm:
    """Compound-step synchronization.

    For t = 1 … T = ``steps`` the base station m chooses devices S (``selection``), and

        w_m ← Σ_{k ∈ S} (n_k / Σ n) · (w_m − η ∇F_k(w_m))        internal, after every step

    where F_k is the mean loss of device k's next batch: one step on the union of the batches (see
    :mod:`geojax.devices.trainer`). Then all M base stations go on from

        w ← (1 / M) Σ_m w_m                                      external, after T steps

    which here is the ordinary exchange of deltas, every center counting the same.

    Args:
      steps: T, at least 1; the authors use 50.
      execution: how they are made.

    References:
      Li, He, Yu, Kang, Li, Xu, Niyato, *Data Heterogeneity-Robust Federated Learning via Group
      Client Selection in Industrial IoT*, IEEE Internet of Things Journal 9(18), 2022,
      arXiv 2202.01512, compound-step synchronization. The steps are those of the authors' code
      (Lizonghang/fedgs, ``server.py``, ``train_model``); the paper's own listing was not at hand.
    """
    return SyncAlgorithm(
        "fedgs", delta_offer(), fixed_steps(steps), barrier(), weighted_mean(), "average",
        weights="centers", needs_devices=True, execution=execution,
    )  # fmt: skip


@SYNCS.register("fedgs", FedGsConfig)
def _configured(config: FedGsConfig) -> SyncAlgorithm:
    return fedgs(steps=config.local_steps, execution=config.execution)
