"""Async DiLoCo: asynchronous local SGD with delayed Nesterov momentum and dynamic local updates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from geojax.config import SyncConfig
from geojax.settings import key
from geojax.sync.admission import immediately
from geojax.sync.algorithm import SYNCS, LocalStepPolicy, RunFacts, SyncAlgorithm
from geojax.sync.merging import one_by_one
from geojax.sync.parts import delta_offer, fixed_steps

_NEAR = 1e-9  # so near a whole step counts as one


@dataclass
class AsyncDilocoConfig(SyncConfig):
    """Keys of ``sync=async_diloco``."""

    name: str = "async_diloco"
    local_steps: int = key(20, "H: local steps of the fastest worker", least=1)
    dylu: bool = key(True, "slower workers take fewer local steps, else all take H")


def async_diloco(*, steps: int, dylu: bool = True) -> SyncAlgorithm:
    """Every center's delta is an outer gradient, applied when it arrives.

    The outer optimizer is *delayed Nesterov*
    (:func:`geojax.center.delayed_nesterov.delayed_nesterov`), whose buffer is by default as large
    as there are centers, with ε = 0.7, β = 0.9 and c = 0; ``outer_optimizer=delayed_nesterov``
    sets others. Only the momentum waits for a full buffer: every offer moves the parameters.

    With ``dylu`` (*dynamic local updates*) worker k takes max(1, floor(H·v_k / max v)) local steps,
    where v_k is its speed as configured, before any disturbance, so that all need about the same
    time for a round. In the paper v_k is measured.

    Args:
      steps: H.
      dylu: see above.

    References:
      Liu et al., *Asynchronous Local-SGD Training for Language Modeling*, 2024, Algorithms 3 and 4,
      arXiv 2401.09135.
    """
    policy = dylu_steps(steps) if dylu else fixed_steps(steps)
    algorithm = SyncAlgorithm(
        "async_diloco", delta_offer(), policy, immediately(), one_by_one(), "delayed_nesterov"
    )

    def for_run(facts: RunFacts) -> SyncAlgorithm:
        return algorithm._replace(outer_keys={"buffer": len(facts.centers)})

    return algorithm._replace(for_run=for_run)


def dylu_steps(steps: int, *, up: bool = False) -> LocalStepPolicy:
    """``steps`` for the fastest worker, and for others in proportion to their speeds.

    Args:
      steps: H.
      up: shares of a step are rounded up, else down; every worker takes at least one.

    >>> policy = dylu_steps(20)
    >>> [policy.for_speed(0.58 / seconds).steps(0) for seconds in (0.58, 0.75, 1.51, 3.33)]
    [20, 15, 7, 3]
    >>> [dylu_steps(8, up=True).for_speed(speed).steps(0) for speed in (1.0, 0.5, 0.13)]
    [8, 4, 2]
    """

    def for_speed(speed: float) -> LocalStepPolicy:
        share = steps * speed
        taken = math.ceil(share - _NEAR) if up else math.floor(share + _NEAR)
        return fixed_steps(max(1, taken))

    return fixed_steps(steps)._replace(name=f"dylu({steps})", for_speed=for_speed)


@SYNCS.register("async_diloco", AsyncDilocoConfig)
def _configured(config: AsyncDilocoConfig) -> SyncAlgorithm:
    return async_diloco(steps=config.local_steps, dylu=config.dylu)
