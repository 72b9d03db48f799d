"""A model that costs nothing to train, for experiments on the network alone; needs no JAX."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from geojax.center.spec import VectorSpec
from geojax.config import RunConfig
from geojax.errors import ConfigError
from geojax.hollow import hollow

# Gradients repeat a short random sequence. Its length is prime, so chunks of a gradient differ.
_PERIOD = 65_537
_LARGEST = 8  # gradients are integers in [-8, 8]: float32 sums of 2^20 of them are exact


def synthetic_spec(config: RunConfig) -> VectorSpec:
    """One layer of ``model.bytes`` / 4 parameters.

    Raises:
      ConfigError: ``model.bytes`` is not a positive multiple of 4.
    """
    size = config.model.bytes
    if size < 4 or size % 4:
        fix = f"use a positive multiple of 4, e.g. {max(4, -(-size // 4) * 4)}"
        raise ConfigError("model.bytes", size, fix)
    return VectorSpec.of([("synthetic", (size // 4,))])


class SyntheticTrainer:
    """See :class:`geojax.center.trainer.Trainer`.

    Gradients are small integers that depend on (seed, worker index, step), so that sums of them
    are exact and any two orders of addition agree bit for bit. A step subtracts one gradient.
    There is no loss: ``last_loss`` stays NaN.
    """

    def __init__(self, config: RunConfig, worker_index: int):
        self.spec = synthetic_spec(config)
        self.samples_per_step = config.batch_size
        self.steps = 0
        self.last_loss = math.nan
        generator = np.random.default_rng((config.seed, worker_index))
        numbers = generator.integers(-_LARGEST, _LARGEST, _PERIOD, endpoint=True)
        self._numbers = numbers.astype(np.float32)
        self._vector = np.zeros(self.spec.size, np.float32)

    def load(self, vector: np.ndarray) -> None:
        """Sets the vector; it is copied and may be reused at once."""
        self._vector = np.array(self.spec.check(vector, "load"))

    def gradient(self) -> np.ndarray:
        """The next gradient, float32 (spec.size,)."""
        rotated = np.roll(self._numbers, -(self.steps % _PERIOD))
        self.steps += 1
        return np.resize(rotated, self.spec.size)

    def step(self) -> None:
        """Subtracts the next gradient from the vector."""
        self._vector -= self.gradient()

    def vector(self) -> np.ndarray:
        """A fresh copy of the vector."""
        return self._vector.copy()

    def warm_up(self, *, gradient: bool = True, step: bool = True) -> None:
        """Nothing to compile."""
        del gradient, step

    def state_dict(self) -> dict[str, Any]:
        """The number of steps; there is nothing else."""
        return {"steps": self.steps}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores :meth:`state_dict`."""
        self.steps = int(state["steps"])


class HollowTrainer:
    """A synthetic model of which only the size is real; see :mod:`geojax.hollow`."""

    def __init__(self, config: RunConfig):
        self.spec = synthetic_spec(config)
        self.samples_per_step = config.batch_size
        self.steps = 0
        self.last_loss = math.nan

    def load(self, vector: np.ndarray) -> None:
        """There is nothing to set but zeros."""
        self.spec.check(vector, "load")

    def gradient(self) -> np.ndarray:
        """Zeros."""
        self.steps += 1
        return hollow(self.spec.size)

    def step(self) -> None:
        """Counts the step."""
        self.steps += 1

    def vector(self) -> np.ndarray:
        """Zeros."""
        return hollow(self.spec.size)

    def warm_up(self, *, gradient: bool = True, step: bool = True) -> None:
        """Nothing to compile."""

    def state_dict(self) -> dict[str, Any]:
        """The number of steps; there is nothing else."""
        return {"steps": self.steps}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores :meth:`state_dict`."""
        self.steps = int(state["steps"])
