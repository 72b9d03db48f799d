"""SCAFFOLD: control variates take the clients' drift out of local steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geojax.federated.base import FederatedConfig, need_sgd, register
from geojax.sync.client import ClientRule, Extra, Given, Merged, Sent, ServerRule, Trained


@dataclass
class ScaffoldConfig(FederatedConfig):
    """Keys of ``sync=scaffold``; η of the server is the rate of ``outer_optimizer=sgd``, or 1."""

    name: str = "scaffold"


def scaffold() -> ClientRule:
    """``w ← w − η_l (g − c_k + c)``; after τ_k steps ``c_k' = c_k − c + (w_t − w_k) / (τ_k η_l)``.

    (Option II of the paper.) Then ``w += η mean_S Δ_k`` and ``c += (|S|/N) mean_S (c_k' − c_k)``:
    plain means over the |S| clients that take part, of N. All c are zero at the start, and τ_k is
    the true number of steps, not of epochs. c and the mean of c_k' − c_k are a second model on the
    wire; N/|S| travels as one number.

    References:
      Karimireddy et al., *SCAFFOLD: Stochastic Controlled Averaging for Federated Learning*, ICML
      2020, Algorithm 1 and equations 3 to 5, arXiv 1910.06378.
    """

    def correct(gradient: Any, w: Any, given: Given) -> Any:
        del w
        return gradient - given.kept["c"] + given.server["c"]

    def finish(done: Trained) -> Sent:
        given = done.given
        moved = (given.start - done.end) / np.float32(done.steps * done.lr)
        variate = given.kept["c"] - given.server["c"] + moved
        return Sent(
            done.end - given.start,
            {"c": variate - given.kept["c"], "clients_per_participant": done.share},
            {"c": variate},
        )

    def update(merged: Merged, state: dict[str, np.ndarray]) -> Any:
        share = merged.extras["clients_per_participant"]  # N / |S|
        return merged.delta, {"c": merged.before["c"] + merged.extras["c"] / share}, state

    return ClientRule(
        "scaffold", weights="uniform", correct=correct, finish=finish,
        extras=lambda shapes: (
            Extra("c", (shapes.parameters,)), Extra("clients_per_participant", (1,), 1.0)
        ),
        keeps={"c": "zeros"}, server=ServerRule(lambda _: {}, update),
        every_center=True, check=need_sgd("scaffold", momentum=False),
    )  # fmt: skip


@register("scaffold", ScaffoldConfig)
def _configured(_: ScaffoldConfig) -> ClientRule:
    return scaffold()
