"""A Flax module seen as flat groups of named arrays: parameters, float state, integer leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from geojax.center.devices import host_device
from geojax.center.inputs import inputs_of
from geojax.center.keys import seed_key
from geojax.center.shared import shared
from geojax.center.spec import VectorSpec
from geojax.config import ModelConfig, RunConfig
from geojax.errors import ConfigError
from geojax.models.inputs import Inputs
from geojax.models.losses import LOSSES
from geojax.models.registry import build_model

Arrays = dict[str, jax.Array]

PARAMETERS = "params/"  # Flax's collection of trained arrays

# Random numbers for a dozen arrays are much code that runs once: optimizing it takes five times as
# long as not to. The bits are the same.
_COMPILE_QUICKLY = {"xla_backend_optimization_level": 0}


class Network:
    """A module, the layout of its vector, and pure functions of its arrays.

    Arrays come in three groups, each a dictionary by name: *parameters* (Flax's collection
    ``params``: trained), *state* (floats of all other collections: merged as values wherever
    parameters are merged) and *integers* (all that is not float: never leaves the worker). So a
    model keeps what is the worker's own in integers, e.g. ``self.variable("counters", "batches",
    lambda: jnp.zeros((), jnp.int32))``; floats can be kept as their bits, with
    ``jax.lax.bitcast_convert_type``.

    A module may draw random numbers in training, from any of Flax's streams (``dropout``, or names
    of its own). They depend on the key of the step alone, see :func:`step_key`. In evaluation it
    must not draw any.

    Attributes:
      module: the Flax module; called with samples and ``train``, it returns outputs.
      inputs: what it is called with, and what its outputs are compared with.
      spec: layout of the flat vector. Arrays are laid out in the order in which the module
        creates them on its first call, which is the order of execution.
      metric: name of the figure that an evaluation tells beside the loss; empty: none.

    Args:
      module: see above.
      inputs: see above.
      loss: name of the loss.

    Raises:
      ConfigError: there is no such loss, or it cannot compare the module's outputs with such
        targets.
    """

    def __init__(self, module: nn.Module, inputs: Inputs, loss: str = "cross_entropy"):
        self.module = module
        self.inputs = inputs
        self._loss = LOSSES[loss]()
        self.metric = self._loss.metric
        created: list[str] = []

        def trace(key: jax.Array) -> Arrays:
            arrays = self._start(key)
            created.extend(arrays)  # before JAX sorts the names
            return arrays

        # The key is traced, too: a process that only asks for the layout starts no backend.
        self._leaves = jax.eval_shape(lambda: trace(jax.random.key(0)))
        floats = [
            name for name in created if jnp.issubdtype(self._leaves[name].dtype, jnp.floating)
        ]
        trained = [name for name in created if name.startswith(PARAMETERS)]
        wrong = sorted(set(trained) - set(floats))
        if wrong:
            raise TypeError(f"parameters must be real numbers: {', '.join(wrong)}")
        self.spec = VectorSpec.of(
            [(name.removeprefix(PARAMETERS), self._leaves[name].shape) for name in trained],
            [(name, self._leaves[name].shape) for name in floats if name not in trained],
        )
        self._integer_names = [name for name in created if name not in floats]
        self._collections = sorted({name.split("/")[0] for name in created} - {"params"})
        self._begin = jax.jit(self._initial, compiler_options=_COMPILE_QUICKLY)
        self._check_loss(loss)

    def initial(self, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Vector and integers at the start: a function of the seed alone, computed on the CPU."""
        with jax.default_device(host_device()):
            vector, integers = self._begin(seed_key(seed))
        return np.array(vector), {name: np.array(value) for name, value in integers.items()}

    def flatten(self, arrays: Arrays, part: VectorSpec | None = None) -> jax.Array:
        """The float32 vector of parameters and state by name, or of a part of them."""
        layers = (part or self.spec).layers
        return jnp.concatenate(
            [arrays[each.name].astype(jnp.float32).reshape(-1) for each in layers]
        )

    def unflatten(self, vector: jax.Array, part: VectorSpec | None = None) -> tuple[Arrays, Arrays]:
        """Parameters and state of a vector; the inverse of :meth:`flatten`."""
        parameters: Arrays = {}
        state: Arrays = {}
        for layer in (part or self.spec).layers:
            trained = layer.kind == "parameter"
            dtype = self._leaves[PARAMETERS + layer.name if trained else layer.name].dtype
            array = vector[layer.offset : layer.stop].reshape(layer.shape).astype(dtype)
            (parameters if trained else state)[layer.name] = array
        return parameters, state

    def loss(
        self,
        parameters: Arrays,
        state: Arrays,
        integers: Arrays,
        samples: jax.Array,
        targets: jax.Array,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[Arrays, Arrays]]:
        """Mean loss of a batch, and the state and integers after it.

        Args:
          parameters: by name.
          state: by name.
          integers: by name.
          samples: of the batch.
          targets: of the batch.
          key: of the step's random numbers; None: the module draws none.
        """
        outputs, changed = self.trained(parameters, state, integers, self._call, samples, key)
        return self.mean_loss(outputs, targets), changed

    def trained(
        self,
        parameters: Arrays,
        state: Arrays,
        integers: Arrays,
        method: Callable[[Any, jax.Array], jax.Array],
        given: jax.Array,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[Arrays, Arrays]]:
        """What a method of the module makes of ``given``, and the state and integers after it.

        The arrays may be only those that the method uses.
        """
        variables = self._variables(parameters, state, integers)
        # Flax takes this stream in place of any other that the module draws from.
        streams = None if key is None else {"params": key}
        made, changed = self.module.apply(
            variables, given, method=method, mutable=self._collections, rngs=streams
        )
        after = flat_names(changed)
        return cast(jax.Array, made), (
            {name: after[name] for name in state},
            {name: after[name] for name in integers},
        )

    def evaluated(
        self,
        parameters: Arrays,
        state: Arrays,
        integers: Arrays,
        method: Callable[[Any, jax.Array], jax.Array],
        given: jax.Array,
    ) -> jax.Array:
        """What a method of the module makes of ``given`` in evaluation; nothing changes."""
        variables = self._variables(parameters, state, integers)
        return cast(jax.Array, self.module.apply(variables, given, method=method))

    def losses(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """The loss of every example, float32 (batch,)."""
        return self._loss.per_example(outputs, targets)

    def mean_loss(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """Mean loss of a batch."""
        return self.losses(outputs, targets).mean()

    def judge(
        self,
        vector: jax.Array,
        integers: Arrays,
        samples: jax.Array,
        targets: jax.Array,
        weights: jax.Array,
        method: Callable[[Any, jax.Array], jax.Array] | None = None,
    ) -> dict[str, jax.Array]:
        """Sums of the loss and of the metric in evaluation, each sample by its weight.

        ``method``: makes outputs of samples; None: the module itself.
        """
        call = method or (lambda module, given: module(given, train=False))
        outputs = self.evaluated(*self.unflatten(vector), integers, call, samples)
        scores = {name: score(outputs, targets) for name, score in self._scores.items()}
        return {name: (score * weights).sum() for name, score in scores.items()}

    @property
    def _scores(self) -> dict[str, Any]:
        named = {self.metric: self._loss.measure} if self.metric else {}
        return {**named, "loss": self._loss.per_example}

    def _check_loss(self, loss: str) -> None:
        """Traces outputs and scores of two examples, without computing anything."""
        sample, target = (
            jax.ShapeDtypeStruct((2, *each.shape), each.dtype) for each in self.inputs
        )
        outputs: Any = jax.eval_shape(
            lambda arrays, given: self.module.apply(
                unflatten_dict(arrays, sep="/"), given, train=False
            ),
            self._leaves,
            sample,
        )
        found = f"outputs of shape {outputs.shape} with {target.dtype} targets of {target.shape}"
        fix = f"cannot compare {found}; choose another loss, model or data set"
        for score in self._scores.values():
            try:
                made = jax.eval_shape(score, outputs, target).shape
            except (AssertionError, IndexError, TypeError, ValueError) as error:
                raise ConfigError("loss", loss, f"{fix} ({error})") from error
            if made != (2,):
                raise ConfigError("loss", loss, f"{fix} (it makes {made}, not one number of each)")

    def _initial(self, key: jax.Array) -> tuple[jax.Array, Arrays]:
        arrays = self._start(jax.random.wrap_key_data(key))
        integers = {name: arrays.pop(name) for name in self._integer_names}
        named = {name.removeprefix(PARAMETERS): array for name, array in arrays.items()}
        return self.flatten(named), integers

    def _start(self, key: jax.Array) -> Arrays:
        sample = jnp.zeros((1, *self.inputs.sample.shape), self.inputs.sample.dtype)
        return flat_names(self.module.init(key, sample, train=False))

    @staticmethod
    def _call(module: Any, samples: jax.Array) -> jax.Array:
        return module(samples, train=True)

    @staticmethod
    def _variables(parameters: Arrays, state: Arrays, integers: Arrays) -> dict:
        trained = {PARAMETERS + name: array for name, array in parameters.items()}
        return unflatten_dict({**trained, **state, **integers}, sep="/")


def flat_names(tree: Mapping[str, Any]) -> Arrays:
    """Flax's nested variables as one dictionary, in the order in which they were made."""
    return cast(Arrays, flatten_dict(tree, sep="/"))


def step_key(draw: jax.Array, device: jax.Array | int) -> jax.Array:
    """The key of one step on one device.

    It depends on the run's seed, the worker, the step and the device alone, so nothing of it has to
    be kept: a resumed run, or another testbed, draws the same numbers.

    Args:
      draw: uint32 (3,): :func:`geojax.center.keys.worker_key`, then the number of the step.
      device: position of the device among the worker's.
    """
    worker = jax.random.wrap_key_data(draw[:2])
    return jax.random.fold_in(jax.random.fold_in(worker, draw[2]), device)


def build_network(config: RunConfig) -> Network:
    """The network of a configured model; one object per process, so that programs are shared."""
    return _network(config.model, inputs_of(config.data), config.loss)


@shared
def _network(model: ModelConfig, inputs: Inputs, loss: str) -> Network:
    return Network(build_model(model, inputs), inputs, loss)
