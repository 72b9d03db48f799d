"""Sync times of all overlays on one WAN: ``python -m experiments.bench.overlays``.

Simulated, sizes only: all centers offer a synthetic model at one instant, and the time until the
last of them holds the whole sum is what counts. By default the network has no delays and TCP takes
the whole rate, so that only routes and rates matter. Overlays with one root are run for each root;
the table has the best, the median and the worst. ``x bound``: mean over the seeds of the sync time
÷ the fluid optimum of the same draw (:mod:`geojax.overlay.bounds.bound`). ``x NetStorm``: the same
÷ NetStorm's time with all roots.

  ... --seeds 20                       twenty draws, seeds 0 to 19
  ... --seeds 3,5 --delay 20           these draws, 20 ms on every hop
  ... --chunk-elements 1000000         chunks of the published NetStorm
  ... --wan full_mesh --centers 9      another WAN
  ... --routes fewest_hops             as packets find their way, whatever the rates
  ... --rows star packing --jobs 2     some rows, in two processes
  ... --rounds 2 --delay 20            the second round: TCP's windows have grown
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context

from rich.table import Table

from experiments.bench import report
from geojax.config import OverlayConfig, RunConfig, WanConfig
from geojax.errors import ConfigError, nearest
from geojax.models.registry import SyntheticConfig
from geojax.overlay.bounds.bound import bounds
from geojax.overlay.planners.netstorm import NetstormConfig
from geojax.overlay.planners.ring import RingConfig
from geojax.overlay.registry import OVERLAYS
from geojax.telemetry.summary import sync_times
from testbed.play import play
from testbed.wan.build import build_wan, load_preset

REFERENCE = "netstorm, all roots"
ROOTED = ("star", "mlnet", "tsengine")  # run for every root
OTHERS = {
    "sharded star": OverlayConfig("sharded_star"),
    "butterfly": OverlayConfig("butterfly"),
    "ring, tsp": OverlayConfig("ring"),
    "ring, bottleneck": RingConfig(order="bottleneck"),
    "netstorm, 1 root": NetstormConfig(roots=1),
    "netstorm, 3 roots": NetstormConfig(roots=3),
    REFERENCE: OverlayConfig("netstorm"),
    "netstorm, delay weight": NetstormConfig(weight="delay"),
    "netstorm, auxiliary once": NetstormConfig(auxiliary="fastest", auxiliary_rule="once"),
    "netstorm, auxiliary": OverlayConfig("netstorm", auxiliary="fastest"),
    "netstorm, auxiliary paced": OverlayConfig("netstorm", auxiliary="paced"),
    "netstorm, auxiliary random": OverlayConfig("netstorm", auxiliary="random"),
    "packing": OverlayConfig("packing"),
}
ROWS = (*ROOTED, *OTHERS)
GRID_S = 600.0  # all begin their offers at a multiple of it; above every sync time
_BY_RANK: Mapping[str, Callable[[Sequence[float]], float]] = {
    "best": min,
    "median": statistics.median_low,
    "worst": max,
}


def wan_config(options: argparse.Namespace) -> WanConfig:
    """The WAN: a preset, with the delay of a hop and the number of centers that were asked for."""
    wan = load_preset(options.wan)
    if options.centers is not None:
        if wan.generator is None:
            raise ConfigError("--centers", options.centers, f"{options.wan} has its own centers")
        wan.centers = options.centers
    if options.delay is None:
        wan.delay_scale = options.delay_scale
        return wan
    rtt = 2 * options.delay
    wan.rtt = None if wan.links else rtt
    wan.links = [{**link, "rtt": rtt} for link in wan.links]
    return wan


def configuration(options: argparse.Namespace, overlay: OverlayConfig, seed: int) -> RunConfig:
    """One round of an overlay on one draw of the WAN."""
    config = RunConfig(rounds=options.rounds, experiment="bench", seed=seed)
    config.pace.grid_s = GRID_S if options.rounds > 1 else None
    config.wan = wan_config(options)
    config.model = SyntheticConfig(bytes=options.bytes, pace_s=0.1)
    config.compression.name = "size_only"
    config.overlay = overlay
    config.overlay.chunk_elements, config.overlay.routes = options.chunk_elements, options.routes
    config.testbed.name, config.testbed.goodput_factor = "simulated", options.goodput
    config.timeouts.round = config.timeouts.warn = 1e6  # s; rounds are long where all share
    config.hash_every = 10  # no digests in a single round
    return config


def sync_time(config: RunConfig) -> float:
    """Sync time of the last round, s."""
    return sync_times(play(config).events)[config.rounds - 1]


def measure(options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Sync time of every row on one draw, s."""

    def timed(overlay: OverlayConfig) -> float:
        return sync_time(configuration(options, overlay, seed))

    centers = build_wan(wan_config(options), RunConfig().lan, seed).center_names
    found = {}
    for name in options.rows:
        if name in OTHERS:
            found[name] = timed(replace(OTHERS[name]))
            continue
        times = [timed(OVERLAYS.settings(name, root=center)) for center in centers]
        for rank, choose in _BY_RANK.items():
            found[f"{name}, {rank} root"] = choose(times)
    return found


def optimum(options: argparse.Namespace, seed: int) -> float:
    """The fluid optimum on one draw, s."""
    config = configuration(options, OverlayConfig(), seed)
    view = build_wan(config.wan, config.lan, seed).view()
    return bounds(view, options.bytes).bound_s / options.goodput


def table(options: argparse.Namespace) -> Table:
    """Runs everything and lays out the means over the seeds."""
    if options.jobs == 1:
        found = [measure(options, seed) for seed in options.seeds]
    else:
        with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
            found = list(pool.map(partial(measure, options), options.seeds))
    optima = [optimum(options, seed) for seed in options.seeds]
    delay = f", {options.delay:g} ms a hop" if options.delay else ""
    delay += f", round {options.rounds}" if options.rounds > 1 else ""
    title = (
        f"{options.wan}{delay}, routes {options.routes}, {options.bytes / 1e6:g} MB in chunks of "
        f"{options.chunk_elements:,} elements, {len(options.seeds)} seeds"
    )
    compared = REFERENCE in options.rows
    columns = ("overlay", "sync time, s", "x bound", *(["x NetStorm"] if compared else []))
    laid = report.empty_table(title, columns)
    for name in found[0]:
        mean = statistics.fmean(times[name] for times in found)
        ratios = [times[name] / least for times, least in zip(found, optima, strict=True)]
        cells = [name, f"{mean:.2f}", f"{statistics.fmean(ratios):.2f}"]
        if compared:
            ratio = statistics.fmean(times[name] / times[REFERENCE] for times in found)
            cells.append(f"{ratio:.2f}")
        laid.add_row(*cells)
        if options.each:
            each = " ".join(f"{one:.2f}" for one in ratios)
            laid.add_row(f"  x bound by seed: {each}")
    return laid


def _seeds(text: str) -> list[int]:
    return [int(word) for word in text.split(",")] if "," in text else list(range(int(text)))


def _options(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = report.parser("overlays", __doc__)
    parser.add_argument(
        "--seeds", type=_seeds, default=[0, 1, 2], metavar="N|A,B,...",
        help="how many, from 0 on, or which; default: 3",
    )  # fmt: skip
    parser.add_argument("--wan", default="netstorm9_draw", help="a preset of conf/wan")
    parser.add_argument("--centers", type=int, help="of a WAN that is generated")
    parser.add_argument("--bytes", type=int, default=26_400_000, help="of the model")
    parser.add_argument("--chunk-elements", type=int, default=16_384)
    parser.add_argument(
        "--routes", choices=("fastest", "fewest_hops"), default="fastest",
        help="of edges between centers without a link",
    )  # fmt: skip
    delays = parser.add_mutually_exclusive_group()
    delays.add_argument("--delay", type=float, help="of every hop, one way, ms")
    delays.add_argument("--delay-scale", type=float, default=0.0, help="factor of the preset's")
    parser.add_argument(
        "--rounds", type=int, default=1, help="the last of so many counts; the first ones are cold"
    )
    parser.add_argument("--goodput", type=float, default=1.0, help="TCP payload ÷ link rate")
    parser.add_argument(
        "--rows", nargs="+", default=list(ROWS), metavar="ROW",
        help=f"which overlays: {'; '.join(ROWS)}",
    )  # fmt: skip
    parser.add_argument("--each", action="store_true", help="also tell every seed's figure")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each for some seeds")
    options = parser.parse_args(words)
    for name in options.rows:
        if name not in ROWS:
            raise ConfigError("--rows", name, nearest(name, ROWS))
    return options


def main() -> int:
    """Prints the table; returns 2 when an option is wrong."""
    return report.show(lambda: table(_options()), width=0)


if __name__ == "__main__":
    sys.exit(main())
