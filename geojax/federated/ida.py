"""IDA: clients count the less, the further their models are from the mean. Reconstructed."""

from __future__ import annotations

from dataclasses import dataclass

from geojax.config import RunConfig
from geojax.errors import ConfigError
from geojax.federated.base import FederatedConfig, register
from geojax.settings import key
from geojax.sync.client import NEAREST, Candidate, ClientRule

FACTORS = ("fedavg", "intrac", "none")


@dataclass
class IdaConfig(FederatedConfig):
    """Keys of ``sync=ida``."""

    name: str = "ida"
    factor: str = key("none", "further factor of a client's weight", choices=FACTORS)


def ida(*, factor: str = "none") -> ClientRule:
    """Inverse distance aggregation: ``w_{t+1} = Σ_k α_k w_k``, reconstructed from the abstract.

    ``α_k ∝ 1 / (‖w̄ − w_k‖₁ + 10⁻¹²)`` with w̄ the plain mean. ``factor=fedavg`` (IDA + FedAvg)
    multiplies by n_k; ``factor=intrac`` (IDA + INTRAC, inverse training accuracy coefficients) by
    ``1 / max(1/C, a_k)``, a_k the accuracy of w_k on the client's own training samples. The mean
    has to be known before the weights: a federated round takes two exchanges, first of w̄, then of
    the weighted mean; nobody trains in between.

    References:
      Yeganeh et al., *Inverse Distance Aggregation for Federated Learning with Non-IID Data*, DART
      2020, arXiv 2008.07665: what we could read has no formulas, these are reconstructed.
    """

    def mix(client: Candidate) -> float:
        weight = 1 / (client.distance + NEAREST)
        if factor == "fedavg":
            weight *= client.samples
        if factor == "intrac":
            weight /= max(1 / client.classes, client.accuracy)
        return weight

    def check(config: RunConfig) -> None:
        if config.outer_optimizer.name != "auto":
            fix = "a server's step would move the mean that distances are taken from; use auto"
            raise ConfigError("outer_optimizer.name", config.outer_optimizer.name, fix)
        if factor == "intrac" and config.loss != "cross_entropy":
            fix = "sync.factor=intrac needs the accuracy of labels; use loss=cross_entropy, or none"
            raise ConfigError("loss", config.loss, fix)

    return ClientRule("ida", weights="uniform", mix=mix, accuracy=factor == "intrac", check=check)


@register("ida", IdaConfig)
def _configured(config: IdaConfig) -> ClientRule:
    return ida(factor=config.factor)
