"""``python -m testbed describe wan=NAME``: what a WAN is, as a table, as JSON, as a picture."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console

from geojax import fields
from geojax.errors import ConfigError, GeojaxError, telling_of_machine
from geojax.overlay.bounds.bound import BOUND_WORK, Bounds, bounds
from geojax.overlay.bounds.cut import min_cut
from geojax.overlay.routes.static_routes import routes
from geojax.overlay.view import NetworkView
from testbed.wan.build import Center, Link, Wan, build_wan
from testbed.wan.dynamics import MBIT, record, write_csv
from testbed.wan.presets import parse_arguments
from testbed.wan.tables import render

ROUTES_CENTERS = 64  # routes of larger WANs are left out: there is one for every pair
CUT_WORK = 20_000_000  # largest number of flows x links for which the min-cut is sought
MODEL_BYTES = 26_414_840  # LEAF's CNN (FEMNIST): 6,603,710 parameters in float32


def describe(wan: Wan, nbytes: int = MODEL_BYTES) -> dict[str, Any]:
    """All that is known of a WAN at t = 0, JSON-ready; rates in Mbit/s, times in ms.

    ``min_cut_mbit`` is the smallest capacity over all divisions of the centers in two, in the worse
    direction, caps included: no exchange among all centers moves data across it faster.
    ``*bound_s`` are the bounds (s) of one synchronization of ``nbytes`` among all centers, see
    :func:`geojax.overlay.bounds.bound.bounds`; ``bound_s`` is the largest. What
    would take too long is None, with the reason under ``left_out``.
    """
    view = wan.view()
    left_out: dict[str, str] = {}
    cut = None
    if 2 * len(view.centers) * len(view.rate) > CUT_WORK:
        left_out["min_cut"] = (
            f"{len(view.centers)} centers and {len(view.rate)} links need "
            f"{2 * len(view.centers) - 2} maximum flows, minutes of work"
        )
    else:
        cut = min_cut(view)
    if len(view.centers) * len(view.rate) > BOUND_WORK:
        limits = Bounds(*[math.inf] * 5)
        left_out["bounds"] = (
            f"a linear program of {len(view.centers)} centers and {len(view.rate)} links takes "
            "minutes"
        )
    else:
        limits = bounds(view, nbytes)
    listed = None
    if len(view.centers) > ROUTES_CENTERS:
        left_out["routes"] = f"{len(view.centers)} centers; at most {ROUTES_CENTERS} are listed"
    else:
        listed = _routes(view)
    return {
        "name": wan.name,
        "server_center": wan.server_center,
        "bandwidth_scale": wan.bandwidth_scale,
        "delay_scale": wan.delay_scale,
        "dynamics": wan.dynamics.summary(),
        "centers": _centers(wan, view),
        "links": [_link(link) for link in wan.links],
        "min_cut_mbit": None if cut is None else _round(cut.rate / MBIT),
        "min_cut_from": None if cut is None else list(cut.near),
        "min_cut_to": None if cut is None else list(cut.far),
        "bytes": nbytes,
        "bound_s": _time(limits.bound_s),
        "cut_bound_s": _time(limits.cut_s),
        "node_bound_s": _time(limits.node_s),
        "volume_bound_s": _time(limits.volume_s),
        "fluid_bound_s": _time(limits.fluid_s),
        "latency_bound_s": _time(limits.latency_s),
        "routes": listed,
        "left_out": left_out,
        "provenance": wan.provenance,
    }


def _round(value: float) -> float:
    """Six digits after the point: hides binary noise, keeps bit/s."""
    return round(value, 6)


def _time(seconds: float) -> float | None:
    """None where it is not known, or without end."""
    return _round(seconds) if math.isfinite(seconds) else None


def _link(link: Link) -> dict[str, Any]:
    return {
        "from": link.source,
        "to": link.target,
        "rate_mbit": _round(link.rate / MBIT),
        "delay_ms": _round(link.delay * 1e3),
        "jitter_ms": _round(link.jitter * 1e3),
        "jitter_distribution": link.jitter_distribution,
        "loss": link.loss,
        "estimated": dict(link.estimated),
    }


def _centers(wan: Wan, view: NetworkView) -> list[dict[str, Any]]:
    out: dict[str, list[float]] = {center.name: [] for center in wan.centers}
    into: dict[str, list[float]] = {center.name: [] for center in wan.centers}
    for link in wan.links:
        out[link.source].append(link.rate)
        into[link.target].append(link.rate)
    return [_center(c, view, out[c.name], into[c.name]) for c in wan.centers]


def _center(
    center: Center, view: NetworkView, out: Sequence[float], into: Sequence[float]
) -> dict[str, Any]:
    return {
        "name": center.name,
        "workers": center.workers,
        "lan_rate_mbit": _round(center.lan_rate / MBIT),
        "lan_rtt_ms": _round(2 * center.lan_delay * 1e3),
        "egress_mbit": None if center.egress is None else _round(center.egress / MBIT),
        "ingress_mbit": None if center.ingress is None else _round(center.ingress / MBIT),
        "out_degree": len(out),
        "in_degree": len(into),
        "out_mbit": _round(min(sum(out), view.egress.get(center.name, sum(out))) / MBIT),
        "in_mbit": _round(min(sum(into), view.ingress.get(center.name, sum(into))) / MBIT),
        "position": None if center.position is None else list(center.position),
        "estimated": dict(center.estimated),
    }


def _routes(view: NetworkView) -> list[dict[str, Any]]:
    paths = routes(view)

    def delay(path: Sequence[str]) -> float:
        return sum(view.delay[hop] for hop in pairwise(path))

    return [
        {
            "from": source,
            "to": target,
            "path": list(path),
            "rtt_ms": _round((delay(path) + delay(paths[target, source])) * 1e3),
        }
        for (source, target), path in paths.items()
    ]


def main(argv: Sequence[str]) -> int:
    """Runs ``describe``; 0 when it could, 2 when a setting is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed describe", description="Show what a WAN is."
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="KEY=VALUE",
        help="wan=NAME or wan=FILE (yaml, json, csv), then wan.KEY=VALUE, lan.KEY=VALUE, seed=N"
        ", plugins=[…]",
    )
    parser.add_argument("--format", choices=("rich", "json"), default="rich")
    parser.add_argument(
        "--bytes",
        type=int,
        default=MODEL_BYTES,
        metavar="N",
        help=f"size of the model whose bounds are shown ({MODEL_BYTES}: LEAF's CNN)",
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw it (png, svg, pdf)")
    parser.add_argument(
        "--trace", type=Path, metavar="FILE.csv", help="write its rates over time as a CSV trace"
    )
    parser.add_argument(
        "--until", type=float, default=600.0, metavar="S", help="end of the trace (600 s)"
    )
    options = parser.parse_intermixed_args(list(argv))
    try:
        wan = build_wan(*parse_arguments(options.settings))
        if options.bytes < 1:
            raise ConfigError("--bytes", options.bytes, "give the bytes of a model, 1 or more")
        description = describe(wan, options.bytes)
        with telling_of_machine():
            written = [*_draw(wan, description, options.picture), *_record(wan, options)]
    except GeojaxError as error:
        print(error, file=sys.stderr)
        return 2
    if options.format == "json":
        print(json.dumps(description, indent=2))
    else:
        render(description, Console())
    for path in written:
        print(f"written: {path}", file=sys.stderr)
    return 0


def _draw(wan: Wan, description: dict[str, Any], path: Path | None) -> list[Path]:
    if path is None:
        return []
    os.environ["MPLBACKEND"] = "agg"  # the user's may need a display, which nothing here does
    from testbed.wan.picture import draw  # matplotlib only where something is drawn

    cut = description["min_cut_mbit"]
    note = "widths in proportion to rates (Mbit/s)"
    draw(wan, path, note if cut is None else f"{note}; min-cut {cut:g} Mbit/s")
    return [path]


def _record(wan: Wan, options: argparse.Namespace) -> list[Path]:
    if options.trace is None:
        return []
    until = fields.number("--until", options.until, "the end of the trace in seconds")
    if not options.trace.parent.is_dir():
        fix = f"there is no folder {options.trace.parent}"
        raise ConfigError("--trace", str(options.trace), fix)
    rates = {link.edge: link.rate for link in wan.links}
    write_csv(options.trace, record(rates, wan.changes(), until))
    return [options.trace]
