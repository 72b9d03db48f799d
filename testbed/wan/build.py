"""A WAN as data: from a configuration to a validated, immutable description.

A configuration either writes the WAN out::

    centers: [c1, {name: c2, workers: 4, egress: 200}]
    links:
      - {between: [c1, c2], rate: 100, rtt: 20}      # both directions
      - {from: c1, to: c3, rate: 500}                # one direction; rtt defaults to wan.rtt
      - {between: [c2, c3], rate: 50, jitter: 2, loss: 0.001, estimated: {loss: "assumed"}}

or names a generator. Rates are in Mbit/s and times in ms there, bit/s and seconds in what comes
out; a directed link's one-way delay is half its rtt.

With ``server_center: external`` the scheduler has a site of its own, and with it the global servers
of overlays that have any there (star, multigps). It has no workers and no data, and links from and
to every center, so that control messages have paths of their own. What these are like is said by
``external: {rate: 100, rtt: 40}``; where that says nothing, by the WAN's ``rate`` and ``rtt``, and
drawn rates are drawn for them too. Or the site has links of its own among the others, if it is
listed as ``{name: external, workers: 0}`` among the centers. With global servers it relays between
centers as any of them does, where that makes a shorter path; without, nothing between centers
passes through it, and neither plans nor bounds count its links.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from geojax import fields
from geojax.config import LanConfig, WanConfig
from geojax.errors import ConfigError
from testbed.wan import fields as wan_fields
from testbed.wan import links as wan_links
from testbed.wan.dynamics import MBIT, Change, build_dynamics
from testbed.wan.generators import GENERATORS
from testbed.wan.presets import load_preset, preset_names
from testbed.wan.types import Center, Link, NodePlace, Wan

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

CENTER_KEYS = (
    "name", "workers", "egress", "ingress", "lan_rate", "lan_rtt", "position", "estimated",
)  # fmt: skip


def build_wan(wan: WanConfig, lan: LanConfig, seed: int, global_servers: int = 1) -> Wan:
    """Validates a configuration and turns it into a :class:`Wan`.

    Args:
      wan: the WAN group of the run's configuration.
      lan: defaults for the centers' LANs.
      seed: the run's seed, used where ``wan.seed`` is None.
      global_servers: how many there are on the site ``external``, if there is one.

    Raises:
      ConfigError: for every mistake, under its full key, e.g. ``wan.links[2].rate``.
    """
    if not isinstance(wan.name, str) or not wan.name:
        raise ConfigError("wan.name", wan.name, "write a name for the tables")
    seed_key, drawn_from = ("seed", seed) if wan.seed is None else ("wan.seed", wan.seed)
    drawn_from = fields.integer(seed_key, drawn_from, "the seed of random rates", least=0)
    bandwidth_scale = fields.number(
        "wan.bandwidth_scale", wan.bandwidth_scale, "the factor of all WAN rates"
    )
    delay_scale = fields.number(
        "wan.delay_scale", wan.delay_scale, "the factor of all WAN delays", zero=True
    )
    center_entries, link_entries = _written_out(wan, drawn_from)
    listed = _read_centers(center_entries, wan, lan, bandwidth_scale)
    centers = _with_external(wan, lan, listed, bandwidth_scale)
    names = tuple(center.name for center in centers)
    keyed = [(f"wan.links[{index}]", entry) for index, entry in enumerate(link_entries)]
    if len(centers) > len(listed):
        keyed += wan_links.external_links(wan, names)
    stated = wan_links.read_links(keyed, names, wan)
    edges = [link.edge for link in stated]
    wan_links.check_connected(names, edges)
    if wan.server_center == wan_fields.EXTERNAL and not global_servers:  # which relays nothing
        centers_alone = [edge for edge in edges if wan_fields.EXTERNAL not in edge]
        wan_links.check_connected(names[:-1], centers_alone)
    dynamics = build_dynamics(
        wan.dynamics, wan.draw, drawn_from, {link.edge: link.rate for link in stated}
    )
    rates = wan_links.initial_rates(stated, dynamics)
    return Wan(
        name=wan.name,
        centers=centers,
        links=tuple(
            Link(
                *link.edge,
                rate=rates[link.edge] * bandwidth_scale,
                delay=link.delay * delay_scale,
                jitter=link.jitter * delay_scale,
                loss=link.loss,
                jitter_distribution=link.distribution,
                estimated=link.estimated,
            )
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
        global_servers=global_servers,
    )


def _written_out(wan: WanConfig, seed: int) -> tuple[list, list]:
    """``wan.centers`` and ``wan.links``, by the generator if there is one."""
    if wan.generator is not None:
        wan = GENERATORS.complete(wan)
        if wan.links:
            fix = f"the generator {wan.generator!r} makes the links; leave wan.links empty"
            raise ConfigError("wan.links", wan.links, fix)
        return GENERATORS[str(wan.generator)](wan, seed)
    if isinstance(wan.centers, int) and not isinstance(wan.centers, bool):
        fix = "list the centers' names; only a generator (wan=uniform) takes their number"
        raise ConfigError("wan.centers", wan.centers, fix)
    return (
        fields.sequence("wan.centers", wan.centers, "centers"),
        fields.sequence("wan.links", wan.links, "links"),
    )


def _read_centers(
    entries: Sequence[object], wan: WanConfig, lan: LanConfig, bandwidth_scale: float
) -> tuple[Center, ...]:
    if not entries:
        raise ConfigError("wan.centers", list(entries), "state at least one center")
    centers: dict[str, Center] = {}
    for index, entry in enumerate(entries):
        center = _read_center(f"wan.centers[{index}]", entry, wan, lan, bandwidth_scale)
        if center.name in centers:
            fix = f"wan.centers[{list(centers).index(center.name)}] has this name already"
            raise ConfigError(f"wan.centers[{index}]", center.name, fix)
        centers[center.name] = center
    return tuple(centers.values())


def _with_external(
    wan: WanConfig, lan: LanConfig, centers: tuple[Center, ...], bandwidth_scale: float
) -> tuple[Center, ...]:
    """The centers and, last, the site of scheduler and global servers if they have their own."""
    name = wan_fields.EXTERNAL
    site = [center for center in centers if center.name == name]
    if wan.server_center != name:
        if site:
            fix = f"the WAN has a site {name!r} for scheduler and servers; write {name}"
            raise ConfigError("wan.server_center", wan.server_center, fix)
        if wan.external is not None:
            fix = f"these links are used with wan.server_center={name} only; write that too"
            raise ConfigError("wan.external", wan.external, fix)
        return centers
    others = [center for center in centers if center.name != name]
    if not others:
        raise ConfigError("wan.centers", wan.centers, "state at least one center with workers")
    if site and wan.external is not None:
        fix = f"wan.links states the links of {name!r}, which is among the centers; leave this out"
        raise ConfigError("wan.external", wan.external, fix)
    made = _read_center("wan.external", {"name": name, "workers": 0}, wan, lan, bandwidth_scale)
    return (*others, *(site or [made]))


def _read_center(
    key: str, entry: object, wan: WanConfig, lan: LanConfig, bandwidth_scale: float
) -> Center:
    if not isinstance(entry, Mapping):
        entry, name_key = {"name": entry}, key
    else:
        name_key = f"{key}.name"
    stated = fields.mapping(key, entry, CENTER_KEYS)

    def own_or_default(own: str, default: str) -> tuple[str, object]:
        if stated.get(own) is not None:
            return f"{key}.{own}", stated[own]
        return f"lan.{default}", getattr(lan, default)

    def cap(name: str) -> float | None:
        cap_key, rate = f"{key}.{name}", stated.get(name)
        if rate is None and stated.get("name") != wan_fields.EXTERNAL:
            cap_key, rate = f"wan.{name}", getattr(wan, name)
        if rate is None:
            return None
        return fields.number(cap_key, rate, f"the {name} cap in Mbit/s") * MBIT * bandwidth_scale

    name = wan_fields.center_name(name_key, stated.get("name"))
    key_of_workers, workers = own_or_default("workers", "workers")
    if name == wan_fields.EXTERNAL and workers != 0:
        fix = "no center is on the site of this name: write workers: 0, or rename it"
        raise ConfigError(f"{key}.workers", workers, fix)
    least = 0 if name == wan_fields.EXTERNAL else 1
    lan_rtt = fields.number(*own_or_default("lan_rtt", "rtt"), "the LAN's rtt in ms", zero=True)
    return Center(
        name=name,
        workers=fields.integer(key_of_workers, workers, "the workers per center", least=least),
        lan_rate=fields.number(*own_or_default("lan_rate", "rate"), "the LAN's rate in Mbit/s")
        * MBIT,
        lan_delay=lan_rtt / 2 * wan_links.MS,
        egress=cap("egress"),
        ingress=cap("ingress"),
        position=(
            None
            if stated.get("position") is None
            else wan_fields.position(f"{key}.position", stated["position"])
        ),
        estimated=wan_fields.estimates(f"{key}.estimated", stated.get("estimated"), CENTER_KEYS),
    )
