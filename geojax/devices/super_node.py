"""The devices of one base station that take part in a step, chosen anew for every step."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from geojax.devices.fleet import Fleet
from geojax.selection.choice import Choice, Selection, choose, draws_for
from geojax.selection.divergence import divergence, shares_of


class Facts(NamedTuple):
    """Of the devices chosen for a step.

    Attributes:
      divergence: ‖P − p‖₂: P are the class shares of the union batch, p the target; None: there are
        no classes.
      choice_s: CPU time of this thread that choosing them took; 0 in the first step, as the choice
        loads and compiles.
    """

    divergence: float | None
    choice_s: float


class SuperNode:
    """Chooses devices of a fleet, whose next batches together are the batch of a step.

    Called with the number of a step it returns the positions of the union batch, in the order of
    the devices, and the chosen devices go on. Steps come one after the other. What is chosen
    depends on (seed, worker index, step) and on the fleet alone, never on the model: so
    :meth:`skip_to` can repeat the choices of steps that another process has made.

    Args:
      fleet: the devices.
      selection: chooses L of them.
      target: class shares p that a super node should have, float64 (F,); empty: there are none.
      seed: the run's seed.
      worker_index: which worker of the run.
      round_steps: steps of a round of the WAN; selections may use a round's randomness again, and
        batches may be asked for so many steps ahead.
      name: of the worker, for error messages.

    Attributes:
      size: L.
      batch_size: samples of a step, L·n.
      step: number of the next step.

    Raises:
      ConfigError: the fleet has fewer than L devices; and, in every step, as
        :func:`geojax.selection.choice.choose`.
    """

    def __init__(
        self,
        fleet: Fleet,
        selection: Selection,
        target: np.ndarray,
        *,
        seed: int,
        worker_index: int,
        round_steps: int = 1,
        name: str = "a base station",
    ):
        self.fleet, self._selection, self._target = fleet, selection, target
        self.seed, self.worker_index = seed, worker_index
        self.size = selection.wanted(fleet.count)
        self.batch_size = self.size * fleet.batch_size
        self.step, self._choice_s = 0, 0.0
        self._round_steps, self._name = round_steps, name
        self._chosen: np.ndarray | None = None
        self._facts: Facts | None = None  # of the next step
        self._past: deque[Facts] = deque(maxlen=round_steps)  # of the steps before ``step``

    @property
    def chosen(self) -> np.ndarray:
        """Devices of the next step, int64 (L,), ascending."""
        if self._chosen is None:
            at = divmod(self.step, self._round_steps)
            draws = draws_for(self._selection, self.seed, self.worker_index, *at)
            n = self.fleet.batch_size
            choice = Choice(self.fleet.counts(), self._target, self.size, n, draws)
            start = time.thread_time()
            self._chosen = choose(self._selection, choice, self._name)
            if self.step:
                self._choice_s = time.thread_time() - start
        return self._chosen

    def facts(self, step: int) -> Facts:
        """What is known of a step: the next one, or one of a round's length before it."""
        if step != self.step:
            return self._past[step - self.step]
        if self._facts is None:
            chosen, found = self.chosen, None
            if self._target.size:
                found = divergence(shares_of(self.fleet.counts(), chosen), self._target)
            self._facts = Facts(found, self._choice_s)
        return self._facts

    def __call__(self, step: int) -> np.ndarray:
        """Positions of the union batch of step ``step``, int64 (L·n,), device by device."""
        if step != self.step:
            raise ValueError(f"step {step}: the devices stand at step {self.step}")
        self._past.append(self.facts(step))
        batches = self.fleet.take(self.chosen)
        self.step, self._chosen, self._facts = step + 1, None, None
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
        self.step, self._chosen, self._facts = step, None, None
        self._past.clear()
