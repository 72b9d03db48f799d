"""How near overlays come to the optimum of a WAN: ``python -m experiments.bench.packing``.

For each seed it packs trees, times that, and simulates one synchronization of a synthetic model,
sizes only, along them and along other overlays: no delay, goodput 1, free host work, all centers
offer at one instant. What is left is the network, and the ratio of sync time to
:func:`geojax.overlay.bounds.bound.bounds` says how much of it an overlay uses. The certificate is
the proven share by which no packing is faster. Times are of the processor, in s of one core.

The WAN is named as for ``python -m testbed describe``: ``wan=netstorm9_draw``, or
``wan=random_sparse wan.centers=32 wan.degree=4``.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from experiments.bench import report
from geojax.config import OverlayConfig, RunConfig, WanConfig
from geojax.models.registry import SyntheticConfig
from geojax.overlay.bounds.bound import BOUND_WORK, bounds
from geojax.overlay.planners.columns import pack
from geojax.overlay.planners.effort import Effort
from geojax.overlay.planners.packing import PACKING_SHARE
from geojax.overlay.registry import OVERLAYS, PackingConfig, build_overlay
from geojax.overlay.routes.shared_links import shared_links
from geojax.overlay.view import NetworkView
from testbed.run import run
from testbed.wan.build import build_wan
from testbed.wan.describe import MODEL_BYTES
from testbed.wan.presets import parse_arguments

CHUNK_ELEMENTS = 16_384
_FREE_GBPS = 1e9  # host work that takes no time
_NEVER_S = 1e9  # no heartbeat takes part in what is measured


class Plan(NamedTuple):
    """What planning gave and took.

    Attributes:
      bound_s: the fluid optimum by linear program, s; for large WANs the packing's certificate.
      bound_took_s: to find it.
      certificate: limit ÷ value - 1 of the packing; at most so much is left.
      masters: that the packing took.
      packed_s: to find the packing.
      trees: of the policy.
      planned_s: to find the policy, the packing included.
    """

    bound_s: float
    bound_took_s: float
    certificate: float
    masters: int
    packed_s: float
    trees: int
    planned_s: float


def planned(view: NetworkView, nbytes: int, chunk_elements: int, overlay: OverlayConfig) -> Plan:
    """Plans the packing of a WAN."""
    marks = [time.process_time()]

    def lap() -> float:
        marks.append(time.process_time())
        return marks[-1] - marks[-2]

    work = len(view.centers) * len(view.rate)
    bound_s = math.nan if work > BOUND_WORK else bounds(view, nbytes).bound_s
    bound_took = lap()
    settings = OVERLAYS.complete(overlay)
    effort = Effort(PACKING_SHARE * settings.effort)
    packed = pack(shared_links(view, view.centers), gap=settings.gap, effort=effort)
    packed_s = lap()
    if math.isnan(bound_s):
        bound_s = 8.0 * nbytes / packed.limit
    elements = nbytes // 4
    sizes = [min(chunk_elements, elements - start) for start in range(0, elements, chunk_elements)]
    policy = build_overlay(overlay, view.centers).plan(view, view.centers, sizes, 0)
    trees = len(policy.trees)
    return Plan(bound_s, bound_took, packed.gap, packed.masters, packed_s, trees, lap())


def sync_time(
    wan: WanConfig, seed: int, overlay: OverlayConfig, nbytes: int, chunk_elements: int
) -> float:
    """Simulates one synchronization; its time in s."""
    config = RunConfig(rounds=1, experiment="bench", seed=seed, wan=wan, overlay=overlay)
    config.wan.delay_scale = 0.0
    config.overlay.chunk_elements = chunk_elements
    config.model = SyntheticConfig(bytes=nbytes, pace_s=0.01)
    config.compression.name = "size_only"
    config.testbed.name, config.testbed.goodput_factor = "simulated", 1.0
    config.pace.encode_gbps = config.pace.sum_gbps = config.pace.outer_gbps = _FREE_GBPS
    timeouts = config.timeouts
    timeouts.heartbeat = timeouts.dead = timeouts.round = timeouts.warn = _NEVER_S
    with tempfile.TemporaryDirectory() as folder:
        return run(config, Path(folder))["sync_s"]["mean"]


def measure(options: argparse.Namespace) -> Table:
    """One row per seed, then the means."""
    names = [name for name in options.overlays.split(",") if name]
    packing = PackingConfig(
        max_trees=options.max_trees, gap=options.gap, effort=options.effort
    )  # fmt: skip
    rows: list[tuple[Plan, list[float]]] = []
    title = ""
    for seed in range(options.seeds):
        wan, lan, _ = parse_arguments(options.settings)
        view = build_wan(wan, lan, seed).view()
        plan = planned(view, options.bytes, options.chunk_elements, packing)
        ratios = []
        for name in names:
            overlay = replace(packing) if name == "packing" else OVERLAYS.settings(name)
            took = sync_time(wan, seed, overlay, options.bytes, options.chunk_elements)
            ratios.append(took / plan.bound_s)
        rows.append((plan, ratios))
        title = (
            f"{wan.name}: {len(view.centers)} centers, {len(view.rate)} links; "
            f"{options.bytes:,} bytes in chunks of {options.chunk_elements:,} elements"
        )
    return _table(title, names, rows)


def _table(title: str, names: Sequence[str], rows: Sequence[tuple[Plan, list[float]]]) -> Table:
    heads = (
        "seed", "bound s", "found in s", "certificate", "masters", "packed in s", "trees",
        "planned in s",
    )  # fmt: skip
    heads = (*heads, *(f"{name}\n÷ bound" for name in names))
    table = report.empty_table(title, heads, words=0)
    means = [statistics.fmean(column) for column in zip(*(plan for plan, _ in rows), strict=True)]
    ratios = [statistics.fmean(column) for column in zip(*(more for _, more in rows), strict=True)]
    for seed, (plan, more) in [*enumerate(rows), ("mean", (Plan(*means), ratios))]:  # type: ignore[arg-type]
        if seed == "mean":
            table.add_section()
        table.add_row(
            str(seed), f"{plan.bound_s:.3f}", f"{plan.bound_took_s:.2f}",
            f"{plan.certificate:.1e}", f"{plan.masters:g}", f"{plan.packed_s:.2f}",
            f"{plan.trees:g}", f"{plan.planned_s:.2f}", *(f"{ratio:.3f}" for ratio in more),
        )  # fmt: skip
    return table


def main() -> int:
    """Measures and prints a table."""
    parser = report.parser("packing", __doc__)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="the WAN")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--bytes", type=int, default=MODEL_BYTES, help="of the model")
    parser.add_argument("--chunk-elements", type=int, default=CHUNK_ELEMENTS)
    parser.add_argument("--max-trees", type=int, default=None)
    parser.add_argument("--gap", type=float, default=PackingConfig().gap)
    parser.add_argument("--effort", type=float, default=PackingConfig().effort)
    parser.add_argument(
        "--overlays",
        default="packing,sharded_star",
        help=f"of {', '.join(OVERLAYS)}; none: only plan",
    )
    options = parser.parse_intermixed_args()
    options.overlays = options.overlays if options.overlays != "none" else ""
    if not options.settings:
        options.settings = ["wan=netstorm9_draw"]
    return report.show(lambda: measure(options), width=160)


if __name__ == "__main__":
    sys.exit(main())
