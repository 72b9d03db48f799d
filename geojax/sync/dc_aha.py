"""DC-AHA, reconstructed: delay-compensated asynchronous hierarchical aggregation.

No public text defines the algorithm of this name that the ESync dissertation compares with. What
stands here is our reconstruction from its name and its neighbours (MixedSync, DC-ASGD, FedAsync).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geojax.config import SyncConfig
from geojax.settings import key
from geojax.sync.admission import immediately
from geojax.sync.algorithm import SYNCS, MergeRule, Offered, Outer, RunFacts, State, SyncAlgorithm
from geojax.sync.compensation import ADAPTIVE_LAM, adaptive
from geojax.sync.parts import delta_offer, fixed_steps, mean_of
from geojax.sync.staleness import NAMES, Weighting, build_weighting


@dataclass
class DcAhaConfig(SyncConfig):
    """Keys of ``sync=dc_aha`` (reconstructed)."""

    name: str = "dc_aha"
    local_steps: int = key(10, "K1: local steps before an exchange", least=1)
    lam: float = key(ADAPTIVE_LAM, "λ0 of the adaptive compensation; 0: none", least=0)
    s: str = key("polynomial", "s(τ): what an offer counts by its staleness τ", choices=NAMES)
    a: float | None = key(None, "a of s; null: 0.5 if polynomial, 10 if hinge", above=0)
    b: int | None = key(None, "b of the hinge: staleness that costs nothing; null: 4", least=0)


def dc_aha(
    *, steps: int, lam: float = ADAPTIVE_LAM, s: str = "polynomial", a: float | None = None,
    b: int | None = None,
) -> SyncAlgorithm:  # fmt: skip
    """RECONSTRUCTED: see the module's docstring.

    Center j averages its workers over its LAN after K1 = ``steps`` local steps and offers the
    pseudo-gradient G_j = (w_bak(j) − w_j)/η_loc, where w_bak(j) is what it was sent last and η_loc
    the inner learning rate. The global server applies it when it arrives and answers center j::

        w ← w − η_g·s(τ_j)·ρ_j·[G_j + λ_t·G_j⊙G_j⊙(w − w_bak(j))]

    with ρ_j = n_j/n, the center's share of the samples, s(τ) = (1 + τ)^(−1/2), λ_t the adaptive
    one of DC-ASGD (λ0 = 2, m = 0.95), and η_g that of ``outer_optimizer``; by default η_loc. With
    λ0 = 0 and s = 1 it is MixedSync with local steps; with K1 = 1, s = 1 and one worker a center
    DC-ASGD-a at 1/n_centers of its learning rate.

    Args:
      steps: K1.
      lam: λ0.
      s: name of the function of staleness.
      a: its a.
      b: its b.

    Raises:
      ConfigError: a or b would go unused.
    """
    weighting = build_weighting(s, a, b)
    algorithm = SyncAlgorithm(
        "dc_aha", delta_offer(), fixed_steps(steps), immediately(),
        compensated_deltas(lam, weighting, 1.0), "sgd", weights="samples",
    )  # fmt: skip

    def for_run(facts: RunFacts) -> SyncAlgorithm:
        merge = compensated_deltas(lam, weighting, facts.lr)
        return algorithm._replace(merge=merge, outer_keys={"lr": facts.lr})

    return algorithm._replace(for_run=for_run)


def compensated_deltas(lam: float, s: Weighting, lr: float) -> MergeRule:
    """The server's rule of :func:`dc_aha`.

    Args:
      lam: λ0.
      s: s(τ).
      lr: η_loc.
    """
    compensation = adaptive(lam=lam)

    def apply(
        offers: Sequence[Offered], now: np.ndarray, outer: Outer, state: State
    ) -> tuple[np.ndarray, State]:
        (offer,) = offers
        gradient = offer.value / np.float32(lr)
        gradient, state = compensation.apply(gradient, now, offer.backup, state)
        return outer(np.float32(s(offer.staleness) * offer.weight) * gradient), state

    return MergeRule(
        "compensated deltas (reconstructed)", mean_of, apply,
        lambda parameters: compensation.init(parameters.size), needs_backup=True,
    )  # fmt: skip


@SYNCS.register("dc_aha", DcAhaConfig)
def _configured(config: DcAhaConfig) -> SyncAlgorithm:
    return dc_aha(steps=config.local_steps, lam=config.lam, s=config.s, a=config.a, b=config.b)
