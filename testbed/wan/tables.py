"""A WAN's description as tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from geojax.overlay.view import Edge

TABLE_CENTERS = 64  # centers and links of larger WANs are only counted
_CAPS = ("egress_mbit", "ingress_mbit")
_MARK = "~"  # before a value that was estimated


def render(description: Mapping[str, Any], console: Console) -> None:
    """Prints what :func:`testbed.wan.describe.describe` found."""
    centers, links = description["centers"], description["links"]
    data_centers = [center for center in centers if center["workers"]]
    homes = "scheduler" if data_centers == centers else "scheduler and global server"
    console.print(
        f"[bold]{escape(str(description['name']))}[/bold]: {_counted(data_centers, 'center')}, "
        f"{_counted(links, 'directed link')}, {homes} in {description['server_center']}"
    )
    console.print(
        f"bandwidth_scale {description['bandwidth_scale']:g}, "
        f"delay_scale {description['delay_scale']:g}; {_dynamics(description['dynamics'])}"
    )
    if links:
        console.print(_degrees(centers))
    if len(centers) <= TABLE_CENTERS:
        console.print(_centers_table(centers))
        if links:
            console.print(_links_table(links))
    else:
        console.print(f"tables left out: more than {TABLE_CENTERS} centers; see --format json")
    if description["min_cut_mbit"] is not None:
        console.print(_min_cut(description))
    if description["bound_s"] is not None and links:
        console.print(_bounds(description))
    if links and description["routes"] is not None:
        console.print(_routes_table(description["routes"]))
    for what, reason in description["left_out"].items():
        console.print(f"{what} left out: {reason}")
    if description["provenance"] is not None:
        console.print(_provenance_table(description["provenance"]))
    if any(entry["estimated"] for entry in (*centers, *links)):
        console.print(
            f"{_MARK} marks estimated values; provenance and --format json have the rules"
        )


def _degrees(centers: Sequence[Mapping[str, Any]]) -> str:
    degrees = sorted(center["out_degree"] for center in centers)
    mean = sum(degrees) / len(degrees)
    return f"out-degree {degrees[0]} to {degrees[-1]}, mean {mean:.3g}"


def _min_cut(description: Mapping[str, Any]) -> str:
    sides = [description["min_cut_from"], description["min_cut_to"]]
    near, far = (
        ", ".join(side) if len(side) <= TABLE_CENTERS else f"{len(side)} others" for side in sides
    )
    return f"min-cut {description['min_cut_mbit']:g} Mbit/s: {near} -> {far}"


def _bounds(description: Mapping[str, Any]) -> str:
    times = (
        f"{name} {description[f'{name}_bound_s']:.4g} s"
        for name in ("cut", "node", "volume", "fluid", "latency")
    )
    return (
        f"one synchronization of {description['bytes']:,} bytes takes at least "
        f"{description['bound_s']:.4g} s ({', '.join(times)})"
    )


def _counted(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _dynamics(dynamics: Mapping[str, Any]) -> str:
    if dynamics["kind"] == "script":
        base = _dynamics(dynamics["base"])
        return "; then ".join([base, *(_part(part) for part in dynamics["parts"])])
    draw = dynamics["draw"]
    source = f"U{{{draw['low']}..{draw['high']}}} Mbit/s, seed {draw['seed']}" if draw else ""
    if dynamics["kind"] == "redraw":
        return f"rates redrawn every {dynamics['period_s']:g} s from {source}; shown: at t = 0"
    return f"rates constant, drawn once from {source}" if draw else "rates constant"


def _part(part: Mapping[str, Any]) -> str:
    if part["kind"] == "steps":
        return f"{_counted(range(part['steps']), 'step')} until {part['last_at']:g} s"
    if part["kind"] == "trace":
        return f"trace of {_counted(range(part['links']), 'link')} from {', '.join(part['files'])}"
    end = part["at"] + part["duration"]
    return f"outage from {part['at']:g} to {end:g} s of {', '.join(part['links'])}"


def _shown(entry: Mapping[str, Any], key: str, value: float) -> str:
    return f"{_MARK if key in entry['estimated'] else ''}{value:g}"


def _centers_table(centers: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="centers", title_justify="left")
    table.add_column("center", overflow="fold")
    for head in ("workers", "LAN\nMbit/s", "LAN rtt\nms", "links\nout/in", "WAN Mbit/s\nout/in"):
        table.add_column(head, justify="right", no_wrap=True)
    if any(center[cap] is not None for center in centers for cap in _CAPS):
        table.add_column("caps Mbit/s\nout/in", justify="right", no_wrap=True)
    for center in centers:
        caps = ("-" if center[cap] is None else f"{center[cap]:g}" for cap in _CAPS)
        guessed = any(cap.removesuffix("_mbit") in center["estimated"] for cap in _CAPS)
        table.add_row(
            center["name"],
            str(center["workers"]),
            _shown(center, "lan_rate", center["lan_rate_mbit"]),
            _shown(center, "lan_rtt", center["lan_rtt_ms"]),
            f"{center['out_degree']}/{center['in_degree']}",
            f"{center['out_mbit']:g}/{center['in_mbit']:g}",
            *([_MARK * guessed + "/".join(caps)] if len(table.columns) > 6 else []),
        )
    return table


def _links_table(links: Sequence[Mapping[str, Any]]) -> Table:
    """One row per pair of centers, in the direction stated first, the reverse one beside it."""
    table = Table(title="links", title_justify="left")
    table.add_column("link", overflow="fold")
    for head in ("Mbit/s there", "Mbit/s back", "rtt ms"):
        table.add_column(head, justify="right", no_wrap=True)
    troubled = any(link["jitter_ms"] or link["loss"] for link in links)
    if troubled:
        table.add_column("jitter ms; loss\nthere | back", justify="right", no_wrap=True)
    shown: set[Edge] = set()
    by_edge = {(link["from"], link["to"]): link for link in links}
    for (source, target), link in by_edge.items():
        if (target, source) in shown:
            continue
        shown.add((source, target))
        back = by_edge.get((target, source))
        there = _shown(link, "rate", link["rate_mbit"])
        if back is None:
            row = [there, "no link", f"{_shown(link, 'rtt', link['delay_ms'])} one way"]
        else:
            rtt = _shown(link, "rtt", link["delay_ms"] + back["delay_ms"])
            row = [there, _shown(back, "rate", back["rate_mbit"]), rtt]
        if troubled:
            both = [link] if back is None else [link, back]
            row.append(" | ".join(f"{one['jitter_ms']:g}; {one['loss']:g}" for one in both))
        table.add_row(f"{source} - {target}", *row)
    return table


def _routes_table(listed: Sequence[Mapping[str, Any]]) -> Table:
    """Routes over several hops, one row per source; neighbours reach each other directly."""
    table = Table(title="routes over several hops (rtt ms)", title_justify="left")
    table.add_column("from", overflow="fold")
    table.add_column("to, via", overflow="fold")
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
    table.add_column()
    table.add_column(overflow="fold")
    entries = provenance if isinstance(provenance, Mapping) else {"source": provenance}
    for key, value in entries.items():
        nested = value.items() if isinstance(value, Mapping) else [("", value)]
        for name, text in nested:
            table.add_row(escape(f"{key} {name}".strip()), escape(str(text)))
    return table
