"""The work that a peer is given, and how it is told to do it; needs NumPy alone.

A peer is a script that is started with the path of an archive (:class:`Work`), warms up, and then
answers every line on its standard input with one line of JSON, see :func:`serve`. It runs in a
Python that may know nothing of geojax.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

import numpy as np

PREFIX = "peer: "  # of the lines that are answers; libraries print others


class Work(NamedTuple):
    """Rounds of FedAvg with plain SGD: every client takes part in each.

    Attributes:
      model: name of one of :data:`experiments.bench.peers.models.MODELS`.
      names: of the arrays of its parameters, in the order of ``vector``.
      shapes: of these arrays.
      vector: float32 (P,), where the first round begins.
      images: float32 (K, n, 28, 28, 1), by client.
      labels: int32 (K, n).
      batch_size: b.
      epochs: E, each a fresh shuffle.
      lr: of the clients.
    """

    model: str
    names: list[str]
    shapes: list[list[int]]
    vector: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    batch_size: int
    epochs: int
    lr: float

    @property
    def steps(self) -> int:
        """Client steps (batches) of one round."""
        clients, samples = self.labels.shape
        return clients * self.epochs * -(-samples // self.batch_size)

    def save(self, path: str) -> None:
        """Writes the archive."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        arrays = {name: getattr(self, name) for name in ("vector", "images", "labels")}
        np.savez(path, plain=np.array(json.dumps(plain)), **arrays)


_PLAIN = ("model", "names", "shapes", "batch_size", "epochs", "lr")


def load(path: str) -> Work:
    """Reads the archive."""
    with np.load(path) as stored:
        plain = json.loads(str(stored["plain"]))
        return Work(vector=stored["vector"], images=stored["images"], labels=stored["labels"],
                    **plain)  # fmt: skip


def unflatten(work: Work, vector: Any) -> dict[str, Any]:
    """The arrays by name."""
    made, at = {}, 0
    for name, shape in zip(work.names, work.shapes, strict=True):
        size = int(np.prod(shape))
        made[name] = vector[at : at + size].reshape(shape)
        at += size
    return made


def flatten(work: Work, arrays: dict[str, Any]) -> np.ndarray:
    """The inverse of :func:`unflatten`, on the host."""
    return np.concatenate([np.asarray(arrays[name]).ravel() for name in work.names])


def shuffled(samples: int, batch_size: int, epochs: int, draws: np.random.Generator) -> np.ndarray:
    """Positions of each batch, (E n / b, b); b divides n."""
    order = [draws.permutation(samples) for _ in range(epochs)]
    return np.concatenate(order).astype(np.int32).reshape(-1, batch_size)


def private_output() -> TextIO:
    """A stream to whoever started us; what else is printed goes to standard error from now on."""
    stream = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return stream


def serve(
    make_round: Callable[[], tuple[np.ndarray, int]], words: str, output: TextIO, *, warm_ups: int
) -> None:
    """Answers: once warm, then after every line (a number of rounds) on standard input.

    The first answer holds ``words`` and the first round's result, each other one the seconds that
    the rounds took and the client steps that were taken in them, as the clients counted.

    Args:
      make_round: one round from where the last one ended; its result (P,) on the host and the
        client steps taken.
      words: what this is.
      output: where to.
      warm_ups: rounds that are not counted, at least one.
    """
    first = make_round()[0]
    for _ in range(1, warm_ups):
        make_round()
    _say(output, words=words, first=first.tolist())
    for line in sys.stdin:
        steps, start = 0, time.perf_counter()
        for _ in range(int(line)):
            steps += make_round()[1]
        _say(output, seconds=time.perf_counter() - start, steps=steps)


def _say(output: TextIO, **answer: Any) -> None:
    output.write(f"{PREFIX}{json.dumps(answer)}\n")
