"""The records that describe a WAN: centers with their LANs, directed links, nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from geojax.overlay.routes.static_routes import routes
from geojax.overlay.view import Edge, NetworkView
from testbed.wan import fields as wan_fields
from testbed.wan.dynamics import Change, Constant, Dynamics

Distribution = Literal["uniform", "normal"]
Role = Literal["scheduler", "server", "worker", "global"]


@dataclass(frozen=True)
class Center:
    """A data center and its LAN; or the site ``external``, which has scheduler and servers only.

    Attributes:
      name: a short identifier, also the name of the center's local server.
      workers: worker count; 0: the site of the global servers.
      lan_rate: bit/s of every host's LAN access, each way.
      lan_delay: one-way delay between two hosts of the center, s.
      egress: access cap out of the center over all its WAN links, bit/s; None: no cap.
      ingress: access cap into the center, bit/s; None: no cap.
      position: two coordinates for pictures, e.g. longitude and latitude; None: not known.
      estimated: rules by which values were estimated, by configuration key; others are measured.
    """

    name: str
    workers: int
    lan_rate: float
    lan_delay: float
    egress: float | None = None
    ingress: float | None = None
    position: tuple[float, float] | None = field(default=None, compare=False)
    estimated: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Link:
    """A directed WAN link.

    The delay of a packet is ``delay`` plus a random part: ``uniform``: U[-jitter, jitter];
    ``normal``: N(0, jitter), cut so that no delay falls below 0. Packets of one flow stay in order.

    Attributes:
      source: the center it leaves.
      target: the center it reaches.
      rate: bit/s at t = 0, ``bandwidth_scale`` applied.
      delay: one-way propagation delay, s, ``delay_scale`` applied.
      jitter: variation of the one-way delay, s, ``delay_scale`` applied; at most ``delay``.
      loss: share of packets lost at random, at least 0 and below 1.
      jitter_distribution: ``uniform`` or ``normal``.
      estimated: rules by which values were estimated, by configuration key; others are measured.
    """

    source: str
    target: str
    rate: float
    delay: float
    jitter: float = 0.0
    loss: float = 0.0
    jitter_distribution: Distribution = "uniform"
    estimated: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def edge(self) -> Edge:
        """The pair (source, target)."""
        return self.source, self.target


class NodePlace(NamedTuple):
    """A node (one process of a run) and where it lives."""

    name: str  # "scheduler", "c1", "c1/w0", "external", "external/g0"
    center: str
    role: Role  # "server": the local server, and the worker too if the center has only one


@dataclass(frozen=True)
class Wan:
    """A validated WAN. Caps and link rates are scaled by ``bandwidth_scale``, LANs never are.

    Attributes:
      name: for tables.
      centers: in the order of the description, which is the order of members everywhere; the site
        ``external``, if there is one, comes last.
      links: directed, in the order of the description, which is the order of random draws.
      server_center: where the scheduler lives, and with it the global servers, if there are any,
        if that is ``external``; otherwise the centers' local servers play their part.
      bandwidth_scale: factor already in all WAN rates and caps.
      delay_scale: factor already in all WAN delays.
      dynamics: how rates change over experiment time.
      provenance: where the numbers come from.
      global_servers: processes on the site ``external``; not used without one. 0: only the
        scheduler is there, and nothing between centers passes through the site.
    """

    name: str
    centers: tuple[Center, ...]
    links: tuple[Link, ...]
    server_center: str
    bandwidth_scale: float = 1.0
    delay_scale: float = 1.0
    dynamics: Dynamics = field(default_factory=Constant)
    provenance: Any = field(default=None, compare=False)
    global_servers: int = 1

    @property
    def has_external(self) -> bool:
        """Whether the scheduler, and the global servers if any, have a site of their own."""
        return self.server_center == wan_fields.EXTERNAL

    @property
    def scheduler_sites(self) -> tuple[str, ...]:
        """The site ``external`` if nobody but the scheduler is there, else none."""
        alone = self.has_external and not self.global_servers
        return (wan_fields.EXTERNAL,) if alone else ()

    @property
    def center_names(self) -> tuple[str, ...]:
        """Names of the centers, in order, and of the site ``external``."""
        return tuple(center.name for center in self.centers)

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The directed links as pairs, in order."""
        return tuple(link.edge for link in self.links)

    def view(self) -> NetworkView:
        """The WAN as it is at t = 0, known exactly; of the sites that exchange parameters.

        What plans and bounds go by: a site of the scheduler alone is not in it.
        """
        return self._view(without=self.scheduler_sites)

    def routes(self) -> Mapping[Edge, tuple[str, ...]]:
        """The fixed path between every two sites (:mod:`geojax.overlay.routes.static_routes`)."""
        return self._routes

    @cached_property
    def _routes(self) -> Mapping[Edge, tuple[str, ...]]:
        return routes(self._view(), ends=self.scheduler_sites)  # one, as each keeps its searches

    def _view(self, without: Collection[str] = ()) -> NetworkView:
        sites = [center for center in self.centers if center.name not in without]
        links = [link for link in self.links if not {*link.edge} & {*without}]
        return NetworkView(
            centers=tuple(center.name for center in sites),
            rate={link.edge: link.rate for link in links},
            delay={link.edge: link.delay for link in links},
            egress={c.name: c.egress for c in sites if c.egress is not None},
            ingress={c.name: c.ingress for c in sites if c.ingress is not None},
        )

    def changes(self, after: float = 0.0) -> Iterator[Change]:
        """Changes of link rates in time order, made as they are asked for, possibly without end.

        Args:
          after: experiment time, s; only later changes are given. The same changes come at the
            same instants wherever one begins.
        """
        for change in self.dynamics.changes(self.edges, after):
            rates = {edge: rate * self.bandwidth_scale for edge, rate in change.rates.items()}
            yield Change(change.at, rates)

    def nodes(self) -> tuple[NodePlace, ...]:
        """All nodes: the scheduler, then per center its local server and, if several, workers.

        The global servers of a site of their own come last, if there are any: ``external``, or
        ``external/g0``, ``external/g1``, … if they are several.
        """
        cluster = [NodePlace("scheduler", self.server_center, "scheduler")]
        for center in self.centers:
            if not center.workers:
                several = [f"{center.name}/g{index}" for index in range(self.global_servers)]
                names = [center.name] if self.global_servers == 1 else several
                cluster += [NodePlace(name, center.name, "global") for name in names]
                continue
            cluster.append(NodePlace(center.name, center.name, "server"))
            if center.workers > 1:
                cluster += [
                    NodePlace(f"{center.name}/w{index}", center.name, "worker")
                    for index in range(center.workers)
                ]
        return tuple(cluster)
