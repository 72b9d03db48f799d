"""Optax optimizers by configured name, for local (inner) and merged (outer) steps.

Importing this, and checking a configuration with it, needs no JAX; building an optimizer does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from geojax.config import OptimizerConfig
from geojax.errors import ConfigError, nearest
from geojax.registry import Registry

if TYPE_CHECKING:
    import optax

OPTIMIZERS: Registry[Callable[[OptimizerConfig, float], optax.GradientTransformation]] = Registry(
    "optimizer.name"
)

_NO_MOMENTUM = ("adam", "adamw")  # b1 is in its place


@OPTIMIZERS.register("sgd")
def sgd(config: OptimizerConfig, lr: float) -> optax.GradientTransformation:
    """``w -= lr·v`` with ``v = momentum·v + g + weight_decay·w`` (heavy ball, or Nesterov's)."""
    import optax

    step = optax.sgd(lr, momentum=config.momentum or None, nesterov=config.nesterov)
    return _decayed(config, step)


@OPTIMIZERS.register("adam")
def adam(config: OptimizerConfig, lr: float) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, 2015) of ``g + weight_decay·w``."""
    import optax

    return _decayed(config, optax.adam(lr, b1=config.b1, b2=config.b2, eps=config.eps))


@OPTIMIZERS.register("adamw")
def adamw(config: OptimizerConfig, lr: float) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""
    import optax

    return optax.adamw(
        lr, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay
    )


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
    step = OPTIMIZERS[config.name](config, lr)
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
    if config.name not in OPTIMIZERS:
        raise ConfigError(f"{key}.name", config.name, nearest(config.name, OPTIMIZERS))
    clip_norm = 1.0 if config.clip_norm is None else config.clip_norm
    decay = config.weight_decay
    share = "use a number in [0, 1)"
    settings = (
        ("lr", lr, 0 < lr < math.inf, "use a positive learning rate"),
        ("momentum", config.momentum, 0 <= config.momentum < 1, share),
        ("b1", config.b1, 0 <= config.b1 < 1, share),
        ("b2", config.b2, 0 <= config.b2 < 1, share),
        ("eps", config.eps, 0 < config.eps < math.inf, "use a small positive number"),
        ("weight_decay", decay, 0 <= decay < math.inf, "use 0 or a small positive number"),
        ("clip_norm", clip_norm, 0 < clip_norm < math.inf, "use a positive norm, or null"),
    )
    for name, value, valid, fix in settings:
        if not valid:
            raise ConfigError(f"{key}.{name}", value, fix)
    if config.momentum and config.name in _NO_MOMENTUM:
        fix = f"{config.name} has b1 in its place; set {key}.momentum to 0"
        raise ConfigError(f"{key}.momentum", config.momentum, fix)
    if config.nesterov and config.momentum == 0:
        raise ConfigError(f"{key}.nesterov", True, f"set {key}.momentum too, e.g. 0.9")


def _decayed(
    config: OptimizerConfig, step: optax.GradientTransformation
) -> optax.GradientTransformation:
    import optax

    if config.weight_decay == 0:
        return step
    return optax.chain(optax.add_decayed_weights(config.weight_decay), step)
