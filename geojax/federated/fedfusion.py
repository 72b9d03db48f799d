"""FedFusion: clients learn how to fuse the round's features with their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geojax.config import RunConfig
from geojax.errors import ConfigError
from geojax.federated.base import FederatedConfig, every, need_stages, register
from geojax.settings import key
from geojax.sync.client import Batch, ClientModel, ClientRule, Extra, Given, Merged, ServerRule

if TYPE_CHECKING:
    import jax

OPERATORS = ("conv", "multi", "single")


@dataclass
class FedFusionConfig(FederatedConfig):
    """Keys of ``sync=fedfusion``."""

    name: str = "fedfusion"
    operator: str = key("multi", "how the two feature maps are fused", choices=OPERATORS)
    smoothing: float = key(0.9, "μ: share of the old γ in the next round's", least=0, below=1)
    frozen: bool = key(False, "fusion parameters stay what they are at the start")


def fuse(operator: str, extras: dict[str, jax.Array], local: jax.Array, frozen: jax.Array) -> Any:
    """The fused feature map (b, height, width, C) of the client's z and the round's y.

    ``conv``: a 1×1 convolution of [z, y]; ``multi``, ``single``: ``γ y + (1 − γ) z`` with γ a
    channel, or one for all.
    """
    import jax.numpy as jnp

    if operator == "conv":
        both = jnp.concatenate([local, frozen], axis=-1)
        return both @ extras["kernel"] + extras["bias"]
    gamma = extras["gamma"]
    return gamma * frozen + (1 - gamma) * local


def fusion_extras(operator: str, channels: int) -> tuple[Extra, ...]:
    """Fusion parameters, which begin such that the fused map is z: the model alone."""
    if operator == "conv":
        kernel = np.concatenate([np.eye(channels), np.zeros((channels, channels))])
        start = kernel.astype(np.float32)
        return (
            Extra("kernel", (2 * channels, channels), start, trained=True),
            Extra("bias", (channels,), trained=True),
        )
    return (Extra("gamma", (channels if operator == "multi" else 1,), trained=True),)


def fedfusion(*, operator: str, smoothing: float = 0.9, frozen: bool = False) -> ClientRule:
    """Local steps on the model with its last feature map fused; the plain mean of all clients.

    y are the features of w_t, frozen and in evaluation mode, z those of w, after the last
    convolution's stage. Fusion parameters are trained and averaged with the model;
    γ is smoothed across rounds, ``γ_{t+1} = (1 − μ) γ̄ + μ γ_t`` with μ = .9. The merged model is
    evaluated with both streams the same: for ``multi`` and ``single`` that is the model alone.
    ``conv`` begins as the identity on z (ours; the paper does not say). The paper's decay of the
    learning rate is left out.

    References:
      Yao et al., *Towards Faster and Better Federated Learning: A Feature Fusion Approach*, ICIP
      2019; constants from thu-media/FedFusion.
    """

    def fused(extras: Any, local: Any, other: Any) -> Any:
        import jax

        return fuse(operator, jax.lax.stop_gradient(extras) if frozen else extras, local, other)

    def objective(model: ClientModel, w: Any, given: Given, batch: Batch) -> Any:
        return model.fused_loss(w, given, batch, fused)

    def update(merged: Merged, state: dict[str, np.ndarray]) -> Any:
        if operator == "conv":
            return merged.delta, {}, state
        new = (1 - np.float32(smoothing)) * merged.extras["gamma"]
        return merged.delta, {"gamma": new + smoothing * merged.before["gamma"]}, state

    def check(config: RunConfig) -> None:
        if frozen and config.optimizer.weight_decay:
            fix = "would move frozen fusion parameters; use 0, or sync.frozen=false"
            raise ConfigError("optimizer.weight_decay", config.optimizer.weight_decay, fix)

    return ClientRule(
        "fedfusion", weights="uniform", objective=objective,
        extras=lambda shapes: fusion_extras(operator, shapes.channels),
        server=ServerRule(lambda _: {}, update), fuse=fused,
        check=every(need_stages("fedfusion", "the last convolution's output", images=True), check),
    )  # fmt: skip


@register("fedfusion", FedFusionConfig)
def _configured(config: FedFusionConfig) -> ClientRule:
    return fedfusion(operator=config.operator, smoothing=config.smoothing, frozen=config.frozen)
