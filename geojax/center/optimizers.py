"""Optax optimizers by configured name, for local (inner) and merged (outer) steps.

Importing this, and checking a configuration with it, needs no JAX; building an optimizer does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geojax.config import OptimizerConfig
from geojax.errors import ConfigError
from geojax.registry import AXES, Registry
from geojax.settings import check_values, key

if TYPE_CHECKING:
    import optax

Build = Callable[[Any, float], "optax.GradientTransformation"]
OPTIMIZERS: Registry[Build] = Registry("optimizer.name", OptimizerConfig)
OUTER_OPTIMIZERS: Registry[Build] = Registry("outer_optimizer.name", OptimizerConfig)


@dataclass
class SgdConfig(OptimizerConfig):
    """Keys of ``optimizer=sgd``."""

    name: str = "sgd"
    momentum: float = key(0.0, "of the heavy ball, or Nesterov's", least=0, below=1)
    nesterov: bool = key(False, "Nesterov's momentum")


NESTEROV = SgdConfig(lr=0.7, momentum=0.9, nesterov=True)
"""The outer optimizer of DiLoCo (Douillard et al., 2023, §2): η = 0.7, β = 0.9."""


@dataclass
class AdamConfig(OptimizerConfig):
    """Keys of ``optimizer=adam`` and ``optimizer=adamw``."""

    name: str = "adam"
    b1: float = key(0.9, "decay of the mean of gradients", least=0, below=1)
    b2: float = key(0.999, "decay of the mean of their squares", least=0, below=1)
    eps: float = key(1e-8, "added to the root of the mean square", above=0)


@dataclass
class MuonConfig(AdamConfig):
    """Keys of ``optimizer=muon``; those of Adam are for what is no matrix."""

    name: str = "muon"
    b1: float = key(0.9, "of Adam: decay of the mean of gradients", least=0, below=1)
    b2: float = key(0.95, "of Adam: decay of the mean of their squares", least=0, below=1)
    beta: float = key(0.95, "decay of the matrices' momentum", least=0, below=1)
    ns_steps: int = key(5, "steps of the Newton-Schulz iteration", least=1)
    adam_lr: float | None = key(None, "of Adam; null: the same as of the matrices", above=0)


@dataclass
class AutoConfig(OptimizerConfig):
    """``outer_optimizer=auto``: what the algorithm's definition has, with no key of its own."""

    name: str = "auto"

    def check(self) -> None:
        """See :meth:`geojax.settings.Settings.check`."""
        for name, default in vars(OptimizerConfig()).items():
            if name != "name" and getattr(self, name) != default:
                fix = "outer_optimizer=auto does not read it; choose another one, or leave it out"
                raise ConfigError(f"outer_optimizer.{name}", getattr(self, name), fix)


@OUTER_OPTIMIZERS.register("auto", AutoConfig)
def _auto(config: AutoConfig, _: float) -> optax.GradientTransformation:
    raise ConfigError("outer_optimizer.name", config.name, "stands for another; choose that one")


@OUTER_OPTIMIZERS.register("sgd", SgdConfig)
@OPTIMIZERS.register("sgd", SgdConfig)
def sgd(config: SgdConfig, lr: float) -> optax.GradientTransformation:
    """``w -= lr·v`` with ``v = momentum·v + g + weight_decay·w`` (heavy ball, or Nesterov's)."""
    import optax

    step = optax.sgd(lr, momentum=config.momentum or None, nesterov=config.nesterov)
    return _decayed(config, step)


@OUTER_OPTIMIZERS.register("adam", AdamConfig)
@OPTIMIZERS.register("adam", AdamConfig)
def adam(config: AdamConfig, lr: float) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, 2015) of ``g + weight_decay·w``."""
    import optax

    return _decayed(config, optax.adam(lr, b1=config.b1, b2=config.b2, eps=config.eps))


@OUTER_OPTIMIZERS.register("adamw", AdamConfig)
@OPTIMIZERS.register("adamw", AdamConfig)
def adamw(config: AdamConfig, lr: float) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""
    import optax

    return optax.adamw(
        lr, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay
    )


@OPTIMIZERS.register("muon", MuonConfig)
def muon(config: MuonConfig, lr: float) -> optax.GradientTransformation:
    """Muon for matrices, Adam for everything else; weights of both decay, decoupled.

    A matrix W (a parameter of exactly two dimensions: kernels of dense layers, embeddings) goes by
    its momentum, made orthogonal by ``ns_steps`` of Newton-Schulz iteration (Jordan et al., 2024)::

        m ← β·m + (1 - β)·g      W ← W - lr·√max(1, columns / rows)·orthogonal(Nesterov m)

    as in :func:`optax.contrib.muon`. Biases, scales and kernels of convolutions, which have one or
    four dimensions, go by Adam with Nesterov's momentum. It needs to see matrices, so it is an
    inner optimizer only: merged vectors are flat. As the inner optimizer of ``sync=diloco`` it
    makes MuLoCo (Thérien et al., *MuLoCo: Muon is a practical inner optimizer for DiLoCo*, 2025,
    arXiv 2505.23725).
    """
    import optax.contrib

    return optax.contrib.muon(
        lr, ns_steps=config.ns_steps, beta=config.beta, weight_decay=config.weight_decay,
        adam_b1=config.b1, adam_b2=config.b2, adam_weight_decay=config.weight_decay,
        eps=config.eps, adam_learning_rate=config.adam_lr,
    )  # fmt: skip


def build_optimizer(
    config: OptimizerConfig, lr: float, *, key: str = "optimizer"
) -> optax.GradientTransformation:
    """The configured optimizer.

    The gradient is clipped to ``clip_norm`` (its Euclidean norm over all parameters) before
    anything else sees it.

    Args:
      config: name and settings; its own ``lr`` is not read, see ``lr``.
      lr: learning rate.
      key: the configuration group, for error messages.

    Raises:
      ConfigError: see :func:`check_optimizer`.
    """
    check_optimizer(config, lr, key=key)
    step = AXES[key][config.name](AXES[key].complete(config), lr)
    if config.clip_norm is None:
        return step

    import optax

    return optax.chain(optax.clip_by_global_norm(config.clip_norm), step)


def check_optimizer(config: OptimizerConfig, lr: float, *, key: str = "optimizer") -> None:
    """Finds what is wrong with the settings of an optimizer.

    Args:
      config: name and settings.
      lr: learning rate.
      key: the configuration group, for error messages.

    Raises:
      ConfigError: the name is unknown, or a setting is out of range or would go unused.
    """
    settings = AXES[key].complete(config)
    check_values(key, settings)
    if not 0 < lr < math.inf:
        raise ConfigError(f"{key}.lr", lr, "use a positive learning rate")
    if settings.name == "sgd" and settings.nesterov and settings.momentum == 0:
        raise ConfigError(f"{key}.nesterov", True, f"set {key}.momentum too, e.g. 0.9")


def _decayed(
    config: OptimizerConfig, step: optax.GradientTransformation
) -> optax.GradientTransformation:
    import optax

    if config.weight_decay == 0:
        return step
    return optax.chain(optax.add_decayed_weights(config.weight_decay), step)
