"""The links between the members of an exchange, and what they take of the WAN."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from geojax.overlay.routes.static_routes import routes
from geojax.overlay.view import NetworkView

_DEAD = 1e-6  # a link without rate counts as this share of the fastest one: worth nothing, finite


class SharedLinks(NamedTuple):
    """Links between members, with the resources of the WAN that they share.

    Attributes:
      members: in their order.
      sources: index of the member that each link leaves.
      targets: index of the member that it reaches.
      use: ``[resource, link]``: how often a link's route takes a resource: a physical link, or the
        access cap of a center on the route.
      capacity: of each resource, bit/s.
      delay: of each link, the propagation along its route, s.
    """

    members: tuple[str, ...]
    sources: np.ndarray
    targets: np.ndarray
    use: csr_array
    capacity: np.ndarray
    delay: np.ndarray


def shared_links(view: NetworkView, members: Sequence[str]) -> SharedLinks:
    """The links that trees over ``members`` may be built of.

    Two members have a link when no other member lies on the route between them (fewest hops,
    :mod:`geojax.overlay.routes.static_routes`). A member on the route could add and pass on itself.
    If all centers are members, these are the physical links; other centers relay. The links join
    all members, as routes do.

    >>> path = [("a", "b"), ("b", "c"), ("c", "b"), ("b", "a")]
    >>> view = NetworkView(("a", "b", "c"), rate=dict.fromkeys(path, 1e6), delay={})
    >>> links = shared_links(view, ("a", "c"))  # both directions through b, over two physical links
    >>> links.sources, links.targets, links.use.sum(axis=0)
    (array([0, 1]), array([1, 0]), array([2., 2.]))
    """
    taken = set(members)
    if len(members) == len(view.centers):  # spares the search for routes
        paths = list(view.rate)
    else:
        found = routes(view)
        paths = [
            path
            for source in members
            for target in members
            if source != target and not taken.intersection((path := found[source, target])[1:-1])
        ]
    rows = {("link", *edge): index for index, edge in enumerate(view.rate)}
    for direction, caps in (("out", view.egress), ("in", view.ingress)):
        rows |= {(direction, center): len(rows) + index for index, center in enumerate(caps)}
    used = [
        (rows[resource], link)
        for link, path in enumerate(paths)
        for hop in pairwise(path)
        for resource in (("link", *hop), ("out", hop[0]), ("in", hop[1]))
        if resource in rows
    ]
    where = np.array(used, int).reshape(-1, 2).T
    shape = (len(rows), len(paths))
    rates = np.array([*view.rate.values(), *view.egress.values(), *view.ingress.values()], float)
    position = {member: index for index, member in enumerate(members)}
    return SharedLinks(
        tuple(members),
        np.array([position[path[0]] for path in paths], int),
        np.array([position[path[-1]] for path in paths], int),
        csr_array((np.ones(len(used)), (where[0], where[1])), shape=shape),
        np.maximum(rates, rates.max(initial=0.0) * _DEAD),
        np.array([sum(view.delay.get(hop, 0.0) for hop in pairwise(path)) for path in paths]),
    )
