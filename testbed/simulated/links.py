"""From a WAN to the resources and routes of the fluid network."""

from __future__ import annotations

import itertools
from collections.abc import Hashable

from geojax.hips.places import Place, Places
from geojax.overlay.routes import routes as center_routes
from geojax.overlay.view import Edge
from testbed.simulated.transport import Route
from testbed.wan import Wan


def resources(wan: Wan, places: Places) -> dict[Hashable, float]:
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
        for name in (center.name, *places.workers(center.name)):
            found["up", name] = center.lan_rate
            found["down", name] = center.lan_rate
    return found


def node_routes(wan: Wan, places: Places) -> dict[Edge, Route]:
    """The route of every ordered pair of nodes.

    The scheduler runs on its center's gateway host, as the local server does, so these two talk
    without a network. A worker reaches other centers through its gateway.
    """
    view = wan.view()
    paths = center_routes(view)
    lan_delay = {center.name: center.lan_delay for center in wan.centers}
    known = resources(wan, places)

    def route(source: Place, target: Place) -> Route:
        crossed: list[Hashable] = []
        delay = 0.0
        leaves_host = source.role == "worker" or target.role == "worker"
        same = source.center == target.center
        if source.role == "worker" or (same and leaves_host):
            crossed.append(("up", source.name if source.role == "worker" else source.center))
            delay += lan_delay[source.center]
            if not same:
                crossed.append(("down", source.center))
        if not same:
            path = paths[source.center, target.center]
            for here, there in itertools.pairwise(path):
                crossed += [("egress", here), ("link", here, there), ("ingress", there)]
                delay += view.delay[here, there]
            if target.role == "worker":
                crossed.append(("up", target.center))
                delay += lan_delay[target.center]
        if target.role == "worker" or (same and leaves_host):
            crossed.append(("down", target.name if target.role == "worker" else target.center))
        return Route(tuple(key for key in crossed if key in known), delay)

    return {
        (source.name, target.name): route(source, target)
        for source in places.all
        for target in places.all
        if source.name != target.name
    }


def hops(wan: Wan, places: Places) -> dict[Edge, tuple[Edge, ...]]:
    """The directed WAN links that a message between two nodes crosses."""
    paths = center_routes(wan.view())
    return {
        (source.name, target.name): ()
        if source.center == target.center
        else tuple(itertools.pairwise(paths[source.center, target.center]))
        for source in places.all
        for target in places.all
        if source.name != target.name
    }
