"""The command line of the data: ``python -m geojax.data describe``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.measure import Measurement

from geojax.config import DataConfig, PartitionConfig
from geojax.data import DATASETS, PARTITIONS, load_dataset, partition
from geojax.data.dataset import has_labels
from geojax.data.describe import describe, table
from geojax.errors import ConfigError, GeojaxError
from geojax.settings import key_names

EXAMPLE = """example:
  python -m geojax.data describe --data digits --partition dirichlet --alpha 0.3 \\
      --centers 3 --workers 2 --seed 0
"""


def parser() -> argparse.ArgumentParser:
    """The arguments; defaults are those of a run."""
    data, split = DataConfig(), PartitionConfig()
    root = argparse.ArgumentParser(prog="python -m geojax.data", description="Data of geojax.")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = commands.add_parser(
        "describe",
        help="show which worker holds how much of what",
        description="Shows what a partition deals to every worker: samples, labels and skew.\n"
        "A run with the same settings and seed uses exactly this partition.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_argument
    add("--data", default=data.name, metavar="NAME", help=_one_of(DATASETS, data.name))
    add("--path", metavar="PATH", help="the data's file, or a folder to look in first")
    add("--train-samples", type=int, metavar="N", help="use only N training samples")
    add("--no-download", action="store_true", help="do not fetch data that is not here")
    add("--partition", default=split.name, metavar="NAME", help=_one_of(PARTITIONS, split.name))
    add(
        "--alpha",
        type=float,
        default=0.5,
        help="dirichlet: smaller is more skewed",
    )
    add(
        "--shards",
        type=int,
        default=2,
        help="shards: label-sorted pieces per worker",
    )
    add(
        "--skew",
        type=float,
        default=2.0,
        help="size_skew: largest part / smallest part",
    )
    add("--centers", type=int, default=3, metavar="N", help="data centers (default 3)")
    add("--workers", type=int, default=1, metavar="N", help="workers per center (default 1)")
    add("--seed", type=int, default=0, help="the run's seed (default 0)")
    add("--format", choices=("rich", "json"), default="rich", help="table (default) or JSON")
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; 0 on success, 1 with the reason on stderr otherwise."""
    options = parser().parse_args(arguments)
    try:
        _describe(options)
    except GeojaxError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


def _describe(options: argparse.Namespace) -> None:
    for key in ("centers", "workers"):
        if (value := getattr(options, key)) < 1:
            raise ConfigError(f"--{key}", value, "use at least 1")
    own = {"dirichlet": "alpha", "shards": "shards", "size_skew": "skew"}
    used = {key: getattr(options, key) for name, key in own.items() if name == options.partition}
    split = PARTITIONS.settings(options.partition, **used)
    given = {"path": options.path, "download": not options.no_download}
    reads = key_names(DATASETS.schema(options.data))
    data = load_dataset(
        DATASETS.settings(
            options.data,
            train_samples=options.train_samples,
            **{key: value for key, value in given.items() if key in reads},
        )
    )
    workers = [f"c{c + 1}/w{w}" for c in range(options.centers) for w in range(options.workers)]
    parts = partition(split, data.train_y, workers, options.seed)
    labels, classes = data.train_y, data.classes
    if not has_labels(labels):  # then there are only sizes to show
        labels, classes = np.zeros(len(labels), np.int32), 1
    described = describe(parts, labels, classes)
    if options.format == "json":
        answer = {
            "data": data.name,
            "samples": len(data.train_y),
            "classes": classes,
            "partition": {"name": split.name, **used},
            "seed": options.seed,
            "workers": [part._asdict() for part in described],
        }
        print(json.dumps(answer, indent=2))
        return
    shown = "".join(f", {key} {value:g}" for key, value in used.items())
    view = table(described, f"{data.name}: {split.name}{shown}, seed {options.seed}")
    console = Console()
    # numbers are never cut off: a table wider than the terminal wraps there
    natural = Measurement.get(console, console.options.update(max_width=10_000), view).maximum
    console.width = max(console.width, natural)
    console.print(view)


def _one_of(names: object, default: str) -> str:
    return f"{', '.join(names)} (default {default})"  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
