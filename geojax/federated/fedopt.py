"""FedAvgM, FedAdagrad, FedAdam, FedYogi: FedAvg with an optimizer at the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from geojax.center.optimizers import OUTER_OPTIMIZERS, SgdConfig
from geojax.center.server_optimizers import FedAdagradConfig
from geojax.federated.base import FederatedConfig, need_own_server, register
from geojax.settings import key
from geojax.sync.client import ClientRule


@dataclass
class FedAvgMConfig(FederatedConfig):
    """Keys of ``sync=fedavgm``."""

    name: str = "fedavgm"
    server_lr: float = key(1.0, "η of the server", above=0)
    beta: float = key(0.9, "β: momentum of the server", least=0, below=1)


@dataclass
class FedAdagradSyncConfig(FederatedConfig):
    """Keys of ``sync=fedadagrad``."""

    name: str = "fedadagrad"
    server_lr: float = key(0.1, "η of the server", above=0)
    b1: float = key(0.0, "β₁: decay of the mean of Δ", least=0, below=1)
    eps: float = key(1e-2, "ε (the paper's τ), added to √v", above=0)
    v0: float = key(0.0, "v before the first round", least=0)


@dataclass
class FedAdamSyncConfig(FederatedConfig):
    """Keys of ``sync=fedadam`` and ``sync=fedyogi``."""

    name: str = "fedadam"
    server_lr: float = key(0.00316, "η of the server", above=0)
    b1: float = key(0.9, "β₁: decay of the mean of Δ", least=0, below=1)
    b2: float = key(0.999, "β₂: decay of the mean of Δ²", least=0, below=1)
    eps: float = key(1e-4, "ε (the paper's τ), added to √v", above=0)
    v0: float = key(0.0, "v before the first round", least=0)


@dataclass
class FedYogiSyncConfig(FedAdamSyncConfig):
    """Keys of ``sync=fedyogi``."""

    name: str = "fedyogi"


def with_server(name: str, outer: Any) -> ClientRule:
    """FedAvg whose mean Δ is taken by a server optimizer, as minus a gradient.

    FedAvgM: ``m = β m + Δ``, ``w += η m``. The adaptive ones: see
    :mod:`geojax.center.server_optimizers`. The same optimizers go with any other algorithm
    (``outer_optimizer=fedadam sync=fedprox``). Defaults are the best server rates that the authors
    print for EMNIST character recognition, η 10⁻¹ and ε 10⁻² (FedAdagrad), 10⁻²·⁵ and 10⁻⁴. β₁ = 0
    of FedAdagrad is that of Keras's Adagrad, which their code takes.

    References:
      Hsu et al., *Measuring the Effects of Non-Identical Data Distribution*, arXiv 1909.06335
      (FedAvgM); Reddi et al., *Adaptive Federated Optimization*, ICLR 2021, Algorithm 2, arXiv
      2003.00295; google-research/federated, optimization/docs/hyperparameters.md.
    """
    return ClientRule(name, outer=outer, check=need_own_server(name))


@register("fedavgm", FedAvgMConfig)
def _fedavgm(config: FedAvgMConfig) -> ClientRule:
    return with_server("fedavgm", SgdConfig(lr=config.server_lr, momentum=config.beta))


@register("fedadagrad", FedAdagradSyncConfig)
def _fedadagrad(config: FedAdagradSyncConfig) -> ClientRule:
    outer = FedAdagradConfig(lr=config.server_lr, b1=config.b1, eps=config.eps, v0=config.v0)
    return with_server("fedadagrad", outer)


def _adaptive(config: FedAdamSyncConfig) -> ClientRule:
    outer = OUTER_OPTIMIZERS.settings(
        config.name, lr=config.server_lr, b1=config.b1, b2=config.b2, eps=config.eps, v0=config.v0
    )
    return with_server(config.name, outer)


register("fedadam", FedAdamSyncConfig)(_adaptive)
register("fedyogi", FedYogiSyncConfig)(_adaptive)
