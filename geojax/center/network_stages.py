"""A network as a chain of stages: which arrays each one owns, what it costs, how it is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import jax
from flax import linen as nn

from geojax.center.network import PARAMETERS, Arrays, Network, flat_names
from geojax.center.shared import shared
from geojax.models.staged import StagedModule

_Method = Callable[[Any, jax.Array], jax.Array]


class NetworkStage(NamedTuple):
    """One stage of a network.

    Attributes:
      name: of the submodule whose parameters come first, e.g. ``Conv_0``.
      start: first element of its parameters in the vector.
      stop: one past their last element.
      parameters: names of its parameters, in vector order.
      state: names of its float state.
      integers: names of its integer leaves.
      operations: multiplications and additions of its convolutions and matrix products in one
        forward pass of one sample; counted from shapes, so the same everywhere.
    """

    name: str
    start: int
    stop: int
    parameters: tuple[str, ...]
    state: tuple[str, ...]
    integers: tuple[str, ...]
    operations: int


class StagedNetwork:
    """The stages of a network, and pure functions that run one of them in training.

    Attributes:
      network: the network.
      stages: its stages, in order of execution. Their parameters follow each other in the vector.
    """

    def __init__(self, network: Network):
        self.network = network
        self.stages = _stages(network)

    def run(
        self,
        index: int,
        parameters: Arrays,
        state: Arrays,
        integers: Arrays,
        hidden: jax.Array,
        key: jax.Array,
    ) -> tuple[jax.Array, tuple[Arrays, Arrays]]:
        """Output of a stage for the output of the one before, and its state and integers after it.

        The arrays are those of the stage; ``key`` is that of the step's random numbers.
        """
        method = _method(index, train=True)
        return self.network.trained(parameters, state, integers, method, hidden, key)


@shared
def staged_network(network: Network) -> StagedNetwork:
    """The stages of a network; traced once per process."""
    return StagedNetwork(network)


def _method(index: int, *, train: bool) -> _Method:
    def run(module: Any, hidden: jax.Array) -> jax.Array:
        return module.stage(index, hidden, train=train)

    return run


def _stages(network: Network) -> tuple[NetworkStage, ...]:
    """Traces every stage, without computing anything.

    Raises:
      TypeError: the module has no stages, or they do not make up the network.
    """
    module = network.module
    if not isinstance(module, StagedModule):
        raise TypeError(f"{type(module).__name__} has no stages; derive it from StagedModule")
    stages: list[NetworkStage] = []
    offset, layers = 0, {layer.name: layer for layer in network.spec.layers}
    sample = network.inputs.sample
    hidden: Any = jax.ShapeDtypeStruct((1, *sample.shape), sample.dtype)
    for index in range(module.stages):
        created, out, operations = _traced(module, index, hidden)
        trained = [name for name in created if name.startswith(PARAMETERS)]
        names = tuple(name.removeprefix(PARAMETERS) for name in trained)
        others = [name for name in created if name not in trained]
        stop = offset + sum(layers[name].size for name in names)
        expected = tuple(each.name for each in layers.values() if offset <= each.offset < stop)
        if not names or names != expected:
            raise TypeError(
                f"stage {index} of {type(module).__name__} makes the parameters {names}; the next "
                f"in the order of execution are {expected}"
            )
        stages.append(
            NetworkStage(
                names[0].partition("/")[0], offset, stop, names,
                tuple(name for name in others if name in layers),
                tuple(name for name in others if name not in layers),
                operations,
            )
        )  # fmt: skip
        offset, hidden = stop, out
    if offset != network.spec.parameters:
        raise TypeError(f"the stages of {type(module).__name__} leave out some of its parameters")
    return tuple(stages)


def _traced(module: nn.Module, index: int, hidden: Any) -> tuple[list[str], Any, int]:
    """Names of the arrays that a stage creates, shape of its output, and its operations."""
    created: list[str] = []

    def start(key: jax.Array, given: jax.Array) -> tuple[jax.Array, Any]:
        method = _method(index, train=False)
        out, variables = module.init_with_output(key, given, method=method)
        created.extend(flat_names(variables))
        return cast(jax.Array, out), variables

    out, variables = jax.eval_shape(start, jax.random.key(0), hidden)
    run = _method(index, train=False)
    traced = jax.make_jaxpr(lambda arrays, given: module.apply(arrays, given, method=run))
    return created, out, sum(map(_operations, _equations(traced(variables, hidden).jaxpr)))


def _equations(jaxpr: Any) -> Iterator[Any]:
    """Every equation of a program, those of the programs inside it included."""
    for equation in jaxpr.eqns:
        yield equation
        for setting in jax.tree.leaves(tuple(equation.params.values())):
            inner = getattr(setting, "jaxpr", setting)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def _operations(equation: Any) -> int:
    """Multiplications and additions of a convolution or a matrix product; 0 of all else.

    Either makes every element of its output from as many products as the right-hand side has
    elements per feature of the output; padding counts like the rest.
    """
    if equation.primitive.name not in ("dot_general", "conv_general_dilated"):
        return 0
    out, right = equation.outvars[0].aval, equation.invars[1].aval
    if equation.primitive.name == "dot_general":
        (_, contracted), _ = equation.params["dimension_numbers"]
        return 2 * out.size * math.prod(right.shape[axis] for axis in contracted)
    feature = equation.params["dimension_numbers"].rhs_spec[0]
    return 2 * out.size * (right.size // right.shape[feature])
