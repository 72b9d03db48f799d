"""The members of the five parts that the algorithms are composed of."""

from __future__ import annotations

import numpy as np

from geojax.sync.algorithm import (
    AdmissionRule,
    LocalStepPolicy,
    MergeRule,
    More,
    Offer,
    Step,
    StepsTrainer,
)


async def _gradient(
    trainer: StepsTrainer, base: np.ndarray, parameters: int, more: More, step: Step
) -> np.ndarray:
    del base, parameters
    gradient = await step(trainer.gradient)
    if await more(1):
        raise ValueError("a gradient is offered after 1 step, and the local-step policy wants more")
    return gradient


async def _parameters(
    trainer: StepsTrainer, base: np.ndarray, parameters: int, more: More, step: Step
) -> np.ndarray:
    del base, parameters
    taken, due = 0, True
    while due:
        await step(trainer.step)
        taken += 1
        due = await more(taken)
    return trainer.vector()


async def _delta(
    trainer: StepsTrainer, base: np.ndarray, parameters: int, more: More, step: Step
) -> np.ndarray:
    vector = await _parameters(trainer, base, parameters, more, step)
    vector[:parameters] -= base[:parameters]
    return vector


def gradient_offer() -> Offer:
    """The mean gradient of one batch at the round's parameters."""
    return Offer("gradient", False, _gradient, lambda merged: merged)


def delta_offer() -> Offer:
    """How far the local steps moved the parameters; the pseudo-gradient is its negative."""
    return Offer("delta", True, _delta, np.negative)


def parameters_offer() -> Offer:
    """The parameters after the local steps, as they are; global servers alone can merge them."""
    return Offer("parameters", True, _parameters, lambda merged: merged)


def fixed_steps(steps: int) -> LocalStepPolicy:
    """The same number of local steps in every round."""
    return LocalStepPolicy(f"fixed({steps})", lambda _: steps)


def barrier() -> AdmissionRule:
    """Every member of the epoch, all at once."""
    return AdmissionRule("barrier", "tree")


def weighted_mean() -> MergeRule:
    """Mean of the offers, weighted by samples (McMahan et al., 2017, Algorithm 1)."""
    return MergeRule("weighted_mean", mean_of, None)


def mean_of(total: np.ndarray, weight: float) -> np.ndarray:
    """The weighted mean, from a weighted sum and the sum of the weights."""
    return total / np.float32(weight)
