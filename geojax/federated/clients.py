"""The clients of one worker: what data each one has, and in which order it goes through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from geojax.data.streams import stream
from geojax.errors import ConfigError, DataError


class Usual(NamedTuple):
    """What workers of the run have on average; weights are stated in it, so that they are near one.

    A constant factor of all weights changes no mean. But offers travel as weight times value, and
    a codec like FP16 has a range.

    Attributes:
      clients: that take part in a worker's round.
      samples: of a client.
    """

    clients: float = 1.0
    samples: float = 1.0


AS_THEY_ARE = Usual()

Choose = Callable[[int], np.ndarray]
"""``round -> clients that take part``, int64, ascending; a pure function."""


class Clients:
    """The clients behind one worker, K of them.

    In a round a client goes E times through its data. Each epoch is a fresh shuffle, cut into
    batches of b samples; the last one is shorter if b does not divide n_k, and counts the mean over
    its own samples (McMahan et al., 2017, Algorithm 1), so that τ_k = E ⌈n_k / b⌉. It is filled up
    to b with the first samples of the same epoch, which are computed (BatchNorm sees full batches
    of the client's own samples) and weigh nothing. The order depends on (seed, worker index,
    client, round) alone.

    Args:
      parts: positions of every client's samples among all samples, int (n_k,).
      batch_size: b.
      epochs: E.
      seed: of the run.
      worker_index: which worker.
      choose: who takes part in a round; None: all.

    Raises:
      ConfigError: E or b is less than one.
      DataError: there is no client, or one without samples.

    >>> clients = Clients([np.array([7, 8, 9])], batch_size=2, epochs=1, seed=0, worker_index=0)
    >>> batches = clients.batches(0, 0)
    >>> batches.shape, sorted(batches[batches >= 0].tolist()), int((batches < 0).sum())
    ((2, 2), [7, 8, 9], 1)
    """

    def __init__(
        self,
        parts: Sequence[np.ndarray],
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        worker_index: int,
        choose: Choose | None = None,
    ):
        if batch_size < 1:
            raise ConfigError("batch_size", batch_size, "use a batch of at least 1 sample")
        if epochs < 1:
            raise ConfigError("sync.epochs", epochs, "a client goes through its data at least once")
        empty = [number for number, part in enumerate(parts) if not len(part)]
        if empty or not parts:
            raise DataError(
                f"clients of worker {worker_index} without samples: {empty or 'all'}; use fewer "
                "devices (devices.count), a milder skew (device_partition.alpha or min_samples), "
                "or more data (data.train_samples, data.name)"
            )
        self.parts = [np.asarray(part, np.int32) for part in parts]
        self.sizes = np.array([len(part) for part in parts])
        self.batch_size, self.epochs = batch_size, epochs
        self.seed, self.worker_index = seed, worker_index
        self.choose = choose or (lambda _: np.arange(len(parts)))

    def __len__(self) -> int:
        return len(self.parts)

    def steps(self, client: int) -> int:
        """τ_k."""
        return self.epochs * -(-int(self.sizes[client]) // self.batch_size)

    @property
    def most_steps(self) -> int:
        """The largest τ_k of all clients."""
        return self.steps(int(np.argmax(self.sizes)))

    def batches(self, client: int, number: int) -> np.ndarray:
        """The batches of a client in round ``number``.

        Returns:
          int32 (τ_k, b): positions among all samples; of those that only fill up, −1 − position.
        """
        part, size = self.parts[client], self.batch_size
        draws = stream("clients", self.seed, self.worker_index, client, number)
        rows = -(-len(part) // size)
        made = np.empty((self.epochs, rows * size), np.int32)
        for epoch in made:
            epoch[: len(part)] = part[draws.permutation(len(part))]
            epoch[len(part) :] = ~np.resize(epoch[: len(part)], rows * size - len(part))
        return made.reshape(self.epochs * rows, size)
