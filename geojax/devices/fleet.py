"""The devices of one base station: rows of arrays, each with its own stream of batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geojax.data.batches import BatchOrder
from geojax.data.dataset import has_labels
from geojax.errors import DataError


class Fleet:
    """The devices of one base station (K of them), without a process or a connection each.

    Each device holds its *next* batch, of exactly n samples, and can tell how many of them are of
    which class. Only devices that take part in a step go on to another batch; the others offer the
    same one again. An epoch is a fresh shuffle; what does not fill a batch at its end comes first
    in the next epoch. This is the streaming of FedGS (Li et al., 2022, doi
    10.1109/JIOT.2022.3161943; ``client.py`` of the authors' code).

    Which samples a batch holds depends on (seed, number of the device in the run, number of the
    batch) alone, so the state of a fleet is how many batches each device has used. Device ``first +
    k`` of a run goes through its samples as worker ``first + k`` of a run without devices.

    Args:
      labels: target of every sample (samples, ...); counts are of classes if it is one integer
        each, in [0, classes).
      parts: for every device the positions of its samples, which index ``labels``.
      batch_size: n.
      classes: F, how many classes there are; 0: targets have none.
      seed: the run's seed.
      first: number of the first device among all devices of the run.

    Attributes:
      count: K.
      sizes: samples of each device, int64 (K,).
      classes: F; 0 where targets are no labels.
      taken: batches that each device has used, int64 (K,).

    Raises:
      DataError: there is no device, or one holds fewer than n / 2 samples.

    >>> fleet = Fleet(np.array([0, 0, 1, 1]), [np.array([0, 1]), np.array([2, 3])],
    ...               batch_size=2, classes=2, seed=0)
    >>> fleet.counts().tolist(), np.sort(fleet.take([1])).tolist(), fleet.taken.tolist()
    ([[2.0, 0.0], [0.0, 2.0]], [[2, 3]], [0, 1])
    """

    def __init__(
        self,
        labels: np.ndarray,
        parts: Sequence[np.ndarray],
        *,
        batch_size: int,
        classes: int,
        seed: int,
        first: int = 0,
    ):
        if not parts:
            raise DataError("a base station has no devices; set devices.count to 1 or more")
        self.count = len(parts)
        self.sizes = np.array([len(part) for part in parts], np.int64)
        self.batch_size = batch_size
        self._check_sizes()
        self.classes = classes if has_labels(labels) else 0
        self.taken = np.zeros(self.count, np.int64)
        self._labels, self._parts = labels, tuple(parts)
        self._orders = tuple(
            BatchOrder(len(part), batch_size, seed, first + number)
            for number, part in enumerate(parts)
        )
        self._next = np.zeros((self.count, batch_size), np.int64)
        self._counts = np.zeros((self.count, self.classes), np.float32)
        self._prepare(range(self.count))

    @property
    def parts(self) -> tuple[np.ndarray, ...]:
        """Positions of the samples of each device, int64."""
        return self._parts

    def counts(self) -> np.ndarray:
        """Samples of each class in the next batch of each device, float32 (K, F)."""
        return self._counts.copy()

    def class_counts(self) -> np.ndarray:
        """Samples of each class in all data of each device, float32 (K, F)."""
        return np.stack([self._count(part) for part in self._parts])

    def next(self) -> np.ndarray:
        """Positions of the next batch of each device, int64 (K, n)."""
        return self._next.copy()

    def take(self, devices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The next batches of some devices, which alone go on to another one.

        Args:
          devices: their numbers (L,), each once.

        Returns:
          Positions of their samples, int64 (L, n), in the same order.

        Raises:
          ValueError: a number is not a device's, or there twice.
        """
        chosen = np.asarray(devices, np.int64)
        known = chosen.ndim == 1 and bool(((chosen >= 0) & (chosen < self.count)).all())
        if not known or len(np.unique(chosen)) != len(chosen):
            raise ValueError(f"devices {chosen.tolist()} of {self.count}: name each once")
        batches = self._next[chosen]
        self.taken[chosen] += 1
        self._prepare(chosen)
        return batches

    def state_dict(self) -> dict[str, Any]:
        """Where each device is in its stream."""
        return {"taken": self.taken.copy()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores :meth:`state_dict`.

        Raises:
          ValueError: it is that of a fleet of another size.
        """
        taken = np.asarray(state["taken"], np.int64)
        if taken.shape != self.taken.shape:
            raise ValueError(f"the state of {taken.size} devices, but there are {self.count}")
        self.taken = taken.copy()
        self._prepare(range(self.count))

    def _prepare(self, devices: Sequence[int] | np.ndarray | range) -> None:
        for device in devices:
            batch = self._parts[device][self._orders[device](int(self.taken[device]))]
            self._next[device] = batch
            self._counts[device] = self._count(batch)

    def _count(self, positions: np.ndarray) -> np.ndarray:
        if not self.classes:
            return np.zeros(0, np.float32)
        return np.bincount(self._labels[positions], minlength=self.classes).astype(np.float32)

    def _check_sizes(self) -> None:
        least = -(-self.batch_size // 2)
        short = int(self.sizes.argmin())
        if self.sizes[short] < least:
            raise DataError(
                f"device {short} of {self.count} has {self.sizes[short]} samples, fewer than half "
                f"a batch (batch_size = {self.batch_size}, so at least {least}); use a smaller "
                "batch_size, fewer devices (devices.count), or a less skewed device_partition"
            )
