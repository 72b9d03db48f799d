"""FedJAX's FedAvg: ``fedjax.algorithms.fed_avg`` on its jit backend, the default on one device.

``python -m experiments.bench.peers.fedjax_rounds ARCHIVE``; see
:mod:`experiments.bench.peers.work`. The algorithm is FedJAX's own, of the release; clients are its
``ClientDataset``; the model is a plain function, which it takes as well as one of Haiku.

The release (0.0.17) calls ``jax.tree_map``, which JAX has dropped after 0.4.25; with a younger JAX
that name is put back.
"""

from __future__ import annotations

import functools
import importlib.metadata
import sys

import jax
import numpy as np

if not hasattr(jax, "tree_map"):
    jax.tree_map = jax.tree.map  # pyright: ignore[reportAttributeAccessIssue]

import fedjax  # pyright: ignore[reportMissingImports]
from fedjax.algorithms import fed_avg  # pyright: ignore[reportMissingImports]

from experiments.bench.peers.models import loss
from experiments.bench.peers.work import flatten, load, private_output, serve, unflatten


def main() -> None:
    """Serves rounds."""
    output = private_output()
    work = load(sys.argv[1])
    fedjax.set_for_each_client_backend("jit")

    def gradient(params, batch, rng):
        del rng
        return jax.grad(functools.partial(loss, work.model))(params, batch["x"], batch["y"])

    batches = fedjax.ShuffleRepeatBatchHParams(batch_size=work.batch_size, num_epochs=work.epochs)
    algorithm = fed_avg.federated_averaging(
        gradient, fedjax.optimizers.sgd(work.lr), fedjax.optimizers.sgd(1.0), batches
    )
    clients = [
        fedjax.ClientDataset({"x": x, "y": y})
        for x, y in zip(work.images, work.labels, strict=True)
    ]
    keys = list(jax.random.split(jax.random.PRNGKey(0), len(clients)))
    given = [(str(n), each, key) for n, (each, key) in enumerate(zip(clients, keys, strict=True))]
    state = algorithm.init(jax.device_put(unflatten(work, work.vector)))

    def make_round() -> tuple[np.ndarray, int]:
        nonlocal state
        state, _ = algorithm.apply(state, given)
        return flatten(work, state.params), work.steps

    version = importlib.metadata.version("fedjax")
    words = f"FedJAX {version}, jit backend, JAX {jax.__version__}"
    serve(make_round, words, output, warm_ups=3)


if __name__ == "__main__":
    main()
