"""What a run with a federated algorithm builds: trainer, vector, evaluation and server.

Loads JAX only when something is built.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from geojax.center import evaluate
from geojax.center.evaluate import Evaluator
from geojax.center.inputs import checked
from geojax.center.optimizers import OPTIMIZERS
from geojax.center.outer import OuterOptimizer, PlainSgd, build_outer_optimizer
from geojax.center.shared import shared
from geojax.center.spec import VectorSpec
from geojax.config import RunConfig, SyncConfig
from geojax.devices.links import InternalLinks
from geojax.errors import ConfigError
from geojax.federated.clients import AS_THEY_ARE, Choose, Clients, Usual
from geojax.federated.server import FederatedServer
from geojax.hollow import SIZE_ONLY
from geojax.models.registry import SYNTHETIC
from geojax.sync.client import ClientRule

if TYPE_CHECKING:
    from geojax.federated.training.model import Model
    from geojax.federated.training.steps import Data
    from geojax.federated.training.trainer import FederatedTrainer


def check(config: RunConfig, rule: ClientRule) -> None:
    """Refuses what no federated algorithm, or not this one, can run with.

    Raises:
      ConfigError: names the key, the value and the fix.
    """
    name = config.sync.name
    if config.model.name == SYNTHETIC or config.compression.name == SIZE_ONLY:
        fix = f"sync={name} trains clients on data; choose a network, e.g. model=mlp"
        raise ConfigError("model.name", config.model.name, fix)
    rule.check(config)


def build_model(config: RunConfig, rule: ClientRule) -> Model:
    """The network with what travels beside it; one object per process and configuration."""
    from geojax.center.trainer import build_spec

    build_spec(config)  # sets JAX up

    from geojax.center.network import build_network

    return _model(build_network(config), _Rule(rule), config.sync)


class _Rule:
    """A rule, printed as nothing: the settings of ``sync`` determine it."""

    def __init__(self, rule: ClientRule):
        self.rule = rule

    def __repr__(self) -> str:
        return self.rule.name


@shared
def _model(network: Any, rule: _Rule, sync: SyncConfig) -> Model:
    from geojax.federated.training.model import Model

    del sync
    return Model(network, rule.rule)


def build_evaluator(
    config: RunConfig, model: Model, features: np.ndarray, labels: np.ndarray
) -> Evaluator:
    """As :func:`geojax.center.evaluate.build_evaluator`, from vectors of what travels."""
    if model.fuse is not None:
        return evaluate.build_evaluator(config, features, labels, model)
    own = evaluate.build_evaluator(config, features, labels)
    return lambda vector: own(model.spec.check(vector, "evaluate")[: model.network.spec.size])


def build_outer(config: RunConfig, rule: ClientRule, spec: VectorSpec) -> OuterOptimizer:
    """The server: the algorithm's rule, if it has one, and then the outer optimizer.

    ``outer_optimizer=auto`` stands for the algorithm's own, or plain averaging.
    """
    outer = config.outer_optimizer
    if outer.name == "auto" and rule.outer is None:
        inner: OuterOptimizer = PlainSgd(1.0, spec)
    else:
        chosen = rule.outer if outer.name == "auto" and rule.outer else outer
        inner = build_outer_optimizer(chosen, config.rate_of(chosen), spec)
    return inner if rule.server is None else FederatedServer(rule.server, spec, inner)


def place(config: RunConfig, features: np.ndarray, labels: np.ndarray) -> tuple[Data, ...]:
    """All samples of this process on each device that clients are dealt to; workers share them.

    Devices of the CPU read the same memory. With ``pmap``: on the first device.

    Raises:
      DataError: they do not fit the configured data set.
    """
    from geojax.center import devices

    devices.configure(config.mesh_size)

    import jax

    from geojax.federated.training.steps import Data

    features, labels = checked(config, features, labels)
    first, *others = (
        devices.local_devices()[:1] if config.sync.splits_batches else client_devices(config)
    )
    data = Data(jax.device_put(features, first), jax.device_put(labels, first))
    return (data, *(jax.device_put(data, device, may_alias=True) for device in others))


def client_devices(config: RunConfig) -> tuple[Any, ...]:
    """The devices that clients are dealt to; with ``pmap`` those of one program."""
    from geojax.center import devices

    if config.sync.splits_batches:
        return devices.local_devices()
    return devices.separate_devices(config.testbed.devices)


def build_trainer(
    config: RunConfig,
    rule: ClientRule,
    *,
    data: Callable[[], tuple[Data, ...]],
    parts: Sequence[np.ndarray],
    worker_index: int,
    choose: Choose | None = None,
    links: InternalLinks | None = None,
    usual: Usual = AS_THEY_ARE,
) -> FederatedTrainer:
    """The trainer of one worker, at the run's initial parameters.

    Args:
      config: the run.
      rule: its algorithm.
      data: all samples of the data set, on this process's devices; see :func:`place`.
      parts: for every client the positions of its samples in it.
      worker_index: which worker of the run.
      choose: which clients take part in a round; None: all.
      links: of the clients to the worker; None: the worker is its only client.
      usual: what all workers have on average; the same at all of them.

    Raises:
      ConfigError: a setting is wrong.
      DataError: a client has no samples.
    """
    clients = Clients(
        parts, batch_size=config.batch_size, epochs=rule.epochs, seed=config.seed,
        worker_index=worker_index, choose=choose,
    )  # fmt: skip
    model = build_model(config, rule)

    from geojax.federated.training.trainer import FederatedTrainer, build_programs

    programs = build_programs(config, model, rule, client_devices(config))
    return FederatedTrainer(
        programs, rule, clients, data(), model.initial(config.seed),
        lr=config.rate_of(config.optimizer),
        momentum=getattr(OPTIMIZERS.complete(config.optimizer), "momentum", 0.0), links=links,
        usual=usual,
    )  # fmt: skip
