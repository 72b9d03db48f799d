"""Delayed Nesterov: an outer optimizer for outer gradients that arrive one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from geojax.center.optimizers import OUTER_OPTIMIZERS
from geojax.config import OptimizerConfig
from geojax.errors import ConfigError
from geojax.settings import key

if TYPE_CHECKING:
    import optax


@dataclass
class DelayedNesterovConfig(OptimizerConfig):
    """Keys of ``outer_optimizer=delayed_nesterov``; its ``lr`` is ε."""

    name: str = "delayed_nesterov"
    lr: float | None = key(0.7, "ε, the learning rate; null: the run's", above=0)
    buffer: int = key(4, "N: outer gradients in one step of the momentum", least=1)
    momentum: float = key(0.9, "β", least=0, below=1)
    activation: float = key(0.0, "c: share of β·m in each step without a full buffer", least=0)

    def check(self) -> None:
        """See :meth:`geojax.settings.Settings.check`."""
        if self.activation * self.buffer > 1:
            fix = f"at most 1/N = {1 / self.buffer:g}, with outer_optimizer.buffer = {self.buffer}"
            raise ConfigError("outer_optimizer.activation", self.activation, fix)
        if self.weight_decay:
            fix = "outer_optimizer=delayed_nesterov has none; leave it out"
            raise ConfigError("outer_optimizer.weight_decay", self.weight_decay, fix)


class DelayedState(NamedTuple):
    """What delayed Nesterov remembers.

    Attributes:
      count: outer gradients so far.
      momentum: m.
      total: Δ, the sum of the outer gradients since the buffer was full last.
    """

    count: Any
    momentum: Any
    total: Any


@OUTER_OPTIMIZERS.register("delayed_nesterov", DelayedNesterovConfig)
def delayed_nesterov(config: DelayedNesterovConfig, lr: float) -> optax.GradientTransformation:
    """Every outer gradient g moves the parameters, but only every N-th one the momentum.

    With the outer gradient g::

        Δ ← Δ + g
        full buffer:  m ← β·m + Δ/N,  Δ ← 0,  θ ← θ − ε·[(1 − c·N + c)·β·m + g/N]
        else:                                 θ ← θ − ε·[c·β·m + g/N]

    Momentum applied at every arrival amplifies what stale outer gradients have in common; here it
    acts once in N. With N = 1 and c = 0 it is SGD with Nesterov's momentum.

    References:
      Liu et al., *Asynchronous Local-SGD Training for Language Modeling*, 2024, Algorithm 3, arXiv
      2401.09135.
    """
    import jax
    import jax.numpy as jnp
    import optax

    size, beta, share = config.buffer, config.momentum, config.activation

    def init(params: Any) -> DelayedState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return DelayedState(jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.zeros_like, zeros))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, DelayedState]:
        del params
        full = (state.count + 1) % size == 0
        total = jax.tree.map(jnp.add, state.total, updates)
        momentum = jax.tree.map(
            lambda m, d: jnp.where(full, beta * m + d / size, m), state.momentum, total
        )
        factor = jnp.where(full, 1 - share * size + share, share) * beta
        steps = jax.tree.map(lambda m, g: -lr * (factor * m + g / size), momentum, updates)
        kept = jax.tree.map(lambda d: jnp.where(full, 0, d), total)
        return steps, DelayedState(state.count + 1, momentum, kept)

    return optax.GradientTransformation(init, update)
