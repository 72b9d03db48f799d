"""DiLoCo: many local steps with the inner optimizer, then one outer step with Nesterov momentum."""

from __future__ import annotations

from dataclasses import dataclass

from geojax.config import SyncConfig
from geojax.settings import key
from geojax.sync.algorithm import SYNCS, SyncAlgorithm
from geojax.sync.parts import barrier, delta_offer, fixed_steps, weighted_mean


@dataclass
class DilocoConfig(SyncConfig):
    """Keys of ``sync=diloco``."""

    name: str = "diloco"
    local_steps: int = key(500, "H: inner steps of a worker between two outer steps", least=1)


def diloco(*, steps: int) -> SyncAlgorithm:
    """Distributed low-communication training.

    Every worker i takes H = ``steps`` steps of the inner optimizer from the outer parameters θ;
    its inner state is never averaged. Then all together::

        Δ = mean over i of (θ - θ_i)      v ← β·v + Δ      θ ← θ - η·(Δ + β·v)

    with η = 0.7 and β = 0.9, unless ``outer_optimizer`` says otherwise. With η = 1 and β = 0 it is
    local SGD (``sync=local_steps``). The paper's inner optimizer is AdamW (``optimizer=adamw``);
    with ``optimizer=muon`` it is MuLoCo (Thérien et al., 2025).

    Args:
      steps: H, at least 1; the paper has 500.

    References:
      Douillard et al., *DiLoCo: Distributed Low-Communication Training of Language Models*, 2023,
      Algorithm 1, arXiv 2311.08105. Jaghouar et al., *OpenDiLoCo*, 2024, arXiv 2407.07852.
    """
    return SyncAlgorithm(
        "diloco", delta_offer(), fixed_steps(steps), barrier(), weighted_mean(), "nesterov"
    )


@SYNCS.register("diloco", DilocoConfig)
def _configured(config: DilocoConfig) -> SyncAlgorithm:
    return diloco(steps=config.local_steps)
