"""``python -m testbed describe wan=NAME``: what a WAN is, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import networkx
from rich.console import Console
from rich.table import Table

from geojax.errors import GeojaxError
from geojax.overlay.routes import routes
from geojax.overlay.view import Edge, NetworkView
from testbed.dynamics import MBIT
from testbed.wan import Wan, build_wan
from testbed.wan_presets import parse_arguments

_CAPS = ("egress_mbit", "ingress_mbit")


def describe(wan: Wan) -> dict[str, Any]:
    """All that is known of a WAN at t = 0, JSON-ready; rates in Mbit/s, times in ms.

    ``min_cut_mbit`` is the smallest capacity over all ways to part the centers in two, in the
    worse direction, caps included: no exchange among all centers moves data across it faster.
    """
    view = wan.view()
    cut = _min_cut(view)
    return {
        "name": wan.name,
        "server_center": wan.server_center,
        "bandwidth_scale": wan.bandwidth_scale,
        "delay_scale": wan.delay_scale,
        "dynamics": wan.dynamics.summary(),
        "centers": [_center(wan, view, index) for index in range(len(wan.centers))],
        "links": [
            {
                "from": link.source,
                "to": link.target,
                "rate_mbit": _round(link.rate / MBIT),
                "delay_ms": _round(link.delay * 1e3),
            }
            for link in wan.links
        ],
        "min_cut_mbit": None if cut is None else _round(cut[0] / MBIT),
        "min_cut_from": None if cut is None else cut[1],
        "min_cut_to": None if cut is None else cut[2],
        "routes": _routes(view),
        "provenance": wan.provenance,
    }


def _round(value: float) -> float:
    """Six digits after the point: hides binary noise, keeps bit/s."""
    return round(value, 6)


def _center(wan: Wan, view: NetworkView, index: int) -> dict[str, Any]:
    center = wan.centers[index]
    out = [link.rate for link in wan.links if link.source == center.name]
    into = [link.rate for link in wan.links if link.target == center.name]
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


def _min_cut(view: NetworkView) -> tuple[float, list[str], list[str]] | None:
    """Capacity (bit/s) and the two sides of the smallest directed cut; None for one center.

    Every cut parts the first center from some other one, in one direction or the other, so
    2(N-1) flows find the smallest. Caps are edges between a center and its two access points.
    """
    if len(view.centers) < 2:
        return None
    graph = networkx.DiGraph()
    for center in view.centers:
        for edge, caps in (
            ((center, ("out", center)), view.egress),
            ((("in", center), center), view.ingress),
        ):
            graph.add_edge(*edge, **({"capacity": caps[center]} if center in caps else {}))
    for (source, target), rate in view.rate.items():
        graph.add_edge(("out", source), ("in", target), capacity=rate)
    first, *others = view.centers
    best: tuple[float, list[str], list[str]] | None = None
    for other in others:
        for ends in ((first, other), (other, first)):
            capacity, (near, far) = networkx.minimum_cut(graph, *ends)
            if best is None or capacity < best[0]:
                sides = [[c for c in view.centers if c in side] for side in (near, far)]
                best = capacity, sides[0], sides[1]
    return best


def render(description: Mapping[str, Any], console: Console) -> None:
    """Prints what :func:`describe` found as tables."""
    console.print(
        f"[bold]{description['name']}[/bold]: {_counted(description['centers'], 'center')}, "
        f"{_counted(description['links'], 'directed link')}, "
        f"scheduler in {description['server_center']}"
    )
    console.print(
        f"bandwidth_scale {description['bandwidth_scale']:g}, "
        f"delay_scale {description['delay_scale']:g}; {_dynamics(description['dynamics'])}"
    )
    console.print(_centers_table(description["centers"]))
    if description["links"]:
        console.print(_links_table(description["links"]))
        console.print(
            f"min-cut {description['min_cut_mbit']:g} Mbit/s: "
            f"{', '.join(description['min_cut_from'])} -> {', '.join(description['min_cut_to'])}"
        )
        console.print(_routes_table(description["routes"]))
    if description["provenance"] is not None:
        console.print(_provenance_table(description["provenance"]))


def _counted(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _dynamics(dynamics: Mapping[str, Any]) -> str:
    draw = dynamics["draw"]
    source = f"U{{{draw['low']}..{draw['high']}}} Mbit/s, seed {draw['seed']}" if draw else ""
    if dynamics["kind"] == "redraw":
        return f"rates redrawn every {dynamics['period_s']:g} s from {source}; shown: at t = 0"
    return f"rates constant, drawn once from {source}" if draw else "rates constant"


def _centers_table(centers: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="centers", title_justify="left")
    table.add_column("center")
    for head in ("workers", "LAN\nMbit/s", "LAN rtt\nms", "links\nout/in", "WAN Mbit/s\nout/in"):
        table.add_column(head, justify="right")
    if any(center[cap] is not None for center in centers for cap in _CAPS):
        table.add_column("caps Mbit/s\nout/in", justify="right")
    for center in centers:
        caps = ("-" if center[cap] is None else f"{center[cap]:g}" for cap in _CAPS)
        table.add_row(
            center["name"],
            str(center["workers"]),
            f"{center['lan_rate_mbit']:g}",
            f"{center['lan_rtt_ms']:g}",
            f"{center['out_degree']}/{center['in_degree']}",
            f"{center['out_mbit']:g}/{center['in_mbit']:g}",
            *(["/".join(caps)] if len(table.columns) > 6 else []),
        )
    return table


def _links_table(links: Sequence[Mapping[str, Any]]) -> Table:
    """One row per pair of centers, in the direction stated first, with the way back beside it."""
    table = Table(title="links", title_justify="left")
    table.add_column("link")
    for head in ("Mbit/s there", "Mbit/s back", "rtt ms"):
        table.add_column(head, justify="right")
    shown: set[Edge] = set()
    by_edge = {(link["from"], link["to"]): link for link in links}
    for (source, target), link in by_edge.items():
        if (target, source) in shown:
            continue
        shown.add((source, target))
        back = by_edge.get((target, source))
        if back is None:
            row = f"{link['rate_mbit']:g}", "no link", f"{link['delay_ms']:g} one way"
        else:
            rtt = link["delay_ms"] + back["delay_ms"]
            row = f"{link['rate_mbit']:g}", f"{back['rate_mbit']:g}", f"{rtt:g}"
        table.add_row(f"{source} - {target}", *row)
    return table


def _routes_table(listed: Sequence[Mapping[str, Any]]) -> Table:
    """Routes over several hops, one row per source; neighbours reach each other directly."""
    table = Table(title="routes over several hops (rtt ms)", title_justify="left")
    table.add_column("from")
    table.add_column("to, via")
    rows: dict[str, list[str]] = {}
    for route in listed:
        if len(route["path"]) > 2:
            via = " ".join(route["path"][1:-1])
            text = f"{route['to']} via {via} ({route['rtt_ms']:g})"
            rows.setdefault(route["from"], []).append(text)
    for source, texts in rows.items():
        table.add_row(source, "\n".join(texts))
    if not rows:
        table.add_row("all", "none: every pair of centers has a link")
    return table


def _provenance_table(provenance: Any) -> Table:
    table = Table(title="provenance", title_justify="left", show_header=False)
    entries = provenance if isinstance(provenance, Mapping) else {"source": provenance}
    for key, value in entries.items():
        nested = value.items() if isinstance(value, Mapping) else [("", value)]
        for name, text in nested:
            table.add_row(f"{key} {name}".strip(), str(text))
    return table


def main(argv: Sequence[str]) -> int:
    """Runs ``describe``; 0 when it could, 2 when a setting is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed describe", description="Show what a WAN is."
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="KEY=VALUE",
        help="wan=NAME or wan=FILE.yaml, then wan.KEY=VALUE, lan.KEY=VALUE, seed=N",
    )
    parser.add_argument("--format", choices=("rich", "json"), default="rich")
    options = parser.parse_intermixed_args(list(argv))
    try:
        description = describe(build_wan(*parse_arguments(options.settings)))
    except GeojaxError as error:
        print(error, file=sys.stderr)
        return 2
    if options.format == "json":
        print(json.dumps(description, indent=2))
    else:
        render(description, Console())
    return 0
