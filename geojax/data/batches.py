"""Which samples a worker's k-th batch holds."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from geojax.data.streams import stream
from geojax.errors import ConfigError, DataError


class Batches(Protocol):
    """Which samples the batch of a step holds.

    Attributes:
      batch_size: samples of a batch.
      seed: the run's.
      worker_index: whose batches.
    """

    batch_size: int
    seed: int
    worker_index: int

    def __call__(self, step: int) -> np.ndarray:
        """Positions of the samples of batch ``step``, int64 (batch_size,)."""
        ...


class BatchOrder:
    """The endless order in which one worker walks through its own part of the data.

    Every epoch is a fresh shuffle of the part, and epochs follow each other without a gap: batch
    k holds elements k·b to (k+1)·b - 1 of their concatenation. So all batches are full, and a
    batch may be larger than the part. An epoch's shuffle depends on (seed, worker index, epoch)
    alone: steps may be asked for in any order, and a resumed run goes on where it stopped.

    Args:
      count: samples in the worker's part.
      batch_size: samples per batch.
      seed: the run's seed.
      worker_index: which worker, counted over all centers.

    >>> order = BatchOrder(count=3, batch_size=2, seed=0, worker_index=0)
    >>> sorted(np.concatenate([order(0), order(1), order(2)]).tolist())
    [0, 0, 1, 1, 2, 2]
    """

    def __init__(self, count: int, batch_size: int, seed: int, worker_index: int):
        if count < 1:
            raise DataError(f"worker {worker_index} has {count} samples; it needs at least 1")
        if batch_size < 1:
            raise ConfigError("batch_size", batch_size, "use a batch of at least 1 sample")
        self.count, self.batch_size = count, batch_size
        self.seed, self.worker_index = seed, worker_index
        self._epoch = -1
        self._permutation = np.empty(0, np.int64)  # of self._epoch

    def __call__(self, step: int) -> np.ndarray:
        """Positions in the worker's part that batch ``step`` holds, int64 (batch_size,)."""
        if step < 0:
            raise ValueError(f"step {step}: steps are counted from 0")
        pieces = []
        start, stop = step * self.batch_size, (step + 1) * self.batch_size
        while start < stop:
            epoch, offset = divmod(start, self.count)
            piece = self._shuffled(epoch)[offset : offset + stop - start]
            pieces.append(piece)
            start += len(piece)
        return np.concatenate(pieces)

    def _shuffled(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            generator = stream("batches", self.seed, self.worker_index, epoch)
            self._permutation = generator.permutation(self.count).astype(np.int64, copy=False)
            self._epoch = epoch
        return self._permutation


def batch_indices(
    count: int, batch_size: int, seed: int, worker_index: int, step: int
) -> np.ndarray:
    """One batch of :class:`BatchOrder`, as a pure function; for many steps keep the object."""
    return BatchOrder(count, batch_size, seed, worker_index)(step)
