"""What a simulated run costs: ``python -m experiments.bench.simulator``.

Exchanges chunks of a synthetic model, sizes only, between many centers on a random WAN of degree
four, and prints the time per delivery: one chunk that one node has received from another. Every
round has 2 · (centers − 1) · chunks of them, whatever the overlay:

* ``tree``: trees of fastest paths along the WAN's links, as NetStorm lays them, from some roots;
* ``balanced``: one tree of the given fan-out over the centers in their order, wherever links are;
* ``star``: the first center merges for all.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import random
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import networkx
from rich.console import Console
from rich.table import Table

from experiments.bench import report
from geojax.config import OverlayConfig, RunConfig
from geojax.machine.collector import collect_seldom
from geojax.models.registry import MODELS, SyntheticConfig
from geojax.overlay.base import Overlay
from geojax.overlay.policy.policy import Policy, Tree
from geojax.overlay.registry import OVERLAYS
from geojax.overlay.view import NetworkView
from testbed.run import run

DEGREE = 4
RATES = (20, 155)  # Mbit/s, drawn for each link; the range of NetStorm's experiments
RTTS = (5, 100)  # ms
CHUNK_ELEMENTS = 65_536
CHUNK_BYTES = 4 * CHUNK_ELEMENTS
OVERLAY = "bench"


def random_links(centers: Sequence[str], seed: int) -> list[dict[str, object]]:
    """The links of a connected random WAN in which every center has four neighbours."""
    draw = random.Random(seed)
    while True:
        graph = networkx.random_regular_graph(DEGREE, len(centers), seed=draw.getrandbits(32))
        if networkx.is_connected(graph):
            break
    return [
        {
            "between": [centers[a], centers[b]],
            "rate": draw.uniform(*RATES),
            "rtt": draw.uniform(*RTTS),
        }
        for a, b in sorted(graph.edges)
    ]


def fastest_paths(view: NetworkView, members: Sequence[str], root: str) -> Tree:
    """The tree of fastest paths from every member to ``root`` along the links of the WAN."""
    graph = networkx.DiGraph()
    graph.add_weighted_edges_from((b, a, 1 / rate) for (a, b), rate in view.rate.items())
    paths = networkx.single_source_dijkstra_path(graph, root)
    return Tree(root, {member: paths[member][-2] for member in members if member != root})


def balanced(members: Sequence[str], fan_out: int) -> Tree:
    """The tree in which the parent of member i is member (i − 1) / fan-out."""
    parent = {members[i]: members[(i - 1) // fan_out] for i in range(1, len(members))}
    return Tree(members[0], parent)


def register(trees: Callable[[NetworkView, Sequence[str]], tuple[Tree, ...]]) -> None:
    """Makes ``trees`` of (view, members) the overlay that the bench's runs name."""

    def plan(
        view: NetworkView, members: Sequence[str], sizes: Sequence[int], version: int
    ) -> Policy:
        del sizes
        return Policy(version, tuple(members), trees(view, members))

    def build(config: OverlayConfig, centers: Sequence[str], sites: Sequence[str]) -> Overlay:
        del config, centers, sites
        return Overlay(OVERLAY, plan)

    OVERLAYS.register(OVERLAY)(build)


def configuration(options: argparse.Namespace) -> RunConfig:
    """The run that the command line asks for."""
    config = RunConfig(rounds=options.rounds, experiment="bench", seed=options.seed)
    names = [f"c{number}" for number in range(1, options.centers + 1)]
    config.wan.name = f"degree {DEGREE}"
    config.wan.centers, config.wan.links = names, random_links(names, options.seed)
    config.model = SyntheticConfig(bytes=options.chunks * CHUNK_BYTES, pace_s=0.1)
    config.compression.name = "size_only"
    config.overlay.name, config.overlay.chunk_elements = options.overlay, CHUNK_ELEMENTS
    config.testbed.name = "simulated"
    config.timeouts.round = config.timeouts.warn = 1e6  # s; rounds are long where all share
    if options.overlay == "balanced":
        register(lambda _, members: (balanced(members, options.fan_out),))
    elif options.overlay == "tree":
        register(
            lambda view, members: tuple(
                fastest_paths(view, members, root) for root in members[: options.roots]
            )
        )
    if options.overlay != "star":
        config.overlay.name = OVERLAY
    return config


def measure(config: RunConfig, profile: bool) -> Table:
    """Runs it and lays out the figures."""
    profiler = cProfile.Profile()
    started, started_cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        if profile:
            profiler.enable()
        summary = run(config, Path(folder))
        profiler.disable()
    wall, cpu = time.perf_counter() - started, time.process_time() - started_cpu
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
    centers = summary["centers"]
    chunks = MODELS.complete(config.model).bytes // CHUNK_BYTES
    deliveries = 2 * (centers - 1) * chunks * summary["rounds"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    title = f"{centers} centers, {summary['rounds']} rounds, {config.overlay.name}"
    table = report.empty_table(title, ("what", "figure"))
    for what, figure in (
        ("deliveries", f"{deliveries:,}"),
        ("wall time", f"{wall:.1f} s"),
        ("CPU time", f"{cpu:.1f} s"),
        ("per delivery", f"{wall / deliveries * 1e6:.1f} µs"),
        ("peak memory", f"{peak / 2**20:,.0f} MiB"),
        ("virtual time", f"{summary['time_s']:,.1f} s"),
        ("mean sync time", f"{summary['sync_s']['mean']:.3f} s"),
    ):
        table.add_row(what, figure)
    return table


def main() -> None:
    """Runs once and prints a table."""
    parser = report.parser("simulator", __doc__)
    parser.add_argument("--centers", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--chunks", type=int, default=100, help="of 65,536 elements each")
    parser.add_argument("--overlay", choices=("tree", "balanced", "star"), default="tree")
    parser.add_argument("--roots", type=int, default=4, help="of the trees of fastest paths")
    parser.add_argument("--fan-out", type=int, default=4, help="of the balanced tree")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", action="store_true", help="also where the time goes")
    options = parser.parse_args()
    collect_seldom()  # as every run does
    Console().print(measure(configuration(options), options.profile))


if __name__ == "__main__":
    main()
