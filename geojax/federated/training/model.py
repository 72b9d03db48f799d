"""A network as the clients of a federated algorithm see it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from geojax.center.network import Arrays, Network
from geojax.center.spec import VectorSpec
from geojax.errors import ConfigError
from geojax.federated.server import PREFIX
from geojax.sync.client import Batch, ClientRule, Extra, Given


class Weights(NamedTuple):
    """What gradients are taken of: parameters and trained extras by name."""

    parameters: Arrays
    extras: Arrays


class Model:
    """See :class:`geojax.sync.client.ClientModel`; also the layout of what travels.

    Attributes:
      network: the network.
      extras: what travels beside it.
      spec: layout of the vector that travels: parameters (P), float state (s), and then the extras,
        as layers ``federated/…`` of kind ``state``, trained ones first.
      parameters: P.
      trained: n, parameters and trained extras.
      state: s.
      fuse: of the rule.
    """

    def __init__(self, network: Network, rule: ClientRule):
        self.network = network
        self.parameters = network.spec.parameters
        self.state = network.spec.size - self.parameters
        self.extras: tuple[Extra, ...] = rule.extras(self)
        self.fuse = rule.fuse
        layers = network.spec.layers
        self.spec = VectorSpec.of(
            [(each.name, each.shape) for each in layers if each.kind == "parameter"],
            [
                *((each.name, each.shape) for each in layers if each.kind == "state"),
                *((PREFIX + extra.name, extra.shape) for extra in self.extras),
            ],
        )
        self._fusion = [extra for extra in self.extras if extra.trained]
        self.trained = self.parameters + sum(map(_size, self._fusion))
        size = network.spec.size
        self._parameter_part = network.spec.part(0, self.parameters)
        self._state_part = network.spec.part(self.parameters, size) if self.state else None

    # ---- layout

    @property
    def channels(self) -> int:
        """Of the output of the last stage that makes maps (batch, height, width, channels).

        Raises:
          ConfigError: no stage does.
        """
        return self._maps[1]

    @functools.cached_property
    def _maps(self) -> tuple[int, int]:
        """Stages up to the last convolution's, and its channels."""
        module: Any = self.network.module
        sample = self.network.inputs.sample
        given = jax.ShapeDtypeStruct((1, *sample.shape), sample.dtype)

        def outputs(key: jax.Array, samples: jax.Array) -> list[jax.Array]:
            def every(bound: Any, hidden: jax.Array) -> list[jax.Array]:
                made = []
                for index in range(bound.stages):
                    hidden = bound.stage(index, hidden, train=False)
                    made.append(hidden)
                return made

            return module.init_with_output(key, samples, method=every)[0]

        shapes = [each.shape for each in jax.eval_shape(outputs, jax.random.key(0), given)]
        maps = [index for index, shape in enumerate(shapes) if len(shape) == 4]
        if not maps:
            fix = "has no convolution whose output could be fused; use e.g. model=demo_cnn"
            raise ConfigError("model.name", type(module).__name__, fix)
        return maps[-1] + 1, shapes[maps[-1]][-1]

    def initial(self, seed: int) -> np.ndarray:
        """The vector before the first round, float32 (spec.size,)."""
        starts = [
            np.broadcast_to(np.asarray(extra.start, np.float32), extra.shape).ravel()
            for extra in self.extras
        ]
        return np.concatenate([self.network.initial(seed)[0], *starts])

    def cut(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Trained part (n,), float state (s,) and the other extras by name, as fresh arrays."""
        size = self.parameters + self.state
        fusion = vector[size : size + self.trained - self.parameters]
        rest: dict[str, np.ndarray] = {}
        at = size + len(fusion)
        for extra in self.extras[len(self._fusion) :]:
            rest[extra.name] = vector[at : at + _size(extra)].copy()
            at += _size(extra)
        trained = np.concatenate([vector[: self.parameters], fusion])
        return trained, vector[self.parameters : size].copy(), rest

    def join(
        self, trained: np.ndarray, state: np.ndarray, rest: dict[str, np.ndarray]
    ) -> np.ndarray:
        """The inverse of :meth:`cut`."""
        split = self.parameters
        ordered = [rest[extra.name].ravel() for extra in self.extras[len(self._fusion) :]]
        return np.concatenate([trained[:split], state, trained[split:], *ordered])

    # ---- arrays

    def arrays(self, flat: jax.Array) -> Weights:
        """The tree of flat parameters (n,)."""
        parameters, _ = self.network.unflatten(flat[: self.parameters], self._parameter_part)
        extras: Arrays = {}
        at = self.parameters
        for extra in self._fusion:
            extras[extra.name] = flat[at : at + _size(extra)].reshape(extra.shape)
            at += _size(extra)
        return Weights(parameters, extras)

    def flat(self, tree: Weights) -> jax.Array:
        """The inverse of :meth:`arrays`."""
        parameters = self.network.flatten(tree.parameters, self._parameter_part)
        extras = [tree.extras[extra.name].ravel() for extra in self._fusion]
        return jnp.concatenate([parameters, *extras]) if extras else parameters

    def state_arrays(self, flat: jax.Array) -> Arrays:
        """Float state by name of the flat one (s,)."""
        if self._state_part is None:
            return {}
        return self.network.unflatten(flat, self._state_part)[1]

    def flat_state(self, state: Arrays) -> jax.Array:
        """The inverse of :meth:`state_arrays`."""
        if self._state_part is None:
            return jnp.zeros(0, jnp.float32)
        return self.network.flatten(state, self._state_part)

    # ---- what objectives ask for

    def loss(self, w: Weights, batch: Batch) -> tuple[jax.Array, tuple[Arrays, Arrays]]:
        """Mean loss of the samples that count, and the state and integers after it."""
        outputs, changed = self._trained(w, batch, lambda module, x: module(x, train=True))
        return self._mean(outputs, batch), changed

    def loss_and_representation(
        self, w: Weights, batch: Batch
    ) -> tuple[jax.Array, jax.Array, tuple[Arrays, Arrays]]:
        """The same with the input of the last stage, (b, features)."""

        def both(module: Any, samples: jax.Array) -> tuple[jax.Array, jax.Array]:
            hidden = _stages(module, samples, 0, module.stages - 1, train=True)
            return hidden, module.stage(module.stages - 1, hidden, train=True)

        (hidden, outputs), changed = self._trained(w, batch, both)
        return self._mean(outputs, batch), hidden.reshape(len(hidden), -1), changed

    def representation(self, flat: jax.Array, state: jax.Array, batch: Batch) -> jax.Array:
        """Input of the last stage of a frozen model, (b, features)."""

        def inner(module: Any, samples: jax.Array) -> jax.Array:
            return _stages(module, samples, 0, module.stages - 1, train=False)

        hidden = self._frozen(flat, state, batch, inner)
        return hidden.reshape(len(hidden), -1)

    def fused_loss(
        self, w: Weights, given: Given, batch: Batch, fuse: Callable[..., Any]
    ) -> tuple[jax.Array, tuple[Arrays, Arrays]]:
        """Mean loss with ``fuse(extras, local, frozen)`` after the last convolution's stage."""
        stop, _ = self._maps

        def maps(module: Any, samples: jax.Array) -> jax.Array:
            return _stages(module, samples, 0, stop, train=False)

        frozen = self._frozen(given.start, given.state, batch, maps)

        def fused(module: Any, samples: jax.Array) -> jax.Array:
            hidden = fuse(w.extras, _stages(module, samples, 0, stop, train=True), frozen)
            return _stages(module, hidden, stop, module.stages, train=True)

        outputs, changed = self._trained(w, batch, fused)
        return self._mean(outputs, batch), changed

    def right(self, flat: jax.Array, state: jax.Array, batch: Batch) -> jax.Array:
        """How many of the samples that count a model classifies right, in evaluation mode."""
        outputs = self._frozen(flat, state, batch, lambda module, x: module(x, train=False))
        return ((jnp.argmax(outputs, axis=-1) == batch.targets) * batch.weights).sum()

    # ---- evaluation of what travels

    @property
    def metric(self) -> str:
        """See :class:`geojax.center.network.Network`."""
        return self.network.metric

    def judge(
        self, vector: jax.Array, integers: Arrays, samples: jax.Array, targets: jax.Array,
        weights: jax.Array,
    ) -> dict[str, jax.Array]:  # fmt: skip
        """See :meth:`geojax.center.network.Network.judge`; both streams of a fusion are one."""
        own, fuse = vector[: self.parameters + self.state], self.fuse
        if fuse is None:
            return self.network.judge(own, integers, samples, targets, weights)
        stop = self._maps[0]
        size = self.parameters + self.state
        fusion = vector[size : size + self.trained - self.parameters]
        w = self.arrays(jnp.concatenate([vector[: self.parameters], fusion]))

        def fused(module: Any, given: jax.Array) -> jax.Array:
            hidden = _stages(module, given, 0, stop, train=False)
            hidden = fuse(w.extras, hidden, hidden)
            return _stages(module, hidden, stop, module.stages, train=False)

        return self.network.judge(own, integers, samples, targets, weights, method=fused)

    def _trained(self, w: Weights, batch: Batch, method: Any) -> Any:
        return self.network.trained(
            w.parameters, batch.state, batch.integers, method, batch.samples, batch.key
        )

    def _frozen(self, flat: jax.Array, state: jax.Array, batch: Batch, method: Any) -> Any:
        w = self.arrays(jax.lax.stop_gradient(flat))
        return self.network.evaluated(
            w.parameters, self.state_arrays(state), batch.integers, method, batch.samples
        )

    def _mean(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        losses = self.network.losses(outputs, batch.targets)
        return (losses * batch.weights).sum() / batch.weights.sum()


def _stages(module: Any, hidden: jax.Array, start: int, stop: int, *, train: bool) -> jax.Array:
    for index in range(start, stop):
        hidden = module.stage(index, hidden, train=train)
    return hidden


def _size(extra: Extra) -> int:
    return int(np.prod(extra.shape))
