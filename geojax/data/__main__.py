"""The command line of the data: ``python -m geojax.data describe``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.measure import Measurement

from geojax.config import DataConfig, PartitionConfig
from geojax.data import (
    DATASETS,
    DEVICE_PARTITIONS,
    PARTITIONS,
    Dataset,
    deal_devices,
    load_dataset,
    partition,
)
from geojax.data.dataset import has_labels
from geojax.data.describe import class_shares, describe, describe_devices, devices_table, table
from geojax.data.writer_effect import writer_effect
from geojax.errors import ConfigError, GeojaxError
from geojax.settings import key_names

EXAMPLE = """examples:
  python -m geojax.data describe --data digits --partition dirichlet --alpha 0.3 \\
      --centers 3 --workers 2 --seed 0
  python -m geojax.data describe --data synth_femnist --partition by_writer --centers 10 \\
      --devices writers --writer-effect data.writers=100
"""
GROUPS = {"data": DATASETS, "partition": PARTITIONS, "device_partition": DEVICE_PARTITIONS}


def parser() -> argparse.ArgumentParser:
    """The arguments; defaults are those of a run."""
    data, split = DataConfig(), PartitionConfig()
    root = argparse.ArgumentParser(prog="python -m geojax.data", description="Data of geojax.")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = commands.add_parser(
        "describe",
        help="show which worker holds how much of what",
        description="Shows what a partition deals to every worker: samples, labels and skew;\n"
        "and with --devices what the devices behind a worker have of it.\n"
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
    add(
        "--devices",
        metavar="N",
        help="devices behind each worker, or 'writers': one a writer (default: none)",
    )
    add("--device-partition", metavar="NAME", help=_one_of(DEVICE_PARTITIONS, "iid, or by_writer"))
    add("--batch-size", type=int, default=1, metavar="N", help="a device must hold half of one")
    add("--classes", action="store_true", help="share of every class, of all training samples")
    add("--writer-effect", action="store_true", help="how alike a writer's digits are")
    add("settings", nargs="*", metavar="KEY=VALUE", help="more keys of data, partition, …")
    add("--centers", type=int, default=3, metavar="N", help="data centers (default 3)")
    add("--workers", type=int, default=1, metavar="N", help="workers per center (default 1)")
    add("--seed", type=int, default=0, help="the run's seed (default 0)")
    add("--format", choices=("rich", "json"), default="rich", help="table (default) or JSON")
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; 0 on success, 1 with the reason on stderr otherwise."""
    reader = parser()
    options, rest = reader.parse_known_args(arguments)
    wrong = [each for each in rest if each.startswith("-") or "=" not in each]
    if wrong:
        reader.error(f"unrecognized arguments: {' '.join(wrong)}")
    options.settings += rest  # argparse takes no second group of them between options
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
    more = _settings(options.settings)
    own = {"dirichlet": "alpha", "shards": "shards", "size_skew": "skew"}
    used = {key: getattr(options, key) for name, key in own.items() if name == options.partition}
    used |= more["partition"]
    split = PARTITIONS.settings(options.partition, **used)
    data = load_dataset(_data_settings(options, more["data"]))
    workers = [f"c{c + 1}/w{w}" for c in range(options.centers) for w in range(options.workers)]
    parts = partition(split, data.train_y, workers, options.seed, data.train_groups)
    labels, classes = data.train_y, data.classes
    if not has_labels(labels):  # then there are only sizes to show
        labels, classes = np.zeros(len(labels), np.int32), 1
    described = describe(parts, labels, classes)
    fleets = _fleets(options, more["device_partition"], parts, data)
    behind = describe_devices(fleets, labels, classes, data.train_groups) if fleets else []
    shares = class_shares(labels, classes) if options.classes else {}
    writers = _writers(data, effect=options.writer_effect)
    if options.format == "json":
        answer = {
            "data": data.name,
            "samples": len(data.train_y),
            "classes": classes,
            "partition": {"name": split.name, **used},
            "seed": options.seed,
            "workers": [part._asdict() for part in described],
        }
        answer |= {"devices": [fleet._asdict() for fleet in behind]} if behind else {}
        answer |= {"shares": shares} if shares else {}
        answer |= {"writers": writers} if writers else {}
        print(json.dumps(answer, indent=2))
        return
    shown = "".join(
        f", {key} {value:g}" if isinstance(value, int | float) else f", {key} {value}"
        for key, value in used.items()
    )
    views = [table(described, f"{data.name}: {split.name}{shown}, seed {options.seed}")]
    views += [devices_table(behind, "\ndevices behind each worker")] if behind else []
    console = Console()
    # numbers are never cut off: a table wider than the terminal wraps there
    widest = console.options.update(max_width=10_000)
    natural = max(Measurement.get(console, widest, view).maximum for view in views)
    console.width = max(console.width, natural)
    for view in views:
        console.print(view)
    if shares:
        text = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
        console.print(f"\nclass shares: {text}", highlight=False)
    if writers:
        text = ", ".join(
            f"{name} {value:g}" if isinstance(value, int) else f"{name} {value:.3f}"
            for name, value in writers.items()
        )
        console.print(f"\nwriters: {text}")


def _settings(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Keys by group, from arguments such as ``data.writers=100``; values as in JSON, or texts."""
    found: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for argument in given:
        path, equals, text = argument.partition("=")
        group, _, key = path.partition(".")
        if not equals or not key or group not in GROUPS:
            fix = f"write KEY=VALUE with a key of {', '.join(GROUPS)}, e.g. data.writers=100"
            raise ConfigError("settings", argument, fix)
        try:
            found[group][key] = json.loads(text)
        except ValueError:
            found[group][key] = text
    return found


def _data_settings(options: argparse.Namespace, more: Mapping[str, Any]) -> DataConfig:
    given = {"path": options.path, "download": not options.no_download}
    reads = key_names(DATASETS.schema(options.data))
    own = {key: value for key, value in given.items() if key in reads}
    keys = {"train_samples": options.train_samples, **own, **more}
    return DATASETS.settings(options.data, **keys)


def _fleets(
    options: argparse.Namespace,
    more: Mapping[str, Any],
    parts: Mapping[str, np.ndarray],
    data: Dataset,
) -> dict[str, list[np.ndarray]]:
    """The devices of every worker; none without --devices."""
    if options.devices is None:
        return {}
    by_writer = options.devices == "writers"
    if not by_writer and not options.devices.isdecimal():
        raise ConfigError("--devices", options.devices, "give a number, or 'writers'")
    name = options.device_partition or ("by_writer" if by_writer else "iid")
    split = DEVICE_PARTITIONS.settings(name, **more)
    count = None if by_writer else int(options.devices)
    return {
        worker: deal_devices(
            split, part, data.train_y, data.train_groups, count, options.seed,
            worker=index, batch_size=options.batch_size, name=worker,
        )
        for index, (worker, part) in enumerate(parts.items())
    }  # fmt: skip


def _writers(data: Dataset, *, effect: bool) -> dict[str, float]:
    """Their number, their samples, and with ``effect`` how alike a writer's digits are."""
    if data.train_groups is None:
        if effect:
            fix = f"data={data.name} does not say who wrote its samples"
            raise ConfigError("--writer-effect", True, fix)
        return {}
    sizes = np.unique(data.train_groups, return_counts=True)[1]
    answer: dict[str, float] = {"writers": len(sizes), "fewest samples": int(sizes.min())}
    answer |= {"mean": float(sizes.mean()), "deviation": float(sizes.std())}
    answer |= {"most": int(sizes.max())}
    if effect:
        found = writer_effect(data.train_x, data.train_y, data.train_groups)
        answer |= {"same": found.same, "different": found.different, "ratio": found.ratio}
    return answer


def _one_of(names: object, default: str) -> str:
    return f"{', '.join(names)} (default {default})"  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
