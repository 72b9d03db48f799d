"""Flower's simulation: its FedAvg strategy, its engine on Ray, one actor for each core.

``python -m experiments.bench.peers.flower_rounds ARCHIVE``; see
:mod:`experiments.bench.peers.work`. Clients compute with JAX, on the same functions as the other
peers and in the quickest way that we know (:mod:`experiments.bench.peers.flower_client`), so what
differs is Flower. There is no evaluation, and logging is off.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}

import numpy as np
from flwr.app import (  # pyright: ignore[reportMissingImports]
    ArrayRecord,
    ConfigRecord,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp  # pyright: ignore[reportMissingImports]
from flwr.serverapp import ServerApp  # pyright: ignore[reportMissingImports]
from flwr.serverapp.strategy import FedAvg  # pyright: ignore[reportMissingImports]
from flwr.simulation import run_simulation  # pyright: ignore[reportMissingImports]

from experiments.bench.peers.work import Work, load, private_output, serve


def client_app(path: str) -> ClientApp:
    """Clients by their partition."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        from experiments.bench.peers import flower_client

        client = int(context.node_config["partition-id"])
        (start,) = message.content["arrays"].to_numpy_ndarrays()
        number = int(message.content["config"]["server-round"])
        trained, samples, steps = flower_client.train(path, client, start, number)
        metrics = MetricRecord({"num-examples": samples, "steps": steps})
        content = RecordDict({"arrays": ArrayRecord([trained]), "metrics": metrics})
        return Message(content=content, reply_to=message)

    return app


def server_app(work: Work, output) -> ServerApp:
    """A server that makes a round when it is told to."""
    app = ServerApp()

    @app.main()
    def main(grid, context) -> None:
        del context
        clients = len(work.labels)
        strategy = FedAvg(
            fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients,
            train_metrics_aggr_fn=_steps,
        )  # fmt: skip
        arrays, number = ArrayRecord([work.vector]), 0

        def make_round() -> tuple[np.ndarray, int]:
            nonlocal arrays, number
            number += 1
            # The body of Strategy.start, which makes a fixed number of rounds without a break.
            asked = strategy.configure_train(number, arrays, ConfigRecord(), grid)
            replies = grid.send_and_receive(messages=asked, timeout=600.0)
            merged, metrics = strategy.aggregate_train(number, replies)
            if merged is None or metrics is None:
                raise RuntimeError("Flower's clients have failed")
            arrays = merged
            return arrays.to_numpy_ndarrays()[0], int(metrics["steps"])

        version = {name: importlib.metadata.version(name) for name in ("flwr", "ray", "jax")}
        words = (
            f"Flower {version['flwr']}, Ray {version['ray']}, {_cores()} actors, "
            f"JAX {version['jax']}"
        )
        serve(make_round, words, output, warm_ups=6)

    return app


def _steps(contents, weighted_by_key: str) -> MetricRecord:
    del weighted_by_key
    return MetricRecord({"steps": sum(int(each["metrics"]["steps"]) for each in contents)})


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def main() -> None:
    """Serves rounds."""
    output = private_output()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    path = os.path.abspath(sys.argv[1])
    work = load(path)
    backend = {
        "client_resources": {"num_cpus": 1},
        "init_args": {
            "num_cpus": _cores(), "include_dashboard": False, "log_to_driver": False,
            "logging_level": "error",
        },
    }  # fmt: skip
    run_simulation(server_app(work, output), client_app(path), len(work.labels),
                   backend_config=backend)  # fmt: skip


if __name__ == "__main__":
    main()
