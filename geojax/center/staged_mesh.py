"""The programs of one stage at a time, each one a ``jax.pmap`` over a worker's devices."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from geojax.center.network import Arrays, Network, build_network, step_key
from geojax.center.network_stages import StagedNetwork, staged_network
from geojax.config import RunConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxlib._jax import Device  # jax.Device is an alias that type checkers refuse

_AXIS = "devices"


class StagedMesh:
    """The compiled programs of a network's stages on a set of devices.

    A backward part computes its forward part once more (rematerialization): between the two only
    the stage's input is kept. That is simple, holds for every module, and needs little memory; it
    costs a real machine the second forward pass, so a real staged step takes about 4/3 of an
    unstaged one.

    Attributes:
      network: the network and its stages.
      forward: a program per stage: (parameters, state, integers, hidden, draw) -> hidden of the
        next stage, new state, new integers. The last one also takes targets and makes the mean
        loss. State and loss are averaged over the devices, and ``draw`` is what it is, as in
        :class:`geojax.center.mesh.Mesh`.
      backward: a program per stage: (parameters, state, integers, hidden*, draw, gradient) ->
        gradient of the parameters as one vector, its norm, gradient of ``hidden``. Parameters'
        gradients are averaged over the devices; ``state`` and ``integers`` are those before the
        forward part, and its random numbers are drawn again. The last one takes targets in place
        of a gradient; the first one makes no gradient of its input and leaves its buffer alone.
        (* donated)
      read_state: (state) -> the float state of all stages as one vector.
    """

    def __init__(self, network: StagedNetwork, devices: tuple[Device, ...]):
        self.network = network
        parallel = functools.partial(jax.pmap, axis_name=_AXIS, devices=devices)
        count = len(network.stages)
        self.forward = [parallel(self._forward(index)) for index in range(count)]
        self.backward = [
            parallel(self._backward(index), donate_argnums=(3,) if index else ())
            for index in range(count)
        ]
        spec = network.network.spec
        self.read_state: Callable[[Arrays], jax.Array] | None = None
        if spec.parameters < spec.size:
            state = spec.part(spec.parameters, spec.size)
            self.read_state = parallel(lambda arrays: network.network.flatten(arrays, state))

    def _loss(self, index: int) -> Callable[..., tuple[jax.Array, tuple[Arrays, Arrays]]]:
        """A stage; the last one ends in the loss of the targets that follow its input."""
        network = self.network

        def run(
            parameters: Arrays, hidden: jax.Array, state: Arrays, integers: Arrays, draw: jax.Array,
            *targets: Any,
        ) -> tuple[jax.Array, tuple[Arrays, Arrays]]:  # fmt: skip
            key = step_key(draw, jax.lax.axis_index(_AXIS))
            out, after = network.run(index, parameters, state, integers, hidden, key)
            return (network.network.mean_loss(out, *targets) if targets else out), after

        return run

    def _forward(self, index: int) -> Callable[..., tuple[jax.Array, Arrays, Arrays]]:
        run = self._loss(index)

        def forward(
            parameters: Arrays, state: Arrays, integers: Arrays, hidden: jax.Array, draw: jax.Array,
            *targets: Any,
        ) -> tuple[jax.Array, Arrays, Arrays]:  # fmt: skip
            out, (state, integers) = run(parameters, hidden, state, integers, draw, *targets)
            if targets:
                out = jax.lax.pmean(out, _AXIS)
            return out, jax.lax.pmean(state, _AXIS), integers

        return forward

    def _backward(self, index: int) -> Callable[..., tuple[jax.Array, ...]]:
        run = self._loss(index)
        stage = self.network.stages[index]
        part = self.network.network.spec.part(stage.start, stage.stop)
        last = index == len(self.network.stages) - 1

        def backward(
            parameters: Arrays, state: Arrays, integers: Arrays, hidden: jax.Array, draw: jax.Array,
            given: jax.Array,
        ) -> tuple[jax.Array, ...]:  # fmt: skip
            targets = (given,) if last else ()

            def output(parameters: Arrays, hidden: jax.Array) -> tuple[jax.Array, Any]:
                return run(parameters, hidden, state, integers, draw, *targets)

            if index:
                out, pull, _ = jax.vjp(output, parameters, hidden, has_aux=True)
            else:
                out, pull, _ = jax.vjp(lambda each: output(each, hidden), parameters, has_aux=True)
            gradient, *before = pull(jnp.ones_like(out) if last else given)
            gradient = jax.lax.pmean(gradient, _AXIS)
            vector = self.network.network.flatten(gradient, part)
            return vector, jnp.asarray(optax.tree.norm(gradient)), *before

        return backward


def build_staged_mesh(config: RunConfig, devices: tuple[Device, ...]) -> StagedMesh:
    """The staged programs of a configured model; workers of one process share them."""
    return _shared_mesh(build_network(config), devices)


@functools.lru_cache
def _shared_mesh(network: Network, devices: tuple[Device, ...]) -> StagedMesh:
    return StagedMesh(staged_network(network), devices)
