"""FedNova: every client's move counts as one step's, however many it took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geojax.federated.base import FederatedConfig, need_sgd, register
from geojax.sync.client import ClientRule, Extra, Merged, Sent, ServerRule, Trained


@dataclass
class FedNovaConfig(FederatedConfig):
    """Keys of ``sync=fednova``."""

    name: str = "fednova"


def effective_steps(steps: int, momentum: float) -> float:
    """‖a_k‖₁: τ for SGD, ``(τ − ρ (1 − ρ^τ)/(1 − ρ)) / (1 − ρ)`` with momentum ρ.

    >>> effective_steps(3, 0.0), effective_steps(2, 0.5)
    (3.0, 2.5)
    """
    rho = momentum
    return float(steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)


def fednova() -> ClientRule:
    """``w += τ_eff Σ_k p_k Δ_k / ‖a_k‖₁`` with ``τ_eff = Σ_k p_k ‖a_k‖₁``, p_k = n_k / Σ n.

    With the same number of steps for all it is FedAvg. Clients step by SGD, or with momentum, which
    begins at zero in every round.

    References:
      Wang et al., *Tackling the Objective Inconsistency Problem in Heterogeneous Federated
      Optimization*, NeurIPS 2020, section 4, arXiv 2007.07481.
    """

    def finish(done: Trained) -> Sent:
        steps = effective_steps(done.steps, done.momentum)
        return Sent((done.end - done.given.start) / np.float32(steps), {"steps": steps})

    def update(merged: Merged, state: dict[str, np.ndarray]) -> Any:
        return merged.delta * merged.extras["steps"], {}, state

    return ClientRule(
        "fednova", finish=finish, extras=lambda _: (Extra("steps", (1,), 1.0),),
        server=ServerRule(lambda _: {}, update), check=need_sgd("fednova", momentum=True),
    )  # fmt: skip


@register("fednova", FedNovaConfig)
def _configured(_: FedNovaConfig) -> ClientRule:
    return fednova()
