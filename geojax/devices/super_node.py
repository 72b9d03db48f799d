"""The devices of one base station that take part in a step, chosen anew for every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from geojax.data.streams import stream
from geojax.devices.fleet import Fleet
from geojax.errors import ConfigError

Select = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""``(class counts float32 (K, F), draws) -> devices, int (L,) ascending``."""


class SuperNode:
    """Chooses devices of a fleet, whose next batches together are the batch of a step.

    Called with the number of a step it returns the positions of the union batch, in the order of
    the devices, and the chosen devices go on. Steps come one after the other. What is chosen
    depends on (seed, worker index, step) and on the fleet alone, never on the model: so
    :meth:`skip_to` can repeat the choices of steps that another process has made.

    Args:
      fleet: the devices.
      select: says which; its draws are those of (seed, worker index, step).
      target: class shares p that a super node should have, float64 (F,); empty: there are none.
      size: L, devices that ``select`` chooses.
      seed: the run's seed.
      worker_index: which worker of the run.

    Attributes:
      batch_size: samples of a step, L·n.
      step: number of the next step.
    """

    def __init__(
        self,
        fleet: Fleet,
        select: Select,
        target: np.ndarray,
        *,
        size: int,
        seed: int,
        worker_index: int,
    ):
        self.fleet, self._select, self._target = fleet, select, target
        self.size, self.seed, self.worker_index = size, seed, worker_index
        self.batch_size = size * fleet.batch_size
        self.step = 0
        self._chosen: np.ndarray | None = None

    @property
    def chosen(self) -> np.ndarray:
        """Devices of the next step, int64 (L,), ascending."""
        if self._chosen is None:
            draws = stream("selection", self.seed, self.worker_index, self.step)
            found = np.asarray(self._select(self.fleet.counts(), draws), np.int64)
            known = found.shape == (self.size,) and (np.diff(found) > 0).all()
            if not known or found[0] < 0 or found[-1] >= self.fleet.count:
                fix = f"choose {self.size} of {self.fleet.count} devices, in ascending order"
                raise ConfigError("selection.name", found.tolist(), fix)
            self._chosen = found
        return self._chosen

    @property
    def divergence(self) -> float | None:
        """‖P − p‖₂ of the next step: P are the class shares of the union batch, p the target.

        None: there are no classes.
        """
        if not self._target.size:
            return None
        counts = self.fleet.counts()[self.chosen].sum(axis=0, dtype=np.float64)
        return float(np.linalg.norm(counts / counts.sum() - self._target))

    def __call__(self, step: int) -> np.ndarray:
        """Positions of the union batch of step ``step``, int64 (L·n,), device by device."""
        if step != self.step:
            raise ValueError(f"step {step}: the devices stand at step {self.step}")
        batches = self.fleet.take(self.chosen)
        self.step, self._chosen = step + 1, None
        return batches.reshape(-1)

    def skip_to(self, step: int) -> None:
        """Repeats the choices of all steps before ``step``, from where the fleet is or anew."""
        if step < self.step:
            self.load_state({"taken": np.zeros(self.fleet.count, np.int64)}, 0)
        while self.step < step:
            self(self.step)

    def state_dict(self) -> dict[str, Any]:
        """State of the fleet."""
        return self.fleet.state_dict()

    def load_state(self, state: Mapping[str, Any], step: int) -> None:
        """Restores :meth:`state_dict`, as it was before ``step``."""
        self.fleet.load_state(state)
        self.step, self._chosen = step, None
