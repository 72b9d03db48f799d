"""A worker that trains a Flax model on its mesh of local devices."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import jax
import numpy as np

from geojax.center.keys import worker_key
from geojax.center.mesh import Mesh
from geojax.center.per_device_mesh import PerDeviceMesh
from geojax.center.planned import Planned, one_batch
from geojax.center.spec import VectorSpec
from geojax.center.staged_mesh import StagedMesh
from geojax.center.staged_steps import StagedSteps
from geojax.center.transfer import first_to_host, named_leaves, with_leaves
from geojax.data.batches import Batches
from geojax.errors import Diverged


class MeshTrainer:
    """See :class:`geojax.center.trainer.Trainer`.

    Args:
      mesh: the programs, shared with the other workers of this process.
      features: the worker's samples, float32 or int32 (samples, ...).
      labels: their targets, int32 or float32 (samples, ...).
      order: which samples the k-th batch holds.
      vector: parameters and state to start from, float32 (spec.size,).
      integers: integer leaves to start from.
      staged: the programs of the stages, if it will be trained stage by stage.
      together: steps that one program makes, where at least two are expected; 1: each is a call.
        Not with a :class:`geojax.center.per_device_mesh.PerDeviceMesh`.
    """

    def __init__(
        self,
        mesh: Mesh | PerDeviceMesh,
        features: np.ndarray,
        labels: np.ndarray,
        order: Batches,
        vector: np.ndarray,
        integers: dict[str, np.ndarray],
        *,
        staged: StagedMesh | None = None,
        together: int = 1,
    ):
        self.spec: VectorSpec = mesh.network.spec
        self.samples_per_step = order.batch_size
        self.steps = 0
        self.last_loss = math.nan
        self.weight = 1.0
        self._mesh, self._order = mesh, order
        self._together = together
        self._expected = 1
        self._program_steps, self._under_way = 0, 0  # steps of it in all, and still to come
        self._losses: Any = None  # of all of them
        self._features, self._labels = features, labels
        self._on_devices: tuple[jax.Array, ...] = ()  # both, once a program needs them
        self._key = worker_key(order.seed, order.worker_index)
        self.load(vector)
        self._integers = self._placed(integers)
        self._optimizer = mesh.start(self._parameters)
        self._staged = None if staged is None else StagedSteps(staged)

    def load(self, vector: np.ndarray) -> None:
        """Sets parameters and state; ``vector`` is copied and may be reused at once."""
        self._check_made()
        copied = np.array(self.spec.check(vector, "load"))
        self._parameters, self._state = self._mesh.load(self._mesh.replicate(copied))
        if self._mesh.proximal:  # buffers of its own, as a step is given those of the parameters
            self._anchor, _ = self._mesh.load(self._mesh.replicate(copied))

    def load_part(self, start: int, stop: int, values: np.ndarray) -> None:
        """Sets the whole layers in [start, stop) and leaves the other buffers alone.

        ``values`` is copied and may be reused at once. Safe beside a :meth:`forward` or
        :meth:`backward` of other stages in another thread: each changes only what is its own.
        """
        self._check_made()
        copied = np.array(self.spec.part(start, stop).check(values, "load_part"))
        load = self._mesh.load_part(start, stop)
        parameters, state = load(self._mesh.replicate(copied))
        self._parameters.update(parameters)
        self._state.update(state)

    def gradient(self) -> np.ndarray:
        """The next batch's mean gradient, then the new state; parameters stay as they are."""
        self._check_made()
        vector, self._state, self._integers, loss = self._mesh.gradient(
            self._parameters, self._state, self._integers, *self._batch()
        )
        mean_loss, gradient = float(first_to_host(loss)), first_to_host(vector)
        self._count(mean_loss, gradient)
        return gradient

    def expect(self, steps: int) -> int:
        """See :meth:`geojax.center.trainer.Trainer.expect`; up to ``together`` are one program."""
        self._check_made()
        self._expected = min(steps, self._together)
        return max(1, self._expected)

    def step(self) -> None:
        """One step of the inner optimizer on the next batch; returns when it is done.

        The first of several that are one program starts it, and the last one waits for its end.
        """
        if self._expected > 1:
            self._start(self._expected)
        if self._under_way:
            self._go_on()
            return
        self._parameters, self._optimizer, self._state, self._integers, loss = self._mesh.step(
            self._parameters, self._optimizer, self._state, self._integers, *self._batch(),
            *self._anchors(),
        )  # fmt: skip
        self._count(float(first_to_host(loss)))

    def _start(self, count: int) -> None:
        """Hands the devices the next ``count`` steps as one program."""
        assert isinstance(self._mesh, Mesh)
        taken = [self._order(self.steps + number) for number in range(count)]
        positions = np.zeros((self._together, self.samples_per_step), np.int32)
        positions[:count] = taken
        replicate = self._mesh.replicate
        if not self._on_devices:
            self._on_devices = self._mesh.place(self._features), self._mesh.place(self._labels)
        numbers = np.array(self.steps, np.uint32), np.array(count, np.int32)
        by_device = positions.reshape(self._together, len(self._mesh.devices), -1).swapaxes(0, 1)
        self._parameters, self._optimizer, self._state, self._integers, self._losses = (
            self._mesh.scan(
                self._parameters, self._optimizer, self._state, self._integers,
                *self._on_devices, by_device, replicate(self._key),
                *map(replicate, numbers), *self._anchors(),
            )
        )  # fmt: skip
        self._expected, self._program_steps, self._under_way = 1, count, count

    def _go_on(self) -> None:
        """One more of the steps under way is made."""
        self._under_way -= 1
        if self._under_way:
            self.steps += 1
            return
        losses = first_to_host(self._losses)[: self._program_steps]
        self._losses = None
        bad = np.flatnonzero(~np.isfinite(losses))
        told = int(bad[0]) if len(bad) else len(losses) - 1
        self._count(float(losses[told]), since=len(losses) - 1 - told)

    def _anchors(self) -> tuple[Any, ...]:
        return (self._anchor,) if self._mesh.proximal else ()

    def _check_made(self) -> None:
        if self._under_way:
            raise RuntimeError(f"{self._under_way} of the steps expected are still to be made")

    def forward(self, index: int) -> None:
        """The forward part of a stage; see :meth:`geojax.center.trainer.Trainer.forward`."""
        batch = self._batch() if index == 0 else ()
        state, integers = self._steps().forward(
            index, self._parameters, self._state, self._integers, *batch
        )
        self._state.update(state)
        self._integers.update(integers)

    def backward(self, index: int) -> np.ndarray:
        """The backward part of a stage; see :meth:`geojax.center.trainer.Trainer.backward`."""
        steps = self._steps()
        if index == steps.count:
            return steps.read_state(self._state)
        gradient = steps.backward(index, self._parameters)
        if index == 0:
            self._count(steps.loss)
        return gradient

    def planned(self) -> Planned:
        """One batch."""
        return one_batch(self.samples_per_step)

    def skip_to(self, steps: int) -> None:
        """Goes on with batch ``steps``."""
        self._check_made()
        self.steps = steps

    def vector(self) -> np.ndarray:
        """A fresh host copy of parameters and state, float32 (spec.size,)."""
        self._check_made()
        return first_to_host(self._mesh.vector(self._parameters, self._state))

    def warm_up(self, *, gradient: bool = True, step: bool = True) -> None:
        """Compiles what will be called, and leaves the trainer as it was."""
        vector, state, loss = self.vector(), self.state_dict(), self.last_loss
        with suppress(Diverged):  # the step that really takes this batch will report it
            if gradient and self._staged is None:
                self.gradient()
            elif gradient:
                self._warm_up_stages(self._steps(), vector)
        with suppress(Diverged):
            if step and self._together > 1:
                self._start(1)
            if step:
                self.step()
        self.load(vector)
        self.load_state(state)
        self.last_loss = loss

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`vector` does not hold: inner optimizer state, integer leaves, steps."""
        self._check_made()
        return {
            "steps": self.steps,
            "optimizer": self._read(self._optimizer),
            "integers": self._read(self._integers),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores :meth:`state_dict`.

        Raises:
          ValueError: it comes from another model or inner optimizer.
        """
        self._check_made()
        optimizer = self._checked(self._optimizer, state["optimizer"], "inner optimizer")
        integers = self._checked(self._integers, state["integers"], "integer leaves")
        self._optimizer, self._integers = self._placed(optimizer), self._placed(integers)
        self.steps = int(state["steps"])

    def _warm_up_stages(self, steps: StagedSteps, vector: np.ndarray) -> None:
        for start, stop in steps.ranges:
            self.load_part(start, stop, vector[start:stop])
        for index in range(steps.count):
            self.forward(index)
        for index in reversed(range(len(steps.ranges))):
            self.backward(index)

    def _steps(self) -> StagedSteps:
        if self._staged is None:
            raise RuntimeError("built to train unstaged; set sync.p3 before building the trainer")
        return self._staged

    def _batch(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Samples and targets of the next step, and what its random numbers are drawn from."""
        positions = self._order(self.steps)
        return (
            self._mesh.split(self._features[positions]),
            self._mesh.split(self._labels[positions]),
            self._mesh.replicate(np.append(self._key, np.uint32(self.steps))),
        )

    def _count(self, loss: float, gradient: np.ndarray | None = None, *, since: int = 0) -> None:
        """A step has ended; ``loss`` is that of it, or of a step that so many have followed."""
        self.last_loss = loss
        self.steps += 1
        if not math.isfinite(self.last_loss):
            layers = [] if gradient is None else self.spec.nonfinite(gradient)
            where = f" in {', '.join(layers)}" if layers else ""
            raise Diverged(
                f"worker {self._order.worker_index}, step {self.steps - since}: the loss or its "
                f"gradient is not finite{where}; lower lr, or set optimizer.clip_norm",
                layers,
            )

    def _read(self, tree: Any) -> dict[str, np.ndarray]:
        # From copies: a host view of the buffers themselves would end their donation.
        return {path: first_to_host(leaf) for path, leaf in named_leaves(self._copy(tree)).items()}

    def _checked(self, tree: Any, leaves: dict[str, np.ndarray], what: str) -> Any:
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tree)
        return with_leaves(shapes, leaves, what)

    def _placed(self, tree: Any) -> Any:
        return self._copy(jax.tree.map(self._mesh.replicate, tree))

    def _copy(self, tree: Any) -> Any:
        return self._mesh.copy(tree) if jax.tree.leaves(tree) else tree
