"""FedDyn: dynamic regularization makes the clients' optima that of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geojax.federated.base import FederatedConfig, register
from geojax.settings import key
from geojax.sync.client import ClientRule, Extra, Given, Merged, Sent, ServerRule, Trained


@dataclass
class FedDynConfig(FederatedConfig):
    """Keys of ``sync=feddyn``."""

    name: str = "feddyn"
    alpha: float = key(0.1, "α of the regularizer", above=0)


def feddyn(*, alpha: float) -> ClientRule:
    """Local objective ``F_k(w) − ⟨h_k, w⟩ + (α/2) ‖w − w_t‖²``, then ``h_k −= α (w_k − w_t)``.

    At the server ``h −= (α/N) Σ_S (w_k − w_t)`` over the |S| clients that take part, of N, and
    ``w_{t+1} = mean_S w_k − h/α``. All h are zero at the start. h never travels: every center
    computes it from the mean and N/|S|. α = .1 is a common choice, not the paper's for all data.

    References:
      Acar et al., *Federated Learning Based on Dynamic Regularization*, ICLR 2021, Algorithm 1,
      arXiv 2111.04263.
    """

    def correct(gradient: Any, w: Any, given: Given) -> Any:
        return gradient - given.kept["h"] + alpha * (w - given.start)

    def finish(done: Trained) -> Sent:
        delta = done.end - done.given.start
        kept = done.given.kept["h"] - np.float32(alpha) * delta
        return Sent(delta, {"clients_per_participant": done.share}, {"h": kept})

    def update(merged: Merged, state: dict[str, np.ndarray]) -> Any:
        share = merged.extras["clients_per_participant"]  # N / |S|
        h = state["h"] - np.float32(alpha) * merged.delta / share
        return merged.delta - h / np.float32(alpha), {}, {"h": h}

    return ClientRule(
        "feddyn", weights="uniform", correct=correct, finish=finish,
        extras=lambda _: (Extra("clients_per_participant", (1,), 1.0),), keeps={"h": "zeros"},
        server=ServerRule(lambda parameters: {"h": np.zeros(parameters, np.float32)}, update),
        every_center=True,
    )  # fmt: skip


@register("feddyn", FedDynConfig)
def _configured(config: FedDynConfig) -> ClientRule:
    return feddyn(alpha=config.alpha)
