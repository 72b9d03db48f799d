"""What all nodes of a run know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geojax.center.evaluate import Evaluator, build_evaluator
from geojax.center.trainer import initial_vector
from geojax.config import RunConfig
from geojax.data.dataset import Dataset, load_dataset
from geojax.data.dealing import partition
from geojax.federated import build as federated
from geojax.hips.cluster import ONE_EACH, START, Cluster, Connections, ResumePoint
from geojax.hips.storage.snapshots import Pieces, SharedPieces, StoredPieces
from geojax.hollow import is_hollow
from geojax.models.registry import SYNTHETIC
from geojax.overlay.view import NetworkView
from geojax.sync.registry import build_sync


@dataclass(frozen=True)
class Setup:
    """What all nodes of a run know, and what nodes of one process share (data, evaluator).

    Attributes:
      config: the run.
      cluster: all nodes.
      view: the WAN as it is when the run starts.
      models: folder of the final model, and of models that wait for evaluation.
      inline: evaluate at once, while the clock stands still (simulation).
      checkpoints: folder of the nodes' checkpoints.
      resume: where the run goes on, if it continues a broken one.
      connections: how many carry what centers send to each other.
    """

    config: RunConfig
    cluster: Cluster
    view: NetworkView
    models: Path
    checkpoints: Path
    inline: bool = False
    resume: ResumePoint = START
    connections: Connections = ONE_EACH
    _cache: dict[str, Any] = field(default_factory=dict)

    def connections_between(self, source: str, target: str) -> int:
        """How many carry what one node sends to another."""
        return self.connections.between(self.cluster.node(source), self.cluster.node(target))

    def dataset(self) -> Dataset:
        """The data set, loaded once per process."""
        return self.shared("dataset", lambda: load_dataset(self.config.data))

    def train_samples(self) -> int:
        """Size of the training set."""
        return len(self.dataset().train_y)

    def test_samples(self) -> int:
        """Size of the test set."""
        return len(self.dataset().test_y)

    def part(self, name: str) -> np.ndarray:
        """Indices of the training samples that trainer ``name`` holds."""
        return self.parts()[name]

    def parts(self) -> dict[str, np.ndarray]:
        """The same for all trainers."""
        config, data = self.config, self.dataset()

        def deal() -> dict[str, np.ndarray]:
            trainers = self.cluster.trainers
            return partition(
                config.partition, data.train_y, trainers, config.seed, data.train_groups
            )

        return self.shared("parts", deal)

    def initial(self) -> np.ndarray:
        """The initial vector: the same in every process, from the run's seed."""
        vector = self.shared("initial", self._initial)
        return vector if is_hollow(vector) else vector.copy()

    def evaluator(self) -> Callable[[np.ndarray], dict[str, float]] | None:
        """Accuracy and loss of a vector on the test set; None for a synthetic model."""
        if self.config.model.name == SYNTHETIC:
            return None
        data = self.dataset()

        def build() -> Evaluator:
            model = self._federated()
            if model is None:
                return build_evaluator(self.config, data.test_x, data.test_y)
            return federated.build_evaluator(self.config, model, data.test_x, data.test_y)

        return self.shared("evaluator", build)

    def client_data(self) -> Any:
        """All training samples on this process's devices, for the clients of its workers."""
        data = self.dataset()
        return self.shared(
            "client data", lambda: federated.place(self.config, data.train_x, data.train_y)
        )

    def _initial(self) -> np.ndarray:
        model = self._federated()
        return initial_vector(self.config) if model is None else model.initial(self.config.seed)

    def _federated(self) -> Any:
        """The model with what travels beside it, under a federated algorithm."""
        rule = build_sync(self.config.sync).client
        return None if rule is None else federated.build_model(self.config, rule)

    def pieces_of(self, name: str) -> Pieces:
        """Where node ``name`` leaves its pieces of models."""
        if self.inline:
            return self.shared("pieces of models", SharedPieces)
        return StoredPieces(self.models, name)

    def shared(self, key: str, make: Callable[[], Any]) -> Any:
        """What ``make`` returned when ``key`` was asked for first in this process."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]
