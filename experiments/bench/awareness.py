"""What measuring costs against knowing: ``python -m experiments.bench.awareness``.

Simulated, sizes only. Plans follow the true rates, measured ones, or those measured without probes,
on the same WAN. All of its rates are drawn again once, in the middle of the run. A row is one
overlay and one source of rates. Figures are sync times ÷ the oracle's, mean over the seeds.

* ``1``, ``2``, …: of the round of that number since the start, against the oracle's same round;
* ``settled``: of the mean from the 11th round on;
* ``to 10 %``: rounds until one takes at most 10 % more than the oracle's settled ones, after the
  start and after the redraw; the largest of all seeds;
* ``probes``: their share of all bytes;
* ``error``: mean error of the view over time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any, NamedTuple

from rich.table import Table

from experiments.bench import report
from geojax.config import RunConfig
from geojax.models.registry import SyntheticConfig
from geojax.overlay.registry import OVERLAYS
from geojax.telemetry.summary import sync_times
from geojax.wire.message import DATA_KINDS, Kind
from testbed.figures.view_error import view_error
from testbed.play import play
from testbed.wan.build import load_preset

SOURCES = {  # of the rates that plans go by
    "oracle": {"awareness": "oracle"},
    "measured": {"awareness": "measured"},
    "measured, no probes": {"awareness": "measured", "probe_after": 0},
}
SETTLED = 10  # rounds after which a plan should fit
SHOWN = (0, 1, 2, 4, 9)  # rounds that have a column
NEAR = 1.1  # times the oracle's
NEVER = float("inf")


class Outcome(NamedTuple):
    """One run.

    Attributes:
      spells: sync times of the rounds before the redraw, and of those after it, s.
      probes: their share of all data bytes.
      error: mean error of the view over time.
    """

    spells: tuple[list[float], list[float]]
    probes: float
    error: float


def configuration(options: argparse.Namespace, overlay: str, source: str, seed: int) -> RunConfig:
    """One run over two draws of the WAN."""
    config = RunConfig(rounds=1_000_000, experiment="bench", seed=seed)
    config.max_time_s = 2 * options.period
    config.wan = load_preset(options.wan)
    low, high = options.rates
    config.wan.draw = None
    config.wan.dynamics = {
        "kind": "redraw", "period_s": options.period, "low": low, "high": high,
    }  # fmt: skip
    config.model = SyntheticConfig(bytes=options.bytes, pace_s=0.1)
    config.compression.name = "size_only"
    settings = {"chunk_elements": options.chunk_elements, **SOURCES[source]}
    config.overlay = OVERLAYS.settings(overlay, **settings)
    config.testbed.name = "simulated"
    config.hash_every = 1_000_000  # no digests
    return config


def measure(config: RunConfig) -> Outcome:
    """Runs it."""
    _, wan, events, reports = play(config)
    kinds = dict.fromkeys(DATA_KINDS, 0)
    for node in reports.values():
        for counters in node["sent"].values():
            for kind in kinds:
                kinds[kind] += counters["bytes"].get(str(int(kind)), 0)
    found = view_error(wan.view(), events, config.testbed.goodput_factor)
    error = found.get("view_error", {"mean": 0.0})["mean"]
    assert config.max_time_s is not None
    spells = _spells(events, config.max_time_s / 2)
    return Outcome(spells, kinds[Kind.PROBE] / sum(kinds.values()), error)


def _spells(events: list[dict[str, Any]], period: float) -> tuple[list[float], list[float]]:
    """Sync times of the rounds that lie within each of the two draws."""
    began: dict[int, float] = {}
    ended: dict[int, float] = {}
    for event in events:
        if event["event"] == "round":
            number = event["round"]
            began[number] = min(began.get(number, event["offered"]), event["offered"])
            ended[number] = max(ended.get(number, 0.0), event["held"])
    spells: tuple[list[float], list[float]] = [], []
    for number, sync in sync_times(events).items():
        spell = int(began[number] // period)
        if spell < 2 and ended[number] <= (spell + 1) * period:
            spells[spell].append(sync)
    return spells


def rounds_to_near(rounds: list[float], reference: float) -> float:
    """Number of the first round that takes at most ``NEAR`` times the reference.

    >>> rounds_to_near([3.0, 2.0, 1.05, 1.0], 1.0)
    3
    """
    near = (number for number, sync in enumerate(rounds, 1) if sync <= NEAR * reference)
    return next(near, NEVER)


def settled(rounds: list[float]) -> float:
    """Mean sync time from the 11th round on, s."""
    return statistics.fmean(rounds[SETTLED:])


def table(options: argparse.Namespace) -> Table:
    """Runs everything and lays it out."""
    title = (
        f"{options.wan}, {options.bytes / 1e6:g} MB in chunks of {options.chunk_elements:,} "
        f"elements, redrawn after {options.period:g} s, {len(options.seeds)} seeds"
    )
    columns = [
        "overlay", "rates", *(str(number + 1) for number in SHOWN), "settled", "settled, redrawn",
        "to 10 %", "to 10 %, redrawn", "probes", "error",
    ]  # fmt: skip
    laid = report.empty_table(title, columns, words=2)
    for overlay in options.overlays:
        found = {
            source: [measure(configuration(options, overlay, source, s)) for s in options.seeds]
            for source in SOURCES
        }
        for source, outcomes in found.items():
            laid.add_row(overlay, source, *_figures(outcomes, found["oracle"]))
    return laid


def _figures(outcomes: list[Outcome], oracle: list[Outcome]) -> list[str]:
    """The cells of one row."""
    pairs = list(zip(outcomes, oracle, strict=True))

    def mean(spell: int, number: int) -> float:
        return statistics.fmean(
            one.spells[spell][number] / best.spells[spell][number] for one, best in pairs
        )

    cells = [f"{mean(0, number):.2f}" for number in SHOWN]
    for spell in (0, 1):
        ratios = (settled(one.spells[spell]) / settled(best.spells[spell]) for one, best in pairs)
        cells.append(f"{statistics.fmean(ratios):.2f}")
    for spell in (0, 1):
        rounds = (rounds_to_near(a.spells[spell], settled(b.spells[spell])) for a, b in pairs)
        cells.append(f"{max(rounds):.0f}")
    probes = statistics.fmean(one.probes for one in outcomes)
    error = statistics.fmean(one.error for one in outcomes)
    return [*cells, f"{probes:.2%}", f"{error:.1%}"]


def main() -> int:
    """Prints the table."""
    parser = report.parser("awareness", __doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--overlays", nargs="+", default=["netstorm", "packing"])
    parser.add_argument("--wan", default="netstorm9_draw", help="a preset of conf/wan")
    parser.add_argument(
        "--rates", type=int, nargs=2, default=[20, 155], help="the draws' least and most, Mbit/s"
    )
    parser.add_argument("--bytes", type=int, default=26_400_000, help="of the model")
    parser.add_argument("--chunk-elements", type=int, default=16_384)
    parser.add_argument(
        "--period", type=float, default=180.0, help="s until the redraw; for 20 rounds at least"
    )
    options = parser.parse_args()
    return report.show(lambda: table(options), width=160)


if __name__ == "__main__":
    sys.exit(main())
