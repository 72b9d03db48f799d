"""FedAsync: every model that arrives is mixed in, the less the older it is."""

from __future__ import annotations

from dataclasses import dataclass

from geojax.config import SyncConfig
from geojax.settings import key
from geojax.sync.admission import immediately
from geojax.sync.algorithm import SYNCS, SyncAlgorithm
from geojax.sync.merging import mixing
from geojax.sync.parts import fixed_steps, parameters_offer
from geojax.sync.staleness import NAMES, build_weighting


@dataclass
class FedAsyncConfig(SyncConfig):
    """Keys of ``sync=fedasync``."""

    name: str = "fedasync"
    local_steps: int = key(10, "H: local steps before an exchange", least=1)
    alpha: float = key(0.6, "α: share of a fresh model in the mix", above=0, most=1)
    s: str = key("polynomial", "s(τ): how α falls with the staleness τ", choices=NAMES)
    a: float | None = key(None, "a of s; null: 0.5 if polynomial, 10 if hinge", above=0)
    b: int | None = key(None, "b of the hinge: staleness that costs nothing; null: 4", least=0)
    rho: float = key(0.005, "ρ of the proximal term (ρ/2)·‖x − x_t‖²; 0: none", least=0)


def fedasync(
    *, steps: int, alpha: float = 0.6, s: str = "polynomial", a: float | None = None,
    b: int | None = None, rho: float = 0.005,
) -> SyncAlgorithm:  # fmt: skip
    """Asynchronous federated optimization.

    A center takes H = ``steps`` local steps from the model x_τ that it was sent last, on its loss
    with the proximal term (ρ/2)·‖x − x_τ‖², and sends the model x_new itself. The server mixes it
    into the present one and answers that center alone::

        x_t = (1 − α_t)·x_{t−1} + α_t·x_new,      α_t = α·s(t − 1 − τ)

    t − 1 − τ counts the merges in between; the paper has s(t − τ), by which the freshest model
    would be 1 old and count less than α. s(τ) is 1 (``constant``), (τ + 1)^(−a) (``polynomial``),
    or 1 up to b and 1/(a(τ − b) + 1) beyond (``hinge``). α_t is computed afresh from α each time.
    With one center, α = 1 and ρ = 0
    it is training of that center alone. There is no outer optimizer.

    Args:
      steps: H; the paper lets it vary between two bounds, here it is fixed.
      alpha: α; the paper has 0.6 and 0.9 for CIFAR-10.
      s: the name of the function.
      a: its a; None: 0.5 for ``polynomial`` and 10 for ``hinge``, as in the paper.
      b: of ``hinge``; None: 4, which is 5 by the paper's count. The paper draws τ up to 4 or 16;
        where paces differ much more, τ is larger and b has to be too.
      rho: ρ; the paper has 0.005 and 0.01 for CIFAR-10.

    Raises:
      ConfigError: a or b would go unused.

    References:
      Xie, Koyejo, Gupta, *Asynchronous Federated Optimization*, 2019, Algorithm 1 and §5.1, arXiv
      1903.03934.
    """
    return SyncAlgorithm(
        "fedasync", parameters_offer(), fixed_steps(steps), immediately(),
        mixing(alpha, build_weighting(s, a, b)), "average", proximal=rho,
    )  # fmt: skip


@SYNCS.register("fedasync", FedAsyncConfig)
def _configured(config: FedAsyncConfig) -> SyncAlgorithm:
    return fedasync(
        steps=config.local_steps, alpha=config.alpha, s=config.s, a=config.a, b=config.b,
        rho=config.rho,
    )  # fmt: skip
