"""Programs of a super node whose devices make a gradient each: those of a mesh, one by one."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geojax.center.mesh import Mesh
from geojax.center.network import Arrays
from geojax.center.transfer import first_to_host


class PerDeviceMesh:
    """Looks like a :class:`geojax.center.mesh.Mesh`, and runs its programs once a device.

    A batch is that of L devices, n samples each, one after the other. All devices start from the
    same parameters and the same float state. Their gradients, and their float states, are summed
    in order and divided by L, as a local server does with those of L workers: the bits are the
    same. Integer leaves are those of the last device. In ``step`` the inner optimizer takes one
    step on the mean gradient; for plain SGD this is the mean of L models after a step each.

    The random numbers of a device depend on the seed, the worker, the step and its place in the
    super node.

    Args:
      mesh: the programs.
      size: L.
    """

    def __init__(self, mesh: Mesh, size: int):
        if mesh.proximal:
            raise ValueError("devices make plain gradients; a proximal term is one of the mesh")
        self.network, self.devices, self.proximal = mesh.network, mesh.devices, mesh.proximal
        self.load, self.load_part, self.vector = mesh.load, mesh.load_part, mesh.vector
        self.start, self.copy, self.replicate = mesh.start, mesh.copy, mesh.replicate
        self._mesh, self._size = mesh, size
        parallel = functools.partial(jax.pmap, devices=mesh.devices)
        self._add = parallel(jnp.add, donate_argnums=0)

    def split(self, batch: np.ndarray) -> np.ndarray:
        """The batch of each device, split over the mesh; a view."""
        parts = batch.reshape(self._size, len(batch) // self._size, *batch.shape[1:])
        return np.stack([self._mesh.split(part) for part in parts])

    def gradient(
        self,
        parameters: Arrays,
        state: Arrays,
        integers: Arrays,
        samples: np.ndarray,
        targets: np.ndarray,
        draw: np.ndarray,
    ) -> tuple[jax.Array, Arrays, Arrays, jax.Array]:
        """See :class:`geojax.center.mesh.Mesh`."""
        vector: Any = None
        loss: Any = None
        after = integers
        for place in range(self._size):
            own = np.array(draw)
            own[:, 2] = own[:, 2] * np.uint32(self._size) + np.uint32(place)
            made, _, after, told = self._mesh.gradient(
                parameters, self._copied(state), self._copied(integers), samples[place],
                targets[place], own,
            )  # fmt: skip
            vector = made if vector is None else self._add(vector, made)
            loss = told if loss is None else self._add(loss, told)
        vector, loss = self._mean(vector), self._mean(loss)
        _, state = self._mesh.load(vector)
        return vector, state, after, loss

    def step(
        self, parameters: Arrays, optimizer_state: Any, state: Arrays, integers: Arrays, *batch: Any
    ) -> tuple[Arrays, Any, Arrays, Arrays, jax.Array]:
        """See :class:`geojax.center.mesh.Mesh`."""
        vector, state, integers, loss = self.gradient(parameters, state, integers, *batch)
        parameters, optimizer_state = self._mesh.apply(parameters, optimizer_state, vector)
        return parameters, optimizer_state, state, integers, loss

    def _mean(self, total: jax.Array) -> jax.Array:
        """Divided on the host: XLA would multiply by 1 / L, whose last bit differs."""
        return self.copy(self.replicate(first_to_host(total) / np.float32(self._size)))

    def _copied(self, arrays: Arrays) -> Arrays:
        """The mesh's programs are given their arguments' buffers; devices share these."""
        return self.copy(arrays) if arrays else arrays
