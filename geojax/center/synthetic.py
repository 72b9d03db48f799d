"""A model that costs nothing to train, for experiments on the network alone; needs no JAX."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from geojax.center.planned import Planned, one_batch
from geojax.center.stages import StageOrder, build_stages
from geojax.center.synthetic_layout import synthetic_spec
from geojax.config import RunConfig
from geojax.hollow import hollow

# Gradients repeat a short random sequence. Its length is prime, so chunks of a gradient differ.
_PERIOD = 65_537
_LARGEST = 8  # gradients are integers in [-8, 8]: float32 sums of 2^20 of them are exact


class _SizedTrainer:
    """What both kinds have in common: layout, turns of the stages, and the count of steps."""

    def __init__(self, config: RunConfig):
        self.spec = synthetic_spec(config)
        self.samples_per_step = config.batch_size
        self.steps = 0
        self.last_loss = math.nan
        self.weight = 1.0
        self._stages = build_stages(config)
        self._order = StageOrder(len(self._stages))

    def _part(self, start: int, stop: int) -> np.ndarray:
        """Elements [start, stop) of the next gradient."""
        raise NotImplementedError

    def gradient(self) -> np.ndarray:
        """The next gradient, float32 (spec.size,)."""
        made = self._part(0, self.spec.size)
        self.steps += 1
        return made

    def forward(self, index: int) -> None:
        """Nothing but its turn."""
        self._order.forward(index)

    def backward(self, index: int) -> np.ndarray:
        """The stage's part of the next gradient, the same as in :meth:`gradient`."""
        self._order.backward(index)
        stage = self._stages[index]
        made = self._part(stage.start, stage.stop)
        self.steps += index == 0
        return made

    def expect(self, steps: int) -> int:
        """There is no program."""
        del steps
        return 1

    def planned(self) -> Planned:
        """One batch."""
        return one_batch(self.samples_per_step)

    def skip_to(self, steps: int) -> None:
        """Sets the number of steps."""
        self.steps = steps

    def warm_up(self, *, gradient: bool = True, step: bool = True) -> None:
        """Nothing to compile."""
        del gradient, step

    def state_dict(self) -> dict[str, Any]:
        """The number of steps; there is nothing else."""
        return {"steps": self.steps}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores :meth:`state_dict`."""
        self.steps = int(state["steps"])


class SyntheticTrainer(_SizedTrainer):
    """See :class:`geojax.center.trainer.Trainer`.

    Gradients are small integers that depend on (seed, worker index, step), so that sums of them
    are exact and any two orders of addition agree bit for bit. A step subtracts one gradient.
    There is no loss: ``last_loss`` stays NaN. With ``proximal`` (ρ) a step also subtracts
    ρ·(x − x_t), where x_t was loaded last; then sums are not exact.
    """

    def __init__(self, config: RunConfig, worker_index: int, proximal: float = 0.0):
        super().__init__(config)
        self._proximal = np.float32(proximal)
        generator = np.random.default_rng((config.seed, worker_index))
        numbers = generator.integers(-_LARGEST, _LARGEST, _PERIOD, endpoint=True)
        self._twice = np.tile(numbers.astype(np.float32), 2)
        self._vector = np.zeros(self.spec.size, np.float32)
        self._anchor = np.zeros(self.spec.size if proximal else 0, np.float32)

    def _part(self, start: int, stop: int) -> np.ndarray:
        first = (self.steps + start) % _PERIOD
        if stop - start <= _PERIOD:
            return self._twice[first : first + stop - start].copy()
        return np.resize(self._twice[first : first + _PERIOD], stop - start)

    def load(self, vector: np.ndarray) -> None:
        """Sets the vector; it is copied and may be reused at once."""
        self._vector = np.array(self.spec.check(vector, "load"))
        if self._proximal:
            self._anchor = self._vector.copy()

    def load_part(self, start: int, stop: int, values: np.ndarray) -> None:
        """Sets the whole layers in [start, stop); ``values`` is copied."""
        self._vector[start:stop] = self.spec.part(start, stop).check(values, "load_part")

    def step(self) -> None:
        """Subtracts the next gradient from the vector."""
        gradient = self.gradient()
        if self._proximal:
            gradient = gradient + self._proximal * (self._vector - self._anchor)
        self._vector -= gradient

    def vector(self) -> np.ndarray:
        """A fresh copy of the vector."""
        return self._vector.copy()


class HollowTrainer(_SizedTrainer):
    """A synthetic model of which only the size is real; see :mod:`geojax.hollow`."""

    def _part(self, start: int, stop: int) -> np.ndarray:
        return hollow(stop - start)

    def load(self, vector: np.ndarray) -> None:
        """There is nothing to set but zeros."""
        self.spec.check(vector, "load")

    def load_part(self, start: int, stop: int, values: np.ndarray) -> None:
        """There is nothing to set but zeros."""
        self.spec.part(start, stop).check(values, "load_part")

    def step(self) -> None:
        """Counts the step."""
        self.steps += 1

    def vector(self) -> np.ndarray:
        """Zeros."""
        return hollow(self.spec.size)
