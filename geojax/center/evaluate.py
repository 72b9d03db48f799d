"""How good a vector is on the test set; imports JAX only when there is a model to run."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from geojax.center.inputs import checked
from geojax.center.spec import VectorSpec
from geojax.config import RunConfig
from geojax.errors import ConfigError, Diverged
from geojax.models.losses import ACCURACY
from geojax.models.registry import SYNTHETIC

_BATCH = 500

Evaluator = Callable[[np.ndarray], dict[str, float]]


class Judged(Protocol):
    """A network, or more of the same layout of functions; hashed by identity."""

    @property
    def spec(self) -> VectorSpec:
        """Layout of its vectors."""
        ...

    @property
    def judge(self) -> Callable[..., Any]:
        """See :meth:`geojax.center.network.Network.judge`."""
        ...


def build_evaluator(
    config: RunConfig, features: np.ndarray, labels: np.ndarray, judged: Judged | None = None
) -> Evaluator:
    """A function from a vector to its figures on the whole of ``features`` and ``labels``.

    The figures are ``loss`` and the metric of the configured loss (``accuracy``, share of right
    answers), with the model in evaluation mode and its integer leaves at their start. Samples go
    through the first local device, or those of ``testbed.cores`` in turn, in fixed batches, whose
    figures are added in order, so the same vector always gives the same figures. They stay on their
    device. A synthetic model has no figures: the dictionary is empty.

    ``judged``: what vectors are of, where more than the network's own travels.

    The returned function raises ``ValueError`` for a vector of another size, and
    :class:`geojax.errors.Diverged` when the loss is not finite.

    Raises:
      ConfigError: model, loss and data do not go together, or the run stops at an accuracy that the
        loss does not have.
      DataError: the samples do not fit the configured data set.
    """
    if config.model.name == SYNTHETIC:
        return lambda _: {}

    from geojax.center import devices
    from geojax.center.network import build_network

    devices.configure(config.mesh_size)

    import jax

    network = build_network(config)
    judged = judged or network
    if config.stop_at_target and network.metric != ACCURACY:
        fix = f"loss={config.loss} has no accuracy to stop at; leave it out"
        raise ConfigError("stop_at_target", True, fix)
    features, labels = checked(config, features, labels)
    count = len(features)
    size = min(_BATCH, count)
    cut = _padded(size, -(-count // size) * size)
    cores = devices.devices_side_by_side(config)
    cuts = zip(*(cut(each) for each in (features, labels, np.ones(count, np.float32))), strict=True)
    batches = [jax.device_put(batch, device) for batch, device in zip(cuts, itertools.cycle(cores))]
    integers = [jax.device_put(network.initial(config.seed)[1], device) for device in cores]
    judge = _judge(judged)
    names = [*filter(None, [network.metric]), "loss"]

    def evaluate(vector: np.ndarray) -> dict[str, float]:
        values = np.array(judged.spec.check(vector, "evaluate"))
        placed = [jax.device_put(values, device) for device in cores]
        models = itertools.cycle(zip(placed, integers, strict=True))
        parts = [judge(*model, *batch) for model, batch in zip(models, batches, strict=False)]
        figures = {name: sum(float(part[name]) for part in parts) / count for name in names}
        if not math.isfinite(figures["loss"]):
            raise Diverged("the test loss is not finite: the merged parameters have diverged")
        return figures

    return evaluate


@functools.lru_cache
def _judge(network: Judged) -> Callable[..., Any]:
    """The compiled judge of a network; the evaluators of one process share it."""
    import jax

    return jax.jit(network.judge)


def _padded(size: int, total: int) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Cuts an array into batches of ``size``, the last one filled up with zeros."""

    def cut(array: np.ndarray) -> list[np.ndarray]:
        padding = np.zeros((total - len(array), *array.shape[1:]), array.dtype)
        return np.split(np.concatenate([array, padding]), total // size)

    return cut
