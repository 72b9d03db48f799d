"""Adaptive optimizers of federated servers: Adagrad, Adam and Yogi without bias correction.

With Δ = −g the mean of the clients' moves::

    m = β₁ m + (1 − β₁) Δ
    v = v + Δ²                               Adagrad
    v = β₂ v + (1 − β₂) Δ²                   Adam
    v = v − (1 − β₂) Δ² sign(v − Δ²)         Yogi
    w = w + η m / (√v + ε)

Reddi et al., *Adaptive Federated Optimization*, ICLR 2021, Algorithm 2, arXiv 2003.00295. There is
no bias correction, which optax's Adam and Yogi have. v begins at ``v0``, here 0 as in the authors'
code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from geojax.center.optimizers import OUTER_OPTIMIZERS
from geojax.config import OptimizerConfig
from geojax.settings import key

if TYPE_CHECKING:
    import jax
    import optax


@dataclass
class FedAdagradConfig(OptimizerConfig):
    """Keys of ``outer_optimizer=fedadagrad``."""

    name: str = "fedadagrad"
    b1: float = key(0.0, "β₁: decay of the mean of gradients", least=0, below=1)
    eps: float = key(1e-2, "ε, added to √v", above=0)
    v0: float = key(0.0, "v before the first round", least=0)


@dataclass
class AdaptiveConfig(OptimizerConfig):
    """Keys of ``outer_optimizer=fedadam`` and ``outer_optimizer=fedyogi``."""

    name: str = "fedadam"
    b1: float = key(0.9, "β₁: decay of the mean of gradients", least=0, below=1)
    b2: float = key(0.999, "β₂: decay of the mean of their squares", least=0, below=1)
    eps: float = key(1e-4, "ε, added to √v", above=0)
    v0: float = key(0.0, "v before the first round", least=0)


class AdaptiveState(NamedTuple):
    """What an adaptive server keeps."""

    m: Any  # mean of gradients, as the parameters
    v: Any  # of their squares


def _adaptive(
    config: Any, lr: float, square: Callable[[jax.Array, jax.Array], jax.Array]
) -> optax.GradientTransformation:
    """``square``: ``(v, Δ²) -> v``."""
    import jax
    import jax.numpy as jnp
    import optax

    def init(params: Any) -> AdaptiveState:
        return AdaptiveState(
            jax.tree.map(jnp.zeros_like, params),
            jax.tree.map(lambda each: jnp.full_like(each, config.v0), params),
        )

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        del params
        m = jax.tree.map(lambda m, g: config.b1 * m + (1 - config.b1) * g, state.m, updates)
        v = jax.tree.map(lambda v, g: square(v, jnp.square(g)), state.v, updates)
        steps = jax.tree.map(lambda m, v: -lr * m / (jnp.sqrt(v) + config.eps), m, v)
        return steps, AdaptiveState(m, v)

    step = optax.GradientTransformation(init, update)
    if config.weight_decay == 0:
        return step
    return optax.chain(optax.add_decayed_weights(config.weight_decay), step)


@OUTER_OPTIMIZERS.register("fedadagrad", FedAdagradConfig)
def fedadagrad(config: FedAdagradConfig, lr: float) -> optax.GradientTransformation:
    """Adagrad; see the module's docstring."""
    return _adaptive(config, lr, lambda v, square: v + square)


@OUTER_OPTIMIZERS.register("fedadam", AdaptiveConfig)
def fedadam(config: AdaptiveConfig, lr: float) -> optax.GradientTransformation:
    """Adam without bias correction; see the module's docstring."""
    return _adaptive(config, lr, lambda v, square: config.b2 * v + (1 - config.b2) * square)


@dataclass
class FedYogiConfig(AdaptiveConfig):
    """Keys of ``outer_optimizer=fedyogi``."""

    name: str = "fedyogi"


@OUTER_OPTIMIZERS.register("fedyogi", FedYogiConfig)
def fedyogi(config: FedYogiConfig, lr: float) -> optax.GradientTransformation:
    """Yogi without bias correction; see the module's docstring."""

    def square(v: jax.Array, squares: jax.Array) -> jax.Array:
        import jax.numpy as jnp

        return v - (1 - config.b2) * squares * jnp.sign(v - squares)

    return _adaptive(config, lr, square)
