"""DGT on lossy links: ``python -m experiments.bench.dgt`` (as root, for ``--testbed emulated``).

Trains the demo CNN on part of Fashion-MNIST over a full mesh of equal, lossy links, once for each
compression, one after the other on the same WAN, and prints the sync times and the accuracies side
by side: dense FSA, DGT with late blocks over TCP, and DGT with late blocks as datagrams.

What is pulled is dense, and pulls begin while later chunks are still pushed. So the more chunks a
model has, the more the pulls alone decide how long a round lasts, and the less DGT can take off it:
a model of one chunk is where it gains most. ``--chunk-elements`` sets their size.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.table import Table

from experiments.bench import report
from geojax.compression.dgt import DgtConfig
from geojax.config import CompressionConfig, RunConfig, WanConfig
from testbed.run import check, run


def variants(k: float) -> dict[str, CompressionConfig]:
    """What is compared."""
    return {
        "dense": CompressionConfig(),
        f"DGT, tcp, k = {k:g}": DgtConfig(k=k),
        f"DGT, udp, k = {k:g}": DgtConfig(k=k, channel="udp"),
        f"DGT, udp, k = {k:g}, last": DgtConfig(k=k, channel="udp", lost="last"),
    }


def config_of(options: argparse.Namespace, compression: CompressionConfig, seed: int) -> RunConfig:
    """One run."""
    config = RunConfig(compression=compression, seed=seed, rounds=options.rounds, lr=options.lr)
    config.wan = WanConfig(
        name="uniform", generator="uniform", centers=options.centers,
        rate=options.rate, rtt=options.rtt, loss=options.loss,
    )  # fmt: skip
    config.overlay.chunk_elements = options.chunk_elements
    config.testbed.name = options.testbed
    config.testbed.congestion_control = options.congestion_control
    config.model.name, config.data.name = options.model, options.data
    config.data.train_samples = options.samples
    config.model.pace_s = options.pace
    config.experiment = "bench_dgt"
    return config


def measure(config: RunConfig) -> dict[str, Any]:
    """The summary of one run."""
    with tempfile.TemporaryDirectory(prefix="geojax-bench-") as folder:
        return run(config, Path(folder))


def compare(options: argparse.Namespace) -> Table:
    """Runs all of them and lays their figures side by side."""
    title = (
        f"{options.centers} centers, {options.rate:g} Mbit/s, {options.rtt:g} ms, "
        f"{options.loss:.1%} loss, {options.congestion_control}, {options.testbed}; "
        f"{options.model}, {options.rounds} rounds"
    )
    columns = ("compression", "seed", "sync p50", "sync p95", "dense ÷ it", "accuracy", "WAN MB")
    table = report.empty_table(title, columns)
    for compression in variants(options.k).values():
        check(config_of(options, compression, 0))  # all of them, before the first one starts
    for seed in range(options.seeds):
        dense: float | None = None
        for name, compression in variants(options.k).items():
            found = measure(config_of(options, compression, seed))
            sync = found["sync_s"]
            dense = sync["p95"] if dense is None else dense
            accuracy = found.get("final_accuracy")  # absent: a synthetic model
            table.add_row(
                name, str(seed), f"{sync['p50']:.3f} s", f"{sync['p95']:.3f} s",
                f"{dense / sync['p95']:.2f}", "" if accuracy is None else f"{accuracy:.3f}",
                f"{found['wan_bytes'] / 1e6:.1f}",
            )  # fmt: skip
    return table


def main() -> int:
    """Runs once and prints a table."""
    parser = report.parser("dgt", __doc__)
    parser.add_argument("--testbed", default="emulated", help="emulated, simulated or local")
    parser.add_argument("--centers", type=int, default=3)
    parser.add_argument("--rate", type=float, default=20.0, help="Mbit/s of every link")
    parser.add_argument("--rtt", type=float, default=40.0, help="ms")
    parser.add_argument("--loss", type=float, default=0.01, help="share of packets")
    parser.add_argument("--congestion-control", default="cubic")
    parser.add_argument("--k", type=float, default=0.8)
    parser.add_argument("--model", default="demo_cnn")
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--chunk-elements", type=int, default=65_536)
    parser.add_argument("--samples", type=int, default=6000, help="to train with")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--pace", type=float, default=0.2, help="s of one local step")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    return report.show(lambda: compare(options))


if __name__ == "__main__":
    sys.exit(main())
