"""The local steps of one client, as pure functions of flat arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from geojax.center.network import Arrays
from geojax.federated.training.model import Model
from geojax.sync.client import Batch, ClientRule, Given


class Data(NamedTuple):
    """All samples of a process, on the device; batches are positions in them."""

    samples: jax.Array
    targets: jax.Array


class Carry(NamedTuple):
    """What a client's step changes."""

    trained: jax.Array  # float32 (n,): parameters, trained extras
    optimizer: Any
    state: Arrays
    integers: Arrays
    steps: jax.Array  # uint32: steps taken
    loss: jax.Array  # float32: sum of their losses


class ClientSteps:
    """How a client begins, steps and ends.

    Args:
      model: the model.
      rule: the algorithm.
      optimizer: of the clients, on flat arrays; fresh in every round.
      integers: integer leaves that every client begins every round with; what it makes of them is
        not kept.
    """

    def __init__(
        self, model: Model, rule: ClientRule, optimizer: optax.GradientTransformation,
        integers: Mapping[str, np.ndarray],
    ):  # fmt: skip
        self.model, self.rule = model, rule
        self._optimizer, self._integers = optimizer, dict(integers)

    def begin(self, given: Given) -> Carry:
        """Before a client's first step."""
        return Carry(
            jnp.copy(given.start),
            self._optimizer.init(given.start),
            jax.tree.map(jnp.copy, self.model.state_arrays(given.state)),
            self._start_integers(),
            jnp.zeros((), jnp.uint32),
            jnp.zeros((), jnp.float32),
        )

    def _start_integers(self) -> Arrays:
        return {name: jnp.array(value) for name, value in self._integers.items()}

    def step(
        self, carry: Carry, given: Given, draw: jax.Array, data: Data, positions: jax.Array
    ) -> Carry:
        """One local step.

        Args:
          carry: before it.
          given: what the client has begun with.
          draw: uint32 (4,): the worker's key, the client, the round.
          data: all samples.
          positions: int32 (b,), see :meth:`geojax.federated.clients.Clients.batches`.
        """
        batch = self._batch(carry.state, carry.integers, data, positions)
        batch = batch._replace(key=_key(draw, carry.steps))

        def objective(w: Any) -> Any:
            if self.rule.objective is None:
                return self.model.loss(w, batch)
            return self.rule.objective(self.model, w, given, batch)

        (loss, (state, integers)), tree = jax.value_and_grad(objective, has_aux=True)(
            self.model.arrays(carry.trained)
        )
        gradient = self.model.flat(tree)
        if self.rule.correct is not None:
            gradient = self.rule.correct(gradient, carry.trained, given)
        updates, optimizer = self._optimizer.update(gradient, carry.optimizer, carry.trained)
        trained = jnp.asarray(optax.apply_updates(carry.trained, updates))
        return Carry(trained, optimizer, state, integers, carry.steps + 1, carry.loss + loss)

    def right(
        self, trained: jax.Array, state: jax.Array, data: Data, positions: jax.Array
    ) -> jax.Array:
        """How many samples of a batch a client's model classifies right."""
        batch = self._batch({}, self._start_integers(), data, positions)
        return self.model.right(trained, state, batch)

    def _batch(self, state: Arrays, integers: Arrays, data: Data, positions: jax.Array) -> Batch:
        counts = positions >= 0
        at = jnp.where(counts, positions, ~positions)
        weights = counts.astype(jnp.float32)
        return Batch(data.samples[at], data.targets[at], weights, state, integers, None)


def _key(draw: jax.Array, step: jax.Array) -> jax.Array:
    """The key of one step; a model that draws nothing never computes it."""
    key = jax.random.wrap_key_data(draw[:2])
    for number in (draw[2], draw[3], step):
        key = jax.random.fold_in(key, number)
    return key
