"""Sync times of all overlays on one WAN: ``python -m experiments.bench.overlays``.

Simulated, sizes only: all centers offer a synthetic model at one instant, and the time until the
last of them holds the whole sum is what counts. By default the network has no delays and TCP takes
the whole rate, so that only routes and rates matter. Overlays with one root are run for each root;
the table has the best, the median and the worst. ``x bound``: mean over the seeds of the sync time
÷ the fluid optimum of the same draw (:mod:`geojax.overlay.bound`). ``x NetStorm``: the same ÷
NetStorm's time with all roots.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from geojax.config import OverlayConfig, RunConfig
from geojax.overlay.bound import bounds
from geojax.telemetry.summary import sync_times
from testbed.run import prepare
from testbed.simulated.run import simulate
from testbed.wan import build_wan, load_preset

REFERENCE = "netstorm, all roots"
ROOTED = ("star", "mlnet", "tsengine")  # run for every root
OTHERS = {
    "sharded star": OverlayConfig("sharded_star"),
    "butterfly": OverlayConfig("butterfly"),
    "ring, tsp": OverlayConfig("ring"),
    "ring, bottleneck": OverlayConfig("ring", order="bottleneck"),
    "netstorm, 1 root": OverlayConfig("netstorm", roots=1),
    "netstorm, 3 roots": OverlayConfig("netstorm", roots=3),
    REFERENCE: OverlayConfig("netstorm"),
    "netstorm, auxiliary": OverlayConfig("netstorm", auxiliary="fastest"),
    "netstorm, auxiliary paced": OverlayConfig("netstorm", auxiliary="paced"),
    "netstorm, auxiliary random": OverlayConfig("netstorm", auxiliary="random"),
    "packing": OverlayConfig("packing"),
}
_BY_RANK: Mapping[str, Callable[[Sequence[float]], float]] = {
    "best": min,
    "median": statistics.median_low,
    "worst": max,
}


def configuration(options: argparse.Namespace, overlay: OverlayConfig, seed: int) -> RunConfig:
    """One round of an overlay on one draw of the WAN."""
    config = RunConfig(rounds=1, experiment="bench", seed=seed)
    config.wan = load_preset(options.wan)
    config.wan.delay_scale = options.delay_scale
    config.model.name, config.model.bytes, config.model.pace_s = "synthetic", options.bytes, 0.1
    config.compression.name = "size_only"
    config.overlay = overlay
    config.overlay.chunk_elements = options.chunk_elements
    config.testbed.name, config.testbed.goodput_factor = "simulated", options.goodput
    config.timeouts.round = config.timeouts.warn = 1e6  # s; rounds are long where all share
    config.hash_every = 10  # no digests in a single round
    return config


def sync_time(config: RunConfig) -> float:
    """Sync time of the round, s."""
    events: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        setup, wan, faults = prepare(config, Path(folder))
        setup.models.mkdir()
        simulate(setup, wan, faults, events.append)
    return sync_times(events)[0]


def measure(options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Sync time of every row on one draw, s."""

    def timed(overlay: OverlayConfig) -> float:
        return sync_time(configuration(options, overlay, seed))

    centers = build_wan(load_preset(options.wan), RunConfig().lan, seed).center_names
    found = {}
    wanted = options.rows or [*ROOTED, *OTHERS]
    for name in filter(wanted.__contains__, ROOTED):
        times = [timed(OverlayConfig(name, root=center)) for center in centers]
        for rank, choose in _BY_RANK.items():
            found[f"{name}, {rank} root"] = choose(times)
    others = {name: overlay for name, overlay in OTHERS.items() if name in {*wanted, REFERENCE}}
    return found | {name: timed(overlay) for name, overlay in others.items()}


def optimum(options: argparse.Namespace, seed: int) -> float:
    """The fluid optimum on one draw, s."""
    config = configuration(options, OverlayConfig(), seed)
    view = build_wan(config.wan, config.lan, seed).view()
    return bounds(view, options.bytes).bound_s / options.goodput


def table(options: argparse.Namespace) -> Table:
    """Runs everything and lays out the means over the seeds."""
    found = [measure(options, seed) for seed in options.seeds]
    optima = [optimum(options, seed) for seed in options.seeds]
    title = (
        f"{options.wan}, {options.bytes / 1e6:g} MB in chunks of {options.chunk_elements:,} "
        f"elements, {len(options.seeds)} seeds"
    )
    laid = Table(title=title)
    for column in ("overlay", "sync time, s", "x bound", "x NetStorm"):
        laid.add_column(column, justify="left" if column == "overlay" else "right")
    for name in found[0]:
        mean = statistics.fmean(times[name] for times in found)
        ratio = statistics.fmean(times[name] / times[REFERENCE] for times in found)
        to_bound = statistics.fmean(
            times[name] / least for times, least in zip(found, optima, strict=True)
        )
        laid.add_row(name, f"{mean:.2f}", f"{to_bound:.2f}", f"{ratio:.2f}")
        if options.each:
            pairs = zip(found, optima, strict=True)
            each = " ".join(f"{times[name] / least:.2f}" for times, least in pairs)
            laid.add_row(f"  x bound by seed: {each}")
    return laid


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m experiments.bench.overlays",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=[*ROOTED, *OTHERS], help="NetStorm and these")
    parser.add_argument("--each", action="store_true", help="also tell every seed's figure")
    parser.add_argument("--wan", default="netstorm9_draw", help="a preset of conf/wan")
    parser.add_argument("--bytes", type=int, default=26_400_000, help="of the model")
    parser.add_argument("--chunk-elements", type=int, default=16_384)
    parser.add_argument("--delay-scale", type=float, default=0.0, help="factor of the delays")
    parser.add_argument("--goodput", type=float, default=1.0, help="TCP payload ÷ link rate")
    Console().print(table(parser.parse_args()))


if __name__ == "__main__":
    main()
