"""FedProx: local steps are drawn back to the round's parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from geojax.federated.base import FederatedConfig, register
from geojax.settings import key
from geojax.sync.client import ClientRule, Given


@dataclass
class FedProxConfig(FederatedConfig):
    """Keys of ``sync=fedprox``."""

    name: str = "fedprox"
    mu: float = key(0.01, "μ of the proximal term; the paper tunes over .001, .01, .1, .5, 1",
                    least=0)  # fmt: skip


def fedprox(*, mu: float) -> ClientRule:
    """Local objective ``F_k(w) + (μ/2) ‖w − w_t‖²``: gradient ``g + μ (w − w_t)``; then FedAvg.

    The paper samples clients in proportion to n_k and averages evenly; with clients that are drawn
    evenly, as here, weights n_k have the same expectation.

    References:
      Li et al., *Federated Optimization in Heterogeneous Networks*, MLSys 2020, equation 2, arXiv
      1812.06127.
    """

    def correct(gradient: Any, w: Any, given: Given) -> Any:
        return gradient + mu * (w - given.start)

    return ClientRule("fedprox", correct=correct)


@register("fedprox", FedProxConfig)
def _configured(config: FedProxConfig) -> ClientRule:
    return fedprox(mu=config.mu)
