"""What devices cost beside the samples they train: ``python -m experiments.bench.fleet``.

Several base stations with a fleet each, in one process, as a simulated run has them. A row is one
selection. Figures are CPU time of this process, per step of one base station:

* ``choose``: class counts and the selection;
* ``stream``: the chosen devices go on to their next batches;
* ``gather``: the samples of the union batch are put together;
* ``train``: the step on them;
* ``overhead``: the first three ÷ the fourth.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from experiments.bench import report
from geojax.axes import change
from geojax.center.trainer import build_trainer
from geojax.config import PartitionConfig, RunConfig
from geojax.data.dataset import Dataset, load_dataset
from geojax.data.dealing import deal_devices, partition
from geojax.devices.fleet import Fleet
from geojax.devices.super_node import SuperNode
from geojax.selection.registry import build_selection
from geojax.selection.target import target_of

SELECTIONS = {
    "random": {"selection": "random"},
    "gbp_cs": {"selection": "gbp_cs"},
    "gbp_cs, exact swap": {"selection": "gbp_cs", "selection.swap": "exact"},
}


class Cost(NamedTuple):
    """CPU time of a step of one base station, s."""

    choose: float
    stream: float
    gather: float
    train: float

    @property
    def overhead(self) -> float:
        """What devices cost, as a share of training on their samples."""
        return (self.choose + self.stream + self.gather) / self.train


def configuration(options: argparse.Namespace, settings: dict[str, Any]) -> RunConfig:
    """The run whose steps are measured."""
    return change(
        RunConfig(),
        {
            "model": options.model, "data": options.data, "batch_size": options.batch_size,
            "data.train_samples": options.samples, "devices.count": options.devices,
            **settings, "selection.devices": options.chosen,
        },
    )  # fmt: skip


def super_nodes(config: RunConfig, data: Dataset, centers: int) -> list[SuperNode]:
    """A fleet for each base station; data is dealt evenly."""
    names = [f"c{number}" for number in range(centers)]
    parts = partition(PartitionConfig("iid"), data.train_y, names, config.seed)
    selection, target = build_selection(config.selection), target_of(data.train_y, data.classes)
    nodes, count = [], int(config.devices.count)
    for index, mine in enumerate(parts.values()):
        dealt = deal_devices(
            PartitionConfig("by_class"), mine, data.train_y, None, count, config.seed,
            worker=index, batch_size=config.batch_size,
        )  # fmt: skip
        fleet = Fleet(
            data.train_y, dealt, batch_size=config.batch_size, classes=data.classes,
            seed=config.seed, first=index * count,
        )  # fmt: skip
        nodes.append(SuperNode(fleet, selection, target, seed=config.seed, worker_index=index))
    return nodes


def measure(config: RunConfig, centers: int, steps: int) -> Cost:
    """The mean over ``steps`` steps of every base station, after one that is not counted."""
    data = load_dataset(config.data)
    nodes = super_nodes(config, data, centers)
    union = nodes[0].batch_size
    trainer = build_trainer(
        change(config, {"batch_size": union}), features=data.train_x[:union],
        labels=data.train_y[:union], worker_index=0, worker_count=1,
    )  # fmt: skip
    spent = np.zeros(4)
    for step in range(1 + steps):
        for node in nodes:
            found = np.zeros(4)
            _, found[0] = _timed(lambda node=node: node.chosen)
            positions, found[1] = _timed(lambda node=node: node(node.step))
            _, found[2] = _timed(lambda at=positions: (data.train_x[at], data.train_y[at]))
            _, found[3] = _timed(trainer.step)
            spent += found if step else 0
    return Cost(*(spent / (steps * centers)).tolist())


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    return work(), time.process_time() - start


def table(options: argparse.Namespace) -> Table:
    """One row a selection."""
    title = (
        f"{options.centers} base stations of {options.devices} devices, {options.chosen} chosen, "
        f"batches of {options.batch_size}, {options.model} on {options.data}"
    )
    heads = ["selection", "choose (ms)", "stream (ms)", "gather (ms)", "train (ms)", "overhead"]
    made = report.empty_table(title, heads)
    for name, settings in SELECTIONS.items():
        cost = measure(configuration(options, settings), options.centers, options.steps)
        made.add_row(name, *(f"{1e3 * each:.2f}" for each in cost), f"{cost.overhead:.1%}")
    return made


def options_of(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = report.parser("fleet", __doc__)
    parser.add_argument("--model", default="demo_cnn")
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--samples", type=int, default=24_000, help="of the training set")
    parser.add_argument("--centers", type=int, default=10, help="base stations")
    parser.add_argument("--devices", type=int, default=36, help="of each")
    parser.add_argument("--chosen", type=int, default=10, help="devices of a step")
    parser.add_argument("--batch-size", type=int, default=32, help="of a device")
    parser.add_argument("--steps", type=int, default=3, help="of each base station")
    return parser.parse_args(words)


def main(words: list[str]) -> int:
    """The command; returns its exit code."""
    options = options_of(words)
    return report.show(lambda: table(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
