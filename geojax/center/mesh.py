"""The programs that run on a worker's devices, each one a ``jax.pmap`` over all of them.

Every array has a leading axis of one slice per device. Parameters, state and optimizer state are
replicated; batches are split. Programs that advance something are given its buffers (donation), so
a step needs no second copy of the model.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from geojax.center.network import Arrays, Network, build_network, step_key
from geojax.center.optimizers import OPTIMIZERS, build_optimizer
from geojax.center.shared import shared
from geojax.config import OptimizerConfig, RunConfig

if TYPE_CHECKING:
    from jaxlib._jax import Device  # jax.Device is an alias that type checkers refuse

_AXIS = "devices"


class Mesh:
    """The compiled programs of one network and one inner optimizer on a set of devices.

    BatchNorm normalizes with the statistics of a device's own part of the batch; the running
    statistics are averaged over the devices, so that they stay equal.

    Attributes:
      load: (vector) -> parameters, state.
      load_part: makes such a program for a part of whole layers of the vector, [start, stop).
      vector: (parameters, state) -> vector.
      copy: (arrays) -> the same values in new buffers.
      proximal: ρ of the term (ρ/2)·‖x − anchor‖² that ``step`` adds to the loss; 0: none.
      gradient: (parameters, state*, integers*, samples, targets, draw) -> vector of the mean
        gradient and the new state, new state, new integers, loss. (* donated)
      step: (parameters*, optimizer state*, state*, integers*, samples, targets, draw) -> new
        parameters, optimizer state, state, integers, loss. (* donated) With a proximal term it
        takes the anchor's parameters after ``draw``.
      scan: (parameters*, optimizer state*, state*, integers*, all samples, all targets, positions,
        worker key, first, count[, anchor]) -> as ``step``, with all losses: the first ``count`` of
        the steps on the batches at positions, int32 (T, batch), whose numbers begin with ``first``.
        (* donated)
      apply: (parameters*, optimizer state*, vector of a gradient) -> new parameters, optimizer
        state. (* donated)
      The loss is NaN if it or a gradient is not finite; ``draw`` is that of
      :func:`geojax.center.network.step_key`.
    """

    def __init__(
        self,
        network: Network,
        optimizer: optax.GradientTransformation,
        devices: tuple[Device, ...],
        proximal: float = 0.0,
    ):
        self.network, self.devices, self.proximal = network, devices, proximal
        self._optimizer = optimizer
        parallel = functools.partial(jax.pmap, axis_name=_AXIS, devices=devices)
        self.load = parallel(network.unflatten)

        @functools.lru_cache
        def load_part(start: int, stop: int) -> Any:
            return parallel(
                functools.partial(network.unflatten, part=network.spec.part(start, stop))
            )

        self.load_part = load_part
        self.vector = parallel(lambda parameters, state: network.flatten({**parameters, **state}))
        self._start = parallel(optimizer.init)
        self.copy = parallel(lambda arrays: jax.tree.map(jnp.copy, arrays))
        self.gradient = parallel(self._gradient, donate_argnums=(1, 2))
        step = self._proximal_step if proximal else self._step
        self.step = parallel(step, donate_argnums=(0, 1, 2, 3))
        scan = functools.partial(_scanned, step)
        self.scan = parallel(scan, donate_argnums=(0, 1, 2, 3))
        self.apply = parallel(self._apply, donate_argnums=(0, 1))
        # By the original's identity, as long as a trainer holds it.
        self._placed: weakref.WeakValueDictionary[int, jax.Array] = weakref.WeakValueDictionary()

    def start(self, parameters: Arrays) -> optax.OptState:
        """The optimizer's state at parameters; one without arrays needs no program."""
        shapes = jax.eval_shape(self._optimizer.init, parameters)
        return self._start(parameters) if jax.tree.leaves(shapes) else shapes

    def replicate(self, array: np.ndarray) -> np.ndarray:
        """One slice per device, all the same; a view."""
        return np.broadcast_to(array, (len(self.devices), *array.shape))

    def split(self, batch: np.ndarray) -> np.ndarray:
        """An equal part of a batch per device, in order; a view."""
        count = len(self.devices)
        return batch.reshape(count, len(batch) // count, *batch.shape[1:])

    def place(self, array: np.ndarray) -> jax.Array:
        """All of an array on every device, once for the process.

        CPU devices read the array's own memory, if it begins at a multiple of 64 bytes, as samples
        of data sets do. So the array must not change, and the caller holds both.
        """
        placed = self._placed.get(id(array))
        if placed is None:
            sharding = self.copy(self.replicate(np.zeros(1, np.float32))).sharding
            placed = jax.device_put(self.replicate(array), sharding)
            self._placed[id(array)] = placed
        return placed

    def _mean_gradient(
        self,
        parameters: Arrays,
        state: Arrays,
        integers: Arrays,
        samples: jax.Array,
        targets: jax.Array,
        draw: jax.Array,
    ) -> tuple[jax.Array, Arrays, Arrays, Arrays]:
        key = step_key(draw, jax.lax.axis_index(_AXIS))
        differentiate = jax.value_and_grad(self.network.loss, has_aux=True)
        (loss, (state, integers)), gradient = differentiate(
            parameters, state, integers, samples, targets, key
        )
        loss, gradient, state = jax.lax.pmean((loss, gradient, state), _AXIS)
        finite = jnp.isfinite(optax.tree.norm(gradient))
        return jnp.where(finite, loss, jnp.nan), gradient, state, integers

    def _gradient(self, parameters: Arrays, *rest: Any) -> tuple[jax.Array, Arrays, Arrays, Any]:
        loss, gradient, state, integers = self._mean_gradient(parameters, *rest)
        return self.network.flatten({**gradient, **state}), state, integers, loss

    def _step(
        self, parameters: Arrays, optimizer_state: optax.OptState, *rest: Any
    ) -> tuple[Any, optax.OptState, Arrays, Arrays, jax.Array]:
        loss, gradient, state, integers = self._mean_gradient(parameters, *rest)
        return *self._updated(parameters, optimizer_state, gradient), state, integers, loss

    def _apply(
        self, parameters: Arrays, optimizer_state: optax.OptState, vector: jax.Array
    ) -> tuple[Any, optax.OptState]:
        gradient, _ = self.network.unflatten(vector)
        return self._updated(parameters, optimizer_state, gradient)

    def _updated(
        self, parameters: Arrays, optimizer_state: optax.OptState, gradient: Arrays
    ) -> tuple[Any, optax.OptState]:
        updates, optimizer_state = self._optimizer.update(gradient, optimizer_state, parameters)
        return optax.apply_updates(parameters, updates), optimizer_state

    def _proximal_step(
        self, parameters: Arrays, optimizer_state: optax.OptState, *rest: Any
    ) -> tuple[Any, optax.OptState, Arrays, Arrays, jax.Array]:
        """The loss has (ρ/2)·‖x − anchor‖² more, whose gradient is ρ·(x − anchor)."""
        *batch, anchor = rest
        loss, gradient, state, integers = self._mean_gradient(parameters, *batch)
        gradient = jax.tree.map(
            lambda g, x, a: g + self.proximal * (x - a), gradient, parameters, anchor
        )
        updates, optimizer_state = self._optimizer.update(gradient, optimizer_state, parameters)
        return optax.apply_updates(parameters, updates), optimizer_state, state, integers, loss


def _scanned(
    step: Any, parameters: Arrays, optimizer_state: optax.OptState, state: Arrays,
    integers: Arrays, samples: jax.Array, targets: jax.Array, positions: jax.Array,
    key: jax.Array, first: jax.Array, count: jax.Array, *anchor: Arrays,
) -> tuple[Arrays, optax.OptState, Arrays, Arrays, jax.Array]:  # fmt: skip
    """Several of ``step`` as one program; see :class:`Mesh`."""

    def body(number: jax.Array, carry: Any) -> Any:
        *model, losses = carry
        at = positions[number]
        draw = jnp.append(key, first + number.astype(jnp.uint32))
        batch = (each.at[at].get(mode="promise_in_bounds") for each in (samples, targets))
        *model, loss = step(*model, *batch, draw, *anchor)
        return *model, losses.at[number].set(loss)

    losses = jnp.full(len(positions), jnp.nan, jnp.float32)
    start = parameters, optimizer_state, state, integers, losses
    return jax.lax.fori_loop(0, count, body, start)


def build_mesh(config: RunConfig, devices: tuple[Device, ...], proximal: float = 0.0) -> Mesh:
    """The mesh of a configured model and optimizer; workers of one process share its programs."""
    rate = config.rate_of(config.optimizer)
    optimizer = OPTIMIZERS.complete(config.optimizer)
    clients = tuple(id(each) for each in devices)  # devices of two clients print alike
    return _shared_mesh(build_network(config), optimizer, rate, devices, proximal, clients)


@shared
def _shared_mesh(
    network: Network, optimizer: OptimizerConfig, lr: float, devices: tuple[Device, ...],
    proximal: float, clients: tuple[int, ...],
) -> Mesh:  # fmt: skip
    del clients
    return Mesh(network, build_optimizer(optimizer, lr), devices, proximal)
