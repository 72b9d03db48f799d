"""What P3 gains: ``python -m experiments.bench.p3`` (as root, for ``--testbed emulated``).

Trains models layer by layer over two centers that are joined by one link, without and with P3, one
after the other, and prints how long a round took beside what it should take: T_serial, when all
computing is followed by all communication, and T_ideal, below which no order of sending can get
(:mod:`experiments.bench.p3_schedule`). The gain is (T_serial - T_measured) / (T_serial - T_ideal):
the share of what overlap can save that P3 saved. The last column is the share of a center's sending
during which it also computed, from the traces of the two runs.

The link's rate in T_serial and T_ideal is what TCP gets of it: configured when simulated, measured
when emulated. Chunks must be small, since a chunk that is being sent is not overtaken. In real time
a round also has to do what the schedules leave out, and a model must compute as fast as its pace.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from experiments.bench import report
from experiments.bench.overlap import overlap_share
from experiments.bench.p3_schedule import Hop, gain, ideal_round, serial_round, stage_times
from geojax.center.pace import step_seconds
from geojax.center.stages import build_stages
from geojax.config import ModelConfig, RunConfig, WanConfig
from geojax.errors import ConfigError, nearest
from geojax.models.registry import SyntheticConfig
from testbed.run import check, run

LEAF = "c2"  # the center that does not merge: its chunks cross the link in both directions
MODELS = {
    "synthetic": SyntheticConfig(bytes=4_000_000, stages=8, pace_s=0.4),
    "demo_cnn": ModelConfig("demo_cnn"),
    "leaf_cnn": ModelConfig("leaf_cnn"),
}


class Measured(NamedTuple):
    """One run.

    Attributes:
      round_s: mean time of a round after the first ones.
      overlap: share of the sending during which the center also computed.
      goodput: share of the link's rate that TCP gets.
      violations: share of the steps that were slower than their pace.
    """

    round_s: float
    overlap: float
    goodput: float
    violations: float


def config_of(options: argparse.Namespace, model: str, *, p3: bool) -> RunConfig:
    """One run."""
    config = RunConfig(rounds=options.rounds, batch_size=options.batch_size, events="chunk")
    config.model = replace(MODELS[model])
    if options.pace is not None:
        config.model.pace_s = options.pace
    config.wan = WanConfig(
        name="uniform", generator="uniform", centers=2, rate=options.rate, rtt=options.rtt
    )
    config.overlay.chunk_elements = options.chunk_elements
    config.sync.p3 = p3
    config.testbed.name = options.testbed
    config.data.train_samples, config.data.test_samples = options.samples, 100
    config.eval_every_s = 1e6  # only at the end
    config.experiment = "bench_p3"
    return config


def measure(config: RunConfig, skip: int) -> Measured:
    """Runs it; a round's time is from one round's last result to the next one's, at the leaf."""
    with tempfile.TemporaryDirectory(prefix="geojax-bench-") as name:
        folder = Path(name)
        summary = run(config, folder)
        lines = (folder / "events.jsonl").read_text().splitlines()
        trace: dict[str, Any] = json.loads((folder / "trace.json").read_text())
    events = [json.loads(line) for line in lines]
    held = {
        event["round"]: event["held"]
        for event in events
        if event["event"] == "round" and event["node"] == LEAF
    }
    last = max(held)
    return Measured(
        (held[last] - held[skip]) / (last - skip),
        overlap_share(trace, LEAF),
        summary["goodput_factor"],
        summary["pace_violations"] / summary["steps"],
    )


def bounds(config: RunConfig, goodput: float) -> tuple[float, float]:
    """T_serial and T_ideal of the leaf center, s."""
    wan = config.wan
    assert wan.rate is not None
    assert wan.rtt is not None
    link = Hop(wan.rate * goodput * 1e6 / 8, wan.rtt / 2e3)
    stages = stage_times(build_stages(config), step_seconds(config, LEAF))
    line, chunk = (link, link), 4.0 * config.overlay.chunk_elements
    return serial_round(stages, line, chunk), ideal_round(stages, line, chunk)


def compare(options: argparse.Namespace) -> Table:
    """Runs all models without and with P3 and lays their figures side by side."""
    models = options.models.split(",")
    for model in models:
        if model not in MODELS:
            raise ConfigError("--models", model, nearest(model, MODELS))
        check(config_of(options, model, p3=True))
    if not 0 <= options.skip < options.rounds - 1:
        raise ConfigError("--skip", options.skip, f"write 0 to {options.rounds - 2}")
    title = (
        f"2 centers, {options.rate:g} Mbit/s, {options.rtt:g} ms, {options.testbed}; "
        f"{options.rounds} rounds, the first {options.skip + 1} left out; chunks of "
        f"{options.chunk_elements:,} elements"
    )
    columns = ("model", "T_serial", "T_ideal", "without", "with P3", "gain", "overlap", "late")
    table = report.empty_table(title, columns)
    for model in models:
        plain, p3 = (
            measure(config_of(options, model, p3=each), options.skip) for each in (False, True)
        )
        serial, ideal = bounds(config_of(options, model, p3=True), (plain.goodput + p3.goodput) / 2)
        table.add_row(
            model, f"{serial:.3f} s", f"{ideal:.3f} s", f"{plain.round_s:.3f} s",
            f"{p3.round_s:.3f} s", f"{gain(serial, p3.round_s, ideal):.2f}",
            f"{plain.overlap:.0%} → {p3.overlap:.0%}",
            f"{plain.violations:.0%} → {p3.violations:.0%}",
        )  # fmt: skip
    table.caption = "late: steps slower than their pace"
    return table


def main() -> int:
    """Runs once and prints a table."""
    parser = report.parser("p3", __doc__)
    parser.add_argument("--testbed", default="simulated", choices=("simulated", "emulated"))
    parser.add_argument("--models", default=",".join(MODELS), help="some of them, with commas")
    parser.add_argument("--rate", type=float, default=100.0, help="Mbit/s of the link")
    parser.add_argument("--rtt", type=float, default=20.0, help="ms")
    parser.add_argument("--chunk-elements", type=int, default=4096)
    parser.add_argument("--pace", type=float, help="s of one step; by default the model's own")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--samples", type=int, default=1000, help="to train with")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--skip", type=int, default=3, help="number of the first round's end")
    options = parser.parse_args()
    return report.show(lambda: compare(options))


if __name__ == "__main__":
    sys.exit(main())
