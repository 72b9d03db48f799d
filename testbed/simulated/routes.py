"""From a WAN to the resources and routes of the fluid network."""

from __future__ import annotations

import itertools
from collections.abc import Hashable

from geojax.hips.cluster import ONE_EACH, Cluster, Connections, NodeSpec
from geojax.overlay.view import Edge
from testbed.simulated.impairments import along
from testbed.simulated.transport import Route
from testbed.wan.build import Link, Wan


def resources(wan: Wan, cluster: Cluster) -> dict[Hashable, float]:
    """Every shared resource and its rate, bit/s.

    ``("link", a, b)``: a directed WAN link; ``("egress", a)`` and ``("ingress", a)``: access caps;
    ``("up", node)`` and ``("down", node)``: a node's port on its center's LAN. All hosts of a
    center have their own port; the local server's port is used only within the center.
    """
    found: dict[Hashable, float] = {
        ("link", link.source, link.target): link.rate for link in wan.links
    }
    for center in wan.centers:
        if center.egress is not None:
            found["egress", center.name] = center.egress
        if center.ingress is not None:
            found["ingress", center.name] = center.ingress
        for name in (center.name, *cluster.workers(center.name)):
            found["up", name] = center.lan_rate
            found["down", name] = center.lan_rate
    return found


class NodeRoutes:
    """The routes between a run's nodes, by (source, target); each is made when it is asked for.

    The scheduler runs on its center's gateway host, as the local server does, so these two talk
    without a network; and so do the scheduler and the global servers on a site of their own. A
    worker reaches other centers through its gateway.
    """

    def __init__(self, wan: Wan, cluster: Cluster, connections: Connections = ONE_EACH):
        self._links = {link.edge: link for link in wan.links}
        self._lan_delay = {center.name: center.lan_delay for center in wan.centers}
        self._paths = wan.routes()
        self._cluster = {place.name: place for place in cluster.all}
        self._known = resources(wan, cluster)
        self._connections = connections
        self._routes: dict[Edge, Route] = {}

    def __getitem__(self, pair: Edge) -> Route:
        """The route of an ordered pair of nodes; ``KeyError`` if there are no such nodes."""
        route = self._routes.get(pair)
        if route is None:
            source, target = pair
            route = self._route(self._cluster[source], self._cluster[target])
            self._routes[pair] = route
        return route

    def _route(self, source: NodeSpec, target: NodeSpec) -> Route:
        crossed: list[Hashable] = []
        links: list[Link] = []
        delay = 0.0
        if source.center == target.center:
            if source.role == "worker" or target.role == "worker":
                crossed = [("up", _host(source)), ("down", _host(target))]
                delay = self._lan_delay[source.center]
        else:
            if source.role == "worker":
                crossed += [("up", source.name), ("down", source.center)]
                delay += self._lan_delay[source.center]
            for here, there in itertools.pairwise(self._paths[source.center, target.center]):
                crossed += [("egress", here), ("link", here, there), ("ingress", there)]
                links.append(self._links[here, there])
                delay += links[-1].delay
            if target.role == "worker":
                crossed += [("up", target.center), ("down", target.name)]
                delay += self._lan_delay[target.center]
        return Route(
            tuple(key for key in crossed if key in self._known),
            delay,
            along(links),
            self._connections.between(source, target),
        )


def _host(place: NodeSpec) -> str:
    """Whose LAN port a node uses: its own if it is a worker, else its center's gateway's."""
    return place.name if place.role == "worker" else place.center
