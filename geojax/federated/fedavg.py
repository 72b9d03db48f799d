"""FedAvg: the mean of the clients' models, weighted by how much data each one has."""

from __future__ import annotations

from dataclasses import dataclass

from geojax.federated.base import FederatedConfig, register
from geojax.sync.client import ClientRule


@dataclass
class FedAvgConfig(FederatedConfig):
    """Keys of ``sync=fedavg``."""

    name: str = "fedavg"


def fedavg() -> ClientRule:
    """``w_{t+1} = w_t + Σ_k p_k (w_k − w_t)``, p_k = n_k / Σ n.

    References:
      McMahan et al., *Communication-Efficient Learning of Deep Networks from Decentralized Data*,
      AISTATS 2017, Algorithm 1, arXiv 1602.05629.
    """
    return ClientRule("fedavg")


@register("fedavg", FedAvgConfig)
def _configured(_: FedAvgConfig) -> ClientRule:
    return fedavg()
