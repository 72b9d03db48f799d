"""A Flax module seen as flat groups of named arrays: parameters, float state, integer leaves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from geojax.center.devices import host_device
from geojax.center.spec import VectorSpec
from geojax.models.registry import build_model

Arrays = dict[str, jax.Array]

PARAMETERS = "params/"  # Flax's collection of trained arrays

# Random numbers for a dozen arrays are much code that runs once: optimizing it takes five times as
# long as not to. The bits are the same.
_COMPILE_QUICKLY = {"xla_backend_optimization_level": 0}


class Network:
    """A module, the layout of its vector, and pure functions of its arrays.

    Arrays come in three groups, each a dictionary by name: *parameters* (trained), *state* (float
    model state) and *integers* (everything else, which never leaves the worker).

    Attributes:
      module: the Flax module; called with images and ``train``, it returns logits.
      input_shape: (height, width, channels) of one sample.
      spec: layout of the flat vector. Arrays are laid out in the order in which the module
        creates them on its first call, which is the order of execution.
      integers: values at the start of the integer leaves.
    """

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...]):
        self.module = module
        self.input_shape = input_shape
        created: list[str] = []

        def trace(key: jax.Array) -> Arrays:
            arrays = self._start(key)
            created.extend(arrays)  # before JAX sorts the names
            return arrays

        self._leaves = jax.eval_shape(trace, jax.random.key(0))
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

    def initial(self, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Vector and integers at the start: a function of the seed alone, computed on the CPU."""
        with jax.default_device(host_device()):
            vector, integers = self._begin(jax.random.key(seed))
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
        images: jax.Array,
        labels: jax.Array,
    ) -> tuple[jax.Array, tuple[Arrays, Arrays]]:
        """Mean softmax cross entropy of a batch, and the state and integers after it."""
        logits, changed = self.trained(parameters, state, integers, self._call, images)
        return self.mean_loss(logits, labels), changed

    def trained(
        self,
        parameters: Arrays,
        state: Arrays,
        integers: Arrays,
        method: Callable[[Any, jax.Array], jax.Array],
        given: jax.Array,
    ) -> tuple[jax.Array, tuple[Arrays, Arrays]]:
        """What a method of the module makes of ``given``, and the state and integers after it.

        The arrays may be only those that the method uses.
        """
        variables = self._variables(parameters, state, integers)
        made, changed = self.module.apply(
            variables, given, method=method, mutable=self._collections
        )
        after = flat_names(changed)
        return cast(jax.Array, made), (
            {name: after[name] for name in state},
            {name: after[name] for name in integers},
        )

    @staticmethod
    def mean_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Mean softmax cross entropy of a batch."""
        return _cross_entropy(logits, labels).mean()

    def judge(
        self,
        vector: jax.Array,
        integers: Arrays,
        images: jax.Array,
        labels: jax.Array,
        weights: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Number of right answers and summed loss in evaluation, each sample by its weight."""
        variables = self._variables(*self.unflatten(vector), integers)
        logits = cast(jax.Array, self.module.apply(variables, images, train=False))
        right = (jnp.argmax(logits, axis=-1) == labels) * weights
        return right.sum(), (_cross_entropy(logits, labels) * weights).sum()

    def _initial(self, key: jax.Array) -> tuple[jax.Array, Arrays]:
        arrays = self._start(key)
        integers = {name: arrays.pop(name) for name in self._integer_names}
        named = {name.removeprefix(PARAMETERS): array for name, array in arrays.items()}
        return self.flatten(named), integers

    def _start(self, key: jax.Array) -> Arrays:
        images = jnp.zeros((1, *self.input_shape), jnp.float32)
        return flat_names(self.module.init(key, images, train=False))

    @staticmethod
    def _call(module: Any, images: jax.Array) -> jax.Array:
        return module(images, train=True)

    @staticmethod
    def _variables(parameters: Arrays, state: Arrays, integers: Arrays) -> dict:
        trained = {PARAMETERS + name: array for name, array in parameters.items()}
        return unflatten_dict({**trained, **state, **integers}, sep="/")


def flat_names(tree: Mapping[str, Any]) -> Arrays:
    """Flax's nested variables as one dictionary, in the order in which they were made."""
    return cast(Arrays, flatten_dict(tree, sep="/"))


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    logits = logits.astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


@functools.lru_cache
def build_network(name: str, input_shape: tuple[int, ...], classes: int) -> Network:
    """The network of a configured model; one object per process, so that programs are shared."""
    return Network(build_model(name, input_shape, classes), input_shape)
