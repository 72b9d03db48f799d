"""FedAT: synchronous inside a tier of equally fast centers, asynchronous across tiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from geojax.config import SyncConfig
from geojax.settings import key
from geojax.sync.admission import tiers
from geojax.sync.algorithm import SYNCS, MergeRule, Offered, Outer, RunFacts, State, SyncAlgorithm
from geojax.sync.parts import fixed_steps, mean_of, parameters_offer


@dataclass
class FedAtConfig(SyncConfig):
    """Keys of ``sync=fedat``."""

    name: str = "fedat"
    local_steps: int = key(10, "local steps before an exchange", least=1)
    tiers: int = key(2, "M: groups of centers by speed; at most as many as centers", least=1)
    lam: float = key(0.4, "λ of the proximal term (λ/2)·‖w_k − w‖²; 0: none", least=0)


def fedat(*, steps: int, count: int, lam: float = 0.4) -> SyncAlgorithm:
    """Federated learning with asynchronous tiers.

    Centers are parted into M tiers by their speeds. A tier waits for all of its own centers. Their
    models' mean, weighted by samples, becomes the tier's model w_tier m; then the global model is::

        w = Σ_m (T_{M+1−m} / T)·w_tier_m

    where T_m counts the updates of tier m (1: the fastest) and T all of them: the fast tiers'
    many updates give weight to the slow tiers' models. The tier's centers go on from w, with the
    proximal term (λ/2)·‖w_k − w‖². A tier's model is the initial one before its first update. So w
    is still that of the initial model when the slowest tier, of two, has made none.

    In the paper TiFL's profiling makes the tiers; here they go by the configured paces, before any
    disturbance, and are equally large. The paper has λ = 0.4, 3 local epochs, 5 tiers.

    Args:
      steps: local steps, at least 1.
      count: M.
      lam: λ.

    References:
      Chai et al., *FedAT: A High-Performance and Communication-Efficient Federated Learning System
      with Asynchronous Tiers*, SC 2021, Algorithm 2 and §4.2, arXiv 2010.05958.
    """
    algorithm = SyncAlgorithm(
        "fedat", parameters_offer(), fixed_steps(steps),
        tiers({})._replace(least=("sync.tiers", count, count)), of_tiers({}, count), "average",
        weights="samples", proximal=lam,
    )  # fmt: skip

    def for_run(facts: RunFacts) -> SyncAlgorithm:
        tier_of = by_speed(facts, count)
        admission = tiers(tier_of)._replace(least=algorithm.admission.least)
        return algorithm._replace(admission=admission, merge=of_tiers(tier_of, count))

    return algorithm._replace(for_run=for_run)


def by_speed(facts: RunFacts, count: int) -> dict[str, int]:
    """The tier of each center, 0 the fastest; equally large, ties by the centers' order.

    A center is as fast as its slowest worker.

    >>> speeds = {"a": 0.1, "b/w0": 1.0, "b/w1": 0.5, "c": 0.7, "d": 0.2}
    >>> by_speed(RunFacts(speeds, ("a", "b", "c", "d"), 0.1), 2)
    {'c': 0, 'b': 0, 'd': 1, 'a': 1}
    """
    slowest: dict[str, float] = {}
    for name, speed in facts.speeds.items():
        center = name.partition("/")[0]
        slowest[center] = min(speed, slowest.get(center, speed))
    ranked = sorted(facts.centers, key=lambda center: -slowest[center])
    return {center: rank * count // len(ranked) for rank, center in enumerate(ranked)}


def of_tiers(tier_of: Mapping[str, int], count: int) -> MergeRule:
    """The server's rule of :func:`fedat`; its state is every tier's model and count of updates."""

    def init(parameters: np.ndarray) -> State:
        models = {f"tier {tier}": parameters for tier in range(count)}
        return {**models, "updates": np.zeros(count, np.float32)}

    def apply(
        offers: Sequence[Offered], now: np.ndarray, outer: Outer, state: State
    ) -> tuple[np.ndarray, State]:
        del now, outer
        tier = tier_of[offers[0].center]
        total = np.float32(offers[0].weight) * offers[0].value
        for offer in offers[1:]:
            total = total + np.float32(offer.weight) * offer.value
        mean = mean_of(total, sum(offer.weight for offer in offers))
        updates = state["updates"] + np.eye(1, count, tier, dtype=np.float32)[0]
        state = {**state, f"tier {tier}": mean, "updates": updates}
        shares = updates[::-1] / updates.sum()
        merged = shares[0] * state["tier 0"]
        for each in range(1, count):
            merged = merged + shares[each] * state[f"tier {each}"]
        return merged, state

    return MergeRule("tiers", mean_of, apply, init, outer=False)


@SYNCS.register("fedat", FedAtConfig)
def _configured(config: FedAtConfig) -> SyncAlgorithm:
    return fedat(steps=config.local_steps, count=config.tiers, lam=config.lam)
