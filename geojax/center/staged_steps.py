"""The course of a staged step on a mesh: what is kept between forward and backward parts."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from geojax.center.network import Arrays
from geojax.center.staged_mesh import StagedMesh
from geojax.center.stages import StageOrder
from geojax.center.transfer import first_to_host


class _Kept(NamedTuple):
    """What a stage's backward part needs of its forward part."""

    state: Arrays  # before the forward part
    integers: Arrays  # likewise
    hidden: jax.Array | np.ndarray  # the stage's input
    draw: np.ndarray  # of the step's random numbers


class StagedSteps:
    """Runs the stages of one step after the other; the parameters are the trainer's.

    Attributes:
      count: number of stages that compute.
      ranges: (start, stop) of every stage in the vector, then of the float state if there is any.
      loss: of the last step whose backward pass is done; NaN if it or a gradient was not finite.
    """

    def __init__(self, mesh: StagedMesh):
        self._mesh = mesh
        self._stages = mesh.network.stages
        self.count = len(self._stages)
        self.ranges = [(stage.start, stage.stop) for stage in self._stages]
        spec = mesh.network.network.spec
        if mesh.read_state is not None:
            self.ranges.append((spec.parameters, spec.size))
        self.loss = math.nan
        self._order = StageOrder(self.count)
        self._kept: list[_Kept] = []
        self._hidden: Any = None  # output of the last forward part; samples before the first
        self._targets: Any = None
        self._draw: Any = None  # of the step's random numbers, a slice per device
        self._gradient: Any = None  # of the output of the stage whose backward part is next
        self._finite = True

    def forward(
        self,
        index: int,
        parameters: Arrays,
        state: Arrays,
        integers: Arrays,
        *batch: np.ndarray,
    ) -> tuple[Arrays, Arrays]:
        """Runs one stage; stage 0 is given the batch.

        Args:
          index: which stage.
          parameters: all parameters by name.
          state: all float state by name.
          integers: all integer leaves by name.
          *batch: stage 0: samples, targets and ``draw`` of the batch, a slice per device of each.

        Returns:
          The stage's own state and integers after it.
        """
        self._order.forward(index)
        if index == 0:
            self._kept, self._finite = [], True
            self._hidden, self._targets, self._draw = batch
        stage = self._stages[index]
        kept = _Kept(
            _chosen(state, stage.state), _chosen(integers, stage.integers), self._hidden, self._draw
        )
        trained = _chosen(parameters, stage.parameters)
        target = (self._targets,) if index == self.count - 1 else ()
        self._hidden, state, integers = jax.block_until_ready(
            self._mesh.forward[index](trained, *kept, *target)
        )
        self._kept.append(kept)
        return state, integers

    def backward(self, index: int, parameters: Arrays) -> np.ndarray:
        """Gradient of one stage's parameters, a fresh float32 vector."""
        self._order.backward(index)
        if index == self.count - 1:  # the forward pass ended in the loss
            self._loss, self._gradient = float(first_to_host(self._hidden)), self._targets
        trained = _chosen(parameters, self._stages[index].parameters)
        vector, norm, *before = self._mesh.backward[index](
            trained, *self._kept.pop(), self._gradient
        )
        self._gradient = before[0] if before else None
        self._finite &= math.isfinite(first_to_host(norm))
        if index == 0:
            self.loss = self._loss if self._finite else math.nan
        return first_to_host(vector)

    def read_state(self, state: Arrays) -> np.ndarray:
        """All float state, a fresh float32 vector; valid once the forward pass is done.

        Raises:
          ValueError: the model has no float state.
        """
        self._order.state()
        if self._mesh.read_state is None:
            raise ValueError(f"no stage {self.count}: the model has no float state")
        return first_to_host(self._mesh.read_state(state))


def _chosen(arrays: Arrays, names: tuple[str, ...]) -> Arrays:
    return {name: arrays[name] for name in names}
