"""How fast clients train: ``python -m experiments.bench.federated``.

One round of FedAvg by the clients of one base station, on random images of 28 × 28 × 1, by every
execution of :mod:`geojax.federated.training.execution`: client steps (batches) and samples a
second, of the best of several rounds after one that compiles. ``--devices`` makes several CPU
devices, which ``pmap`` spreads clients over.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from rich.table import Table

from experiments.bench import report
from geojax.axes import change
from geojax.config import RunConfig
from geojax.errors import ConfigError, nearest
from geojax.federated import build as federated
from geojax.federated.clients import Clients
from geojax.federated.registry import FEDERATED
from geojax.sync.registry import build_sync

EXECUTIONS = ("loop", "scan", "vmap", "pmap")
MODELS = ("mlp", "demo_cnn")


def config_of(options: argparse.Namespace, model: str) -> RunConfig:
    """A run of these clients."""
    config = RunConfig(batch_size=options.batch_size, lr=0.01)
    if options.sync not in FEDERATED:
        fix = f"has no clients; {nearest(options.sync, FEDERATED)}"
        raise ConfigError("--sync", options.sync, fix)
    settings = {"model": model, "data": "fashion_mnist", "sync": options.sync}
    change(config, {**settings, "sync.epochs": options.epochs})
    config.testbed.devices = options.devices
    return config


def round_of(config: RunConfig, execution: str, clients: int, samples: int) -> tuple[
    Callable[[], None], int
]:  # fmt: skip
    """A function that makes one round, and the client steps of it."""
    from geojax.federated.training.trainer import FederatedTrainer, build_programs

    rule = build_sync(config.sync).client
    assert rule is not None
    rule = rule._replace(execution=execution)
    draws = np.random.default_rng(0)
    count = clients * samples
    images = draws.random((count, 28, 28, 1), np.float32)
    labels = draws.integers(0, 10, count).astype(np.int32)
    data = federated.place(config, images, labels)
    model = federated.build_model(config, rule)

    from geojax.center.devices import local_devices

    local = local_devices()
    programs = build_programs(config, model, rule, local if execution == "pmap" else local[:1])
    parts = np.array_split(np.arange(count), clients)
    made = Clients(parts, batch_size=config.batch_size, epochs=rule.epochs, seed=0, worker_index=0)
    start = model.initial(0)
    trainer = FederatedTrainer(programs, rule, made, data, start, lr=config.lr)
    trainer.warm_up()
    return trainer.step, sum(made.steps(client) for client in range(clients))


def seconds_of(make_round: Callable[[], None], rounds: int) -> float:
    """The best of so many rounds, after one that is not counted, s."""
    make_round()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        make_round()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(options: argparse.Namespace) -> Table:
    """Measures every execution of every model."""
    chosen: Sequence[str] = options.executions.split(",")
    for name in chosen:
        if name not in EXECUTIONS:
            raise ConfigError("--executions", name, nearest(name, EXECUTIONS))
    title = (
        f"{options.sync}: {options.clients} clients of {options.samples} samples, batches of "
        f"{options.batch_size}, E = {options.epochs}; best of {options.rounds} rounds"
    )
    columns = ("model", "execution", "", "client steps/s", "samples/s", "µs a client step")
    table = report.empty_table(title, columns, words=3)
    for model in options.models.split(","):
        rates: dict[str, float] = {}
        steps = 0
        for name in chosen:
            config = config_of(options, model)
            if name == "pmap" and options.devices < 2 and not _accelerators():
                continue
            make_round, steps = round_of(config, name, options.clients, options.samples)
            rates[name] = steps / seconds_of(make_round, options.rounds)
        per_step = options.clients * options.samples * options.epochs / max(steps, 1)
        default = _default()
        for name, rate in rates.items():
            words = [
                *["default"] * (name == default), *["fastest"] * (rate == max(rates.values()))
            ]  # fmt: skip
            table.add_row(
                model, name, ", ".join(words), f"{rate:,.0f}", f"{rate * per_step:,.0f}",
                f"{1e6 / rate:,.0f}",
            )  # fmt: skip
    return table


def _default() -> str:
    from geojax.center.devices import local_devices
    from geojax.federated.training.execution import execution_of

    return execution_of("auto", local_devices()[0].platform)


def _accelerators() -> bool:
    import jax

    return jax.default_backend() != "cpu"


def main() -> int:
    """Measures and prints a table."""
    parser = report.parser("federated", __doc__)
    parser.add_argument("--models", default=",".join(MODELS), help="some models, with commas")
    parser.add_argument("--executions", default=",".join(EXECUTIONS), help="some of them")
    parser.add_argument("--sync", default="fedavg", help="the algorithm")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--samples", type=int, default=200, help="of each client")
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="of which the best counts")
    parser.add_argument("--devices", type=int, default=1, help="CPU devices, for pmap")
    options = parser.parse_args()
    return report.show(lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
