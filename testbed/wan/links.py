"""Reading the links of a WAN description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from geojax import fields
from geojax.config import WanConfig
from geojax.errors import ConfigError, nearest
from geojax.overlay.view import Edge
from testbed.wan import fields as wan_fields
from testbed.wan.dynamics import MBIT, Dynamics
from testbed.wan.types import Distribution

MS = 1e-3  # seconds in one ms
DISTRIBUTIONS: tuple[Distribution, ...] = ("uniform", "normal")
VALUE_KEYS = ("rate", "rtt", "jitter", "loss")
LINK_KEYS = ("between", "from", "to", *VALUE_KEYS, "estimated")


class Stated(NamedTuple):
    """A directed link as the configuration states it, before draws and scales."""

    edge: Edge
    rate: float | None  # bit/s
    delay: float  # s, one way
    jitter: float  # s
    distribution: Distribution  # of the jitter
    loss: float  # share of packets
    estimated: Mapping[str, str]
    key: str  # where it is stated


Keyed = tuple[str, object]  # the key that an entry stands under, and the entry


def read_links(keyed: Sequence[Keyed], names: Sequence[str], wan: WanConfig) -> list[Stated]:
    """All directed links, in the order of the description.

    Args:
      keyed: the entries of the links, each with its key.
      names: of all centers.
      wan: for the defaults.

    Raises:
      ConfigError: names the key, the value and the fix.
    """
    links: dict[Edge, Stated] = {}
    known = dict.fromkeys(names)
    for key, entry in keyed:
        stated = fields.mapping(key, entry, LINK_KEYS)
        for edge in wan_fields.read_ends(key, stated, known):
            if edge in links:
                fix = f"{links[edge].key} states this link already; keep one"
                raise ConfigError(key, "->".join(edge), fix)
            links[edge] = _read_link(key, edge, stated, wan)
    _check_used(wan, [entry for _, entry in keyed])
    return list(links.values())


def external_links(wan: WanConfig, names: Sequence[str]) -> list[Keyed]:
    """Entries of the links between the site ``external``, last of ``names``, and every center.

    Raises:
      ConfigError: nothing says what they are like.
    """
    key, *values = "wan.external", "rate", "rtt"
    own = {} if wan.external is None else fields.mapping(key, wan.external, values)
    drawn = wan.draw is not None or wan.dynamics is not None
    known = {"rate": drawn or wan.rate is not None, "rtt": wan.rtt is not None}
    if any(own.get(name) is None and not known[name] for name in values):
        fix = (
            "state the links to the scheduler's own site in Mbit/s and ms, e.g. "
            "wan.external={rate: 100, rtt: 40}, or wan.rate and wan.rtt for all links"
        )
        raise ConfigError(key, wan.external, fix)
    return [(key, {"between": [center, names[-1]], **own}) for center in names[:-1]]


def _read_link(key: str, edge: Edge, stated: Mapping, wan: WanConfig) -> Stated:
    rate_key, rate = _own_or_wan(key, "rate", stated, wan)
    if rate is not None:
        rate = fields.number(rate_key, rate, "the rate in Mbit/s") * MBIT
    rtt_key, rtt = _own_or_wan(key, "rtt", stated, wan)
    if rtt is None:
        fix = f"state the round-trip time of {'->'.join(edge)} in ms here, or wan.rtt for all links"
        raise ConfigError(f"{key}.rtt", None, fix)
    rtt = fields.number(rtt_key, rtt, "the round-trip time in ms", zero=True)
    jitter_key, value = _own_or_wan(key, "jitter", stated, wan)
    jitter, distribution = _read_jitter(jitter_key, value)
    if jitter > rtt / 2:
        fix = f"must not exceed the one-way delay of {'->'.join(edge)}, {rtt / 2:g} ms"
        raise ConfigError(jitter_key, value, fix)
    loss_key, loss = _own_or_wan(key, "loss", stated, wan)
    if loss is not None:
        loss = fields.share(loss_key, loss, "the share of packets that are lost")
    estimated = wan_fields.estimates(f"{key}.estimated", stated.get("estimated"), VALUE_KEYS)
    return Stated(edge, rate, rtt / 2 * MS, jitter * MS, distribution, loss or 0.0, estimated, key)


def _own_or_wan(key: str, name: str, stated: Mapping, wan: WanConfig) -> tuple[str, object]:
    """A link's own value, else the WAN's default, else None; with the key it stands under."""
    if stated.get(name) is not None:
        return f"{key}.{name}", stated[name]
    return f"wan.{name}", getattr(wan, name)


def _read_jitter(key: str, value: object) -> tuple[float, Distribution]:
    """``jitter: MS`` or ``jitter: {ms: MS, distribution: NAME}``; ms, distribution."""
    what = "the variation of the one-way delay in ms"
    if value is None:
        return 0.0, DISTRIBUTIONS[0]
    if not isinstance(value, Mapping):
        return fields.number(key, value, what, zero=True), DISTRIBUTIONS[0]
    stated = fields.mapping(key, value, ("ms", "distribution"))
    jitter = fields.number(f"{key}.ms", stated.get("ms"), what, zero=True)
    name = stated.get("distribution", DISTRIBUTIONS[0])
    if name not in DISTRIBUTIONS:
        raise ConfigError(f"{key}.distribution", name, nearest(str(name), DISTRIBUTIONS))
    return jitter, cast(Distribution, name)


def _check_used(wan: WanConfig, entries: Sequence[object]) -> None:
    """Refuses a default that no link of a written-out WAN uses: it would be silently ignored."""
    if wan.generator is not None or not entries:
        return
    for name in VALUE_KEYS:
        value = getattr(wan, name)
        own = all(isinstance(e, Mapping) and e.get(name) is not None for e in entries)
        if value is not None and own:
            fix = f"every link of {wan.name!r} states its own {name}"
            scale = {"rate": "wan.bandwidth_scale", "rtt": "wan.delay_scale"}.get(name)
            fix += f"; use {scale} instead" if scale else "; leave it out"
            raise ConfigError(f"wan.{name}", value, fix)


def check_connected(names: Sequence[str], edges: Sequence[Edge]) -> None:
    """Refuses a WAN in which some center cannot reach another one."""
    if not names or all(_reached(names[0], way) == {*names} for way in (edges, _turned(edges))):
        return
    import networkx  # slow to load, and few WANs are wrong

    graph = networkx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from(edges)
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


def _turned(edges: Sequence[Edge]) -> list[Edge]:
    return [(target, source) for source, target in edges]


def _reached(start: str, edges: Sequence[Edge]) -> set[str]:
    onward: dict[str, list[str]] = {}
    for source, target in edges:
        onward.setdefault(source, []).append(target)
    reached, ahead = {start}, [start]
    while ahead:
        new = set(onward.get(ahead.pop(), ())) - reached
        reached |= new
        ahead += new
    return reached


def initial_rates(stated: Sequence[Stated], dynamics: Dynamics) -> dict[Edge, float]:
    """Unscaled rates at t = 0, bit/s: those of the dynamics where it has any, else the stated."""
    drawn = dynamics.initial([link.edge for link in stated]) or {}
    rates: dict[Edge, float] = {}
    for link in stated:
        rate = drawn.get(link.edge, link.rate)
        if rate is None:
            fix = "state the rate in Mbit/s here, or wan.rate for all links, or wan.draw"
            raise ConfigError(f"{link.key}.rate", None, fix)
        rates[link.edge] = rate
    return rates
