"""The client of Flower's simulation: a module, so that its actors import it and keep what is in it.

What a ``ClientApp`` refers to by value is sent anew with every message; the compiled step and the
data are therefore made once in each actor, here.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from experiments.bench.peers.models import loss
from experiments.bench.peers.work import Work, flatten, load, shuffled, unflatten


@functools.cache
def _made(path: str) -> tuple[Work, Any, Any]:
    work = load(path)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(w, images, labels, positions):
        slope = jax.grad(functools.partial(loss, work.model))(
            w, images[positions], labels[positions]
        )
        return jax.tree.map(lambda a, b: a - work.lr * b, w, slope)

    data = [jax.device_put((x, y)) for x, y in zip(work.images, work.labels, strict=True)]
    return work, step, data


def train(path: str, client: int, start: np.ndarray, number: int) -> tuple[np.ndarray, int, int]:
    """The round of a client.

    Returns:
      Its model, its samples, and the steps it took.
    """
    work, step, data = _made(path)
    images, labels = data[client]
    draws = np.random.default_rng((client, number))
    w = jax.device_put(unflatten(work, start))
    batches = shuffled(len(labels), work.batch_size, work.epochs, draws)
    for positions in batches:
        w = step(w, images, labels, positions)
    return flatten(work, w), len(labels), len(batches)
