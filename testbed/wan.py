"""A WAN as data: from a configuration to a validated, immutable description.

A configuration either writes the WAN out::

    centers: [c1, {name: c2, workers: 4, egress: 200}]
    links:
      - {between: [c1, c2], rate: 100, rtt: 20}      # both directions
      - {from: c1, to: c3, rate: 500}                # one direction; rtt defaults to wan.rtt

or names a generator. Rates are in Mbit/s and round-trip times in ms there, bit/s and seconds (one
way) in what comes out; a directed link's one-way delay is half its rtt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import networkx

from geojax.config import LanConfig, WanConfig
from geojax.errors import ConfigError
from geojax.overlay.view import Edge
from testbed import wan_fields
from testbed.dynamics import MBIT, Change, Dynamics, build_dynamics
from testbed.wan_generators import GENERATORS
from testbed.wan_presets import load_preset, preset_names
from testbed.wan_types import Center, Link, NodePlace, Wan

__all__ = [
    "Center",
    "Change",
    "Link",
    "NodePlace",
    "Wan",
    "build_wan",
    "load_preset",
    "preset_names",
]

MS = 1e-3  # seconds in one ms
CENTER_KEYS = ("name", "workers", "egress", "ingress", "lan_rate", "lan_rtt")
LINK_KEYS = ("between", "from", "to", "rate", "rtt")


class _Stated(NamedTuple):
    """A directed link as the configuration states it, before draws and scales."""

    edge: Edge
    rate: float | None  # Mbit/s
    rtt: float  # ms
    key: str  # where it is stated


def build_wan(wan: WanConfig, lan: LanConfig, seed: int) -> Wan:
    """Validates a configuration and turns it into a :class:`Wan`.

    Args:
      wan: the WAN group of the run's configuration.
      lan: defaults for the centers' LANs.
      seed: the run's seed, used where ``wan.seed`` is None.

    Raises:
      ConfigError: for every mistake, under its full key, e.g. ``wan.links[2].rate``.
    """
    if not isinstance(wan.name, str) or not wan.name:
        raise ConfigError("wan.name", wan.name, "write a name for the tables")
    seed_key, drawn_from = ("seed", seed) if wan.seed is None else ("wan.seed", wan.seed)
    drawn_from = wan_fields.integer(seed_key, drawn_from, "the seed of random rates", least=0)
    bandwidth_scale = wan_fields.number(
        "wan.bandwidth_scale", wan.bandwidth_scale, "the factor of all WAN rates"
    )
    delay_scale = wan_fields.number(
        "wan.delay_scale", wan.delay_scale, "the factor of all WAN delays", zero=True
    )
    dynamics = build_dynamics(wan.dynamics, wan.draw, drawn_from)

    center_entries, link_entries = _written_out(wan)
    centers = _read_centers(center_entries, lan, bandwidth_scale)
    names = tuple(center.name for center in centers)
    stated = _read_links(link_entries, names, wan)
    _check_used(wan, stated, link_entries)
    _check_connected(names, [link.edge for link in stated])
    rates = _initial_rates(stated, dynamics)
    return Wan(
        name=wan.name,
        centers=centers,
        links=tuple(
            Link(*link.edge, rates[link.edge] * bandwidth_scale, link.rtt / 2 * MS * delay_scale)
            for link in stated
        ),
        server_center=(
            names[0]
            if wan.server_center is None
            else wan_fields.known_center("wan.server_center", wan.server_center, names)
        ),
        bandwidth_scale=bandwidth_scale,
        delay_scale=delay_scale,
        dynamics=dynamics,
        provenance=wan.provenance,
    )


def _written_out(wan: WanConfig) -> tuple[list, list]:
    """``wan.centers`` and ``wan.links``, by the generator if there is one."""
    if wan.generator is not None:
        generate = GENERATORS[str(wan.generator)]
        if wan.links:
            fix = f"the generator {wan.generator!r} makes the links; leave wan.links empty"
            raise ConfigError("wan.links", wan.links, fix)
        return generate(wan)
    if isinstance(wan.centers, int) and not isinstance(wan.centers, bool):
        fix = "list the centers' names; only a generator (wan=uniform) takes their number"
        raise ConfigError("wan.centers", wan.centers, fix)
    return (
        wan_fields.sequence("wan.centers", wan.centers, "centers"),
        wan_fields.sequence("wan.links", wan.links, "links"),
    )


def _read_centers(
    entries: Sequence[object], lan: LanConfig, bandwidth_scale: float
) -> tuple[Center, ...]:
    if not entries:
        raise ConfigError("wan.centers", list(entries), "state at least one center")
    centers: dict[str, Center] = {}
    for index, entry in enumerate(entries):
        center = _read_center(f"wan.centers[{index}]", entry, lan, bandwidth_scale)
        if center.name in centers:
            fix = f"wan.centers[{list(centers).index(center.name)}] has this name already"
            raise ConfigError(f"wan.centers[{index}]", center.name, fix)
        centers[center.name] = center
    return tuple(centers.values())


def _read_center(key: str, entry: object, lan: LanConfig, bandwidth_scale: float) -> Center:
    if not isinstance(entry, Mapping):
        entry, name_key = {"name": entry}, key
    else:
        name_key = f"{key}.name"
    stated = wan_fields.mapping(key, entry, CENTER_KEYS)

    def own_or_default(own: str, default: str) -> tuple[str, object]:
        if stated.get(own) is not None:
            return f"{key}.{own}", stated[own]
        return f"lan.{default}", getattr(lan, default)

    def cap(name: str) -> float | None:
        if stated.get(name) is None:
            return None
        rate = wan_fields.number(f"{key}.{name}", stated[name], f"the {name} cap in Mbit/s")
        return rate * MBIT * bandwidth_scale

    lan_rtt = wan_fields.number(*own_or_default("lan_rtt", "rtt"), "the LAN's rtt in ms", zero=True)
    return Center(
        name=wan_fields.center_name(name_key, stated.get("name")),
        workers=wan_fields.integer(
            *own_or_default("workers", "workers"), "the workers per center", least=1
        ),
        lan_rate=wan_fields.number(*own_or_default("lan_rate", "rate"), "the LAN's rate in Mbit/s")
        * MBIT,
        lan_delay=lan_rtt / 2 * MS,
        egress=cap("egress"),
        ingress=cap("ingress"),
    )


def _read_links(entries: Sequence[object], names: Sequence[str], wan: WanConfig) -> list[_Stated]:
    links: dict[Edge, _Stated] = {}
    known = dict.fromkeys(names)
    for index, entry in enumerate(entries):
        key = f"wan.links[{index}]"
        stated = wan_fields.mapping(key, entry, LINK_KEYS)
        edges = _read_ends(key, stated, known)
        rate = _own_or_wan(key, "rate", stated, wan)
        rtt = _own_or_wan(key, "rtt", stated, wan)
        if rtt is None:
            fix = "state the round-trip time in ms here, or wan.rtt for all links"
            raise ConfigError(f"{key}.rtt", None, fix)
        for edge in edges:
            if edge in links:
                fix = f"{links[edge].key} states this link already; keep one"
                raise ConfigError(key, "->".join(edge), fix)
            links[edge] = _Stated(edge, rate, rtt, key)
    return list(links.values())


def _read_ends(key: str, stated: Mapping, names: Mapping[str, None]) -> list[Edge]:
    """The one or two directed links that an entry stands for."""
    if ("between" in stated) == ("from" in stated or "to" in stated):
        fix = "write either {between: [a, b], ...} or {from: a, to: b, ...}"
        raise ConfigError(key, dict(stated), fix)
    if "between" in stated:
        ends = wan_fields.sequence(f"{key}.between", stated["between"], "two centers")
        if len(ends) != 2:
            raise ConfigError(f"{key}.between", ends, "write exactly two centers")
        keys = f"{key}.between[0]", f"{key}.between[1]"
    else:
        ends = [stated.get("from"), stated.get("to")]
        keys = f"{key}.from", f"{key}.to"
    source, target = (
        wan_fields.known_center(k, end, names) for k, end in zip(keys, ends, strict=True)
    )
    if source == target:
        raise ConfigError(key, f"{source}->{target}", "a link joins two different centers")
    return [(source, target), (target, source)] if "between" in stated else [(source, target)]


def _own_or_wan(key: str, name: str, stated: Mapping, wan: WanConfig) -> float | None:
    """A link's own ``rate`` or ``rtt``, else the WAN's default, else None."""
    what = "the rate in Mbit/s" if name == "rate" else "the round-trip time in ms"
    if stated.get(name) is not None:
        return wan_fields.number(f"{key}.{name}", stated[name], what, zero=name == "rtt")
    default = getattr(wan, name)
    if default is None:
        return None
    return wan_fields.number(f"wan.{name}", default, what, zero=name == "rtt")


def _check_used(wan: WanConfig, stated: Sequence[_Stated], entries: Sequence[object]) -> None:
    """Refuses a default that no link of a written-out WAN uses: it would be silently ignored."""
    if wan.generator is not None or not stated:
        return
    for name, scale in (("rate", "wan.bandwidth_scale"), ("rtt", "wan.delay_scale")):
        value = getattr(wan, name)
        own = all(isinstance(e, Mapping) and e.get(name) is not None for e in entries)
        if value is not None and own:
            fix = f"every link of {wan.name!r} states its own {name}; use {scale} instead"
            raise ConfigError(f"wan.{name}", value, fix)


def _check_connected(names: Sequence[str], edges: Sequence[Edge]) -> None:
    """Refuses a WAN in which some center cannot reach another one."""
    graph = networkx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from(edges)
    if len(names) < 2 or networkx.is_strongly_connected(graph):
        return
    order = {name: index for index, name in enumerate(names)}
    cut_off = networkx.number_weakly_connected_components(graph) > 1
    components = (
        networkx.weakly_connected_components(graph)
        if cut_off
        else networkx.strongly_connected_components(graph)
    )
    parts = sorted(
        (sorted(part, key=order.__getitem__) for part in components), key=lambda p: order[p[0]]
    )
    listed = " | ".join(", ".join(part) for part in parts)
    fix = (
        "no link joins these parts; add links between them"
        if cut_off
        else "these parts reach each other in one direction only; add the links back"
    )
    raise ConfigError("wan.links", listed, fix)


def _initial_rates(stated: Sequence[_Stated], dynamics: Dynamics) -> dict[Edge, float]:
    """Unscaled rates at t = 0, bit/s: drawn ones where rates are random, else the stated ones."""
    drawn = dynamics.initial([link.edge for link in stated])
    if drawn is not None:
        return drawn
    rates: dict[Edge, float] = {}
    for link in stated:
        if link.rate is None:
            fix = "state the rate in Mbit/s here, or wan.rate for all links, or wan.draw"
            raise ConfigError(f"{link.key}.rate", None, fix)
        rates[link.edge] = link.rate * MBIT
    return rates
