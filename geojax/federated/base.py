"""What all federated algorithms have in common: their keys, and how a rule becomes a sync."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from geojax.config import ModelConfig, RunConfig, SyncConfig
from geojax.errors import ConfigError
from geojax.models.registry import MODELS, model_info
from geojax.settings import key
from geojax.sync.algorithm import SYNCS, More, Offer, Step, SyncAlgorithm
from geojax.sync.client import ClientRule
from geojax.sync.parts import barrier, fixed_steps, weighted_mean

FEDERATED: list[str] = []
"""Names of all federated algorithms, in the order in which they are registered."""


@dataclass
class FederatedConfig(SyncConfig):
    """Keys that every federated algorithm reads."""

    epochs: int = key(1, "E: passes of a client over its data in a round", least=1)
    execution: str = key(
        "auto", "how clients are executed; auto: the fastest for model and backend, see "
        "geojax/federated/training/execution.py",
        choices=("auto", "loop", "pmap", "scan", "vmap"),
    )  # fmt: skip

    @property
    def splits_batches(self) -> bool:
        """Only ``pmap`` is one program over all devices; each client has one of them."""
        return self.execution == "pmap"


async def _offer(
    trainer: Any, base: np.ndarray, parameters: int, more: More, step: Step
) -> np.ndarray:
    del base, parameters
    await step(trainer.step)
    if await more(1):
        raise ValueError("a federated round is one step, and the local-step policy wants more")
    return trainer.offer()


def client_offer() -> Offer:
    """The weighted mean of the clients' Δ_k, then of their float state and of the extras."""
    return Offer("delta", True, _offer, np.negative)


def federated(rule: ClientRule) -> SyncAlgorithm:
    """A rule as a synchronization algorithm: a center offers its clients' mean and their weight.

    The weighted mean over the centers is then that over all clients.
    """
    return SyncAlgorithm(
        rule.name, client_offer(), fixed_steps(1), barrier(), weighted_mean(), "average",
        client=rule,
    )  # fmt: skip


def register(
    name: str, schema: type[FederatedConfig]
) -> Callable[[Callable[[Any], ClientRule]], Callable[[Any], ClientRule]]:
    """Decorates ``settings -> rule``, which becomes available as ``sync=name``."""

    def add(make: Callable[[Any], ClientRule]) -> Callable[[Any], ClientRule]:
        def build(config: Any) -> SyncAlgorithm:
            rule = make(config)
            return federated(
                rule._replace(name=name, epochs=config.epochs, execution=config.execution)
            )

        SYNCS.register(name, schema)(build)
        FEDERATED.append(name)
        return make

    return add


def need_sgd(name: str, *, momentum: bool) -> Callable[[RunConfig], None]:
    """A check that clients step by SGD, because the rule takes Δ_k apart into gradients."""

    def check(config: RunConfig) -> None:
        optimizer = config.optimizer
        settings = vars(optimizer)
        if optimizer.name != "sgd":
            fix = f"sync={name} divides by the rate of SGD; use optimizer=sgd"
            raise ConfigError("optimizer.name", optimizer.name, fix)
        if settings.get("momentum") and not momentum:
            fix = f"sync={name} is defined for SGD without momentum; set optimizer.momentum=0"
            raise ConfigError("optimizer.momentum", settings["momentum"], fix)
        if settings.get("nesterov"):
            fix = f"sync={name} is defined for the heavy ball; set optimizer.nesterov=false"
            raise ConfigError("optimizer.nesterov", True, fix)
        if optimizer.clip_norm is not None:
            fix = f"sync={name} takes steps for sums of gradients; set optimizer.clip_norm=null"
            raise ConfigError("optimizer.clip_norm", optimizer.clip_norm, fix)

    return check


def need_own_server(name: str) -> Callable[[RunConfig], None]:
    """A check that the server's step, which the algorithm is about, is not replaced."""

    def check(config: RunConfig) -> None:
        if config.outer_optimizer.name != "auto":
            fix = f"sync={name} has a server optimizer of its own; use auto, or sync=fedavg with it"
            raise ConfigError("outer_optimizer.name", config.outer_optimizer.name, fix)

    return check


def every(*checks: Callable[[RunConfig], None]) -> Callable[[RunConfig], None]:
    """All of these checks, one after the other."""

    def check(config: RunConfig) -> None:
        for each in checks:
            each(config)

    return check


def need_stages(name: str, what: str, *, images: bool = False) -> Callable[[RunConfig], None]:
    """A check that the model is a chain of stages; ``images``: with convolutions."""

    def able(config: ModelConfig) -> bool:
        info = model_info(config)
        return info.staged and info.build is not None and (info.smallest_side > 0 or not images)

    def check(config: RunConfig) -> None:
        if not able(config.model):
            names = ", ".join(each for each in MODELS if able(MODELS.settings(each)))
            fix = f"sync={name} needs {what}, which it has not; use one of {names}"
            raise ConfigError("model.name", config.model.name, fix)

    return check
