"""FedAvg written down directly in JAX: no library, nothing that could be left out.

``python -m experiments.bench.peers.plain ARCHIVE``; see :mod:`experiments.bench.peers.work`.
"""

from __future__ import annotations

import functools
import sys

import jax
import numpy as np

from experiments.bench.peers.models import loss
from experiments.bench.peers.work import (
    flatten,
    load,
    private_output,
    serve,
    shuffled,
    unflatten,
)


def main() -> None:
    """Serves rounds."""
    output = private_output()
    work = load(sys.argv[1])
    draws = np.random.default_rng(0)
    data = [jax.device_put((x, y)) for x, y in zip(work.images, work.labels, strict=True)]

    @functools.partial(jax.jit, donate_argnums=0)
    def step(w, images, labels, positions):
        slope = jax.grad(functools.partial(loss, work.model))(
            w, images[positions], labels[positions]
        )
        return jax.tree.map(lambda a, b: a - work.lr * b, w, slope)

    vector = work.vector

    def make_round() -> tuple[np.ndarray, int]:
        nonlocal vector
        start, total, steps = vector, np.zeros_like(vector), 0
        for images, labels in data:
            w = jax.device_put(unflatten(work, start))
            for positions in shuffled(len(labels), work.batch_size, work.epochs, draws):
                w = step(w, images, labels, positions)
                steps += 1
            total += flatten(work, w)
        vector = total / np.float32(len(data))
        return vector, steps

    serve(make_round, f"JAX {jax.__version__}, a call a batch", output, warm_ups=3)


if __name__ == "__main__":
    main()
