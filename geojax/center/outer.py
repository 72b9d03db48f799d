"""The optimizer that turns a merged gradient into new parameters, on flat host vectors.

Imports JAX only for a model that is trained: nodes with a synthetic model do without.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from geojax.center import delayed_nesterov  # noqa: F401  it registers itself
from geojax.center.optimizers import OUTER_OPTIMIZERS, SgdConfig, build_optimizer, check_optimizer
from geojax.center.spec import VectorSpec
from geojax.config import OptimizerConfig
from geojax.errors import ConfigError


class OuterOptimizer(Protocol):
    """Holds the outer state of one center (or of one server), and advances vectors by it."""

    def init(self, vector: np.ndarray) -> None:
        """Forgets all history; the next :meth:`apply` is the first step from ``vector``."""
        ...

    def apply(self, vector: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """One step: a fresh vector, whose float state is that of ``gradient``."""
        ...

    def state_dict(self) -> dict[str, np.ndarray]:
        """The outer state, as host arrays by path."""
        ...

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Restores :meth:`state_dict`."""
        ...


class FlatOptimizer:
    """An optax optimizer on the parameters of flat vectors.

    The first ``spec.parameters`` elements take an optimizer step. The rest is float model state,
    which has no gradient: there ``gradient`` carries the merged value, which is taken over.
    Computed on the CPU, so that every center gets the same bits.

    Args:
      config: which optimizer.
      lr: learning rate.
      spec: layout of the vectors.
      key: the configuration group, for error messages.
    """

    def __init__(
        self, config: OptimizerConfig, lr: float, spec: VectorSpec, *, key: str = "outer_optimizer"
    ):
        check_optimizer(config, lr, key=key)
        self._spec = spec
        settings = tuple(sorted(vars(OUTER_OPTIMIZERS.complete(config)).items()))
        self._start, self._update = _programs(settings, lr, spec.parameters)
        self.init(np.zeros(spec.size, np.float32))

    def init(self, vector: np.ndarray) -> None:
        """See :class:`OuterOptimizer`."""
        import jax

        from geojax.center.devices import host_device

        with jax.default_device(host_device()):
            self._state = self._start(self._spec.check(vector, "outer parameters"))

    def apply(self, vector: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """See :class:`OuterOptimizer`."""
        import jax

        from geojax.center.devices import host_device
        from geojax.center.transfer import to_host

        self._spec.check(vector, "outer parameters")
        self._spec.check(gradient, "merged gradient")
        with jax.default_device(host_device()):
            moved, self._state = self._update(vector, gradient, self._state)
        return to_host(moved)

    def state_dict(self) -> dict[str, np.ndarray]:
        """See :class:`OuterOptimizer`."""
        import jax
        import jax.numpy as jnp

        from geojax.center.transfer import named_leaves, to_host

        copied = jax.tree.map(jnp.copy, self._state)  # a view would end the donation
        return {path: to_host(leaf) for path, leaf in named_leaves(copied).items()}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """See :class:`OuterOptimizer`."""
        import jax
        import jax.numpy as jnp

        from geojax.center.devices import host_device
        from geojax.center.transfer import with_leaves

        restored = with_leaves(self._state, state, "outer optimizer")
        with jax.default_device(host_device()):
            self._state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), restored)


@functools.lru_cache
def _programs(
    settings: tuple[tuple[str, Any], ...], lr: float, trained: int
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Compiled ``init`` and ``update``; the servers and runs of one process share them."""
    import jax
    import jax.numpy as jnp
    import optax

    keys = dict(settings)
    config = OUTER_OPTIMIZERS.settings(keys["name"], **keys)
    optimizer = build_optimizer(config, lr, key="outer_optimizer")

    def update(vector: jax.Array, gradient: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        parameters = vector[:trained]
        steps, state = optimizer.update(gradient[:trained], state, parameters)
        moved = jnp.asarray(optax.apply_updates(parameters, steps))
        return jnp.concatenate([moved, gradient[trained:]]), state

    return (
        jax.jit(lambda vector: optimizer.init(vector[:trained])),
        jax.jit(update, donate_argnums=2),
    )


class PlainSgd:
    """``w -= lr·g`` in numpy: for plain averaging (``lr`` = 1), and for models not trained."""

    def __init__(self, lr: float, spec: VectorSpec):
        self._lr, self._spec = np.float32(lr), spec

    def init(self, vector: np.ndarray) -> None:
        """Nothing to forget."""
        self._spec.check(vector, "outer parameters")

    def apply(self, vector: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """See :class:`OuterOptimizer`."""
        self._spec.check(vector, "outer parameters")
        self._spec.check(gradient, "merged gradient")
        moved = np.multiply(gradient, -self._lr)
        moved += vector
        moved[self._spec.parameters :] = gradient[self._spec.parameters :]
        return moved

    def state_dict(self) -> dict[str, np.ndarray]:
        """Nothing to keep."""
        return {}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Nothing to restore."""
        if state:
            raise ValueError(f"outer optimizer: leaves unknown: {', '.join(sorted(state))}")


def build_outer_optimizer(
    config: OptimizerConfig,
    lr: float,
    spec: VectorSpec,
    *,
    synthetic: bool = False,
    key: str = "outer_optimizer",
) -> OuterOptimizer:
    """The outer optimizer on vectors of ``spec``.

    Args:
      config: which optimizer, by its own name (not ``auto``).
      lr: learning rate.
      spec: layout of the vectors.
      synthetic: the model is not trained, so take plain SGD without JAX.
      key: the configuration group, for error messages.

    Raises:
      ConfigError: a setting is wrong, or asks for more than SGD of a synthetic model.
    """
    if not synthetic:
        return FlatOptimizer(config, lr, spec, key=key)
    check_optimizer(config, lr, key=key)
    if OUTER_OPTIMIZERS.complete(config) != SgdConfig(lr=config.lr):
        fix = f"a synthetic model takes plain sgd; set {key}=sgd without further settings"
        raise ConfigError(f"{key}.name", config.name, fix)
    return PlainSgd(lr, spec)
