"""The paths of messages that members relay: the fastest, where two have no link of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from geojax.overlay.routes.fastest_paths import distances, tree_to
from geojax.overlay.routes.logical import (
    OUTAGE_RATE,
    LogicalLinks,
    neighbour_links,
    packet_links,
)
from geojax.overlay.view import Edge, NetworkView


def fastest_routes(
    view: NetworkView, members: Sequence[str], links: LogicalLinks | None = None
) -> Mapping[Edge, tuple[str, ...]]:
    """The path of every ordered pair of members: their link, or else the least sum of 1 / rate.

    NetStorm's release sends what one server has for another along such paths, and its servers relay
    (``find_tree_path``). Paths to one member agree: the rest of a path is the path of the next
    member on it, unless the two have a link. Of equally fast ones, the next member is the first in
    order. Between neighbours packets take the network's own route; where that is out, the paths of
    others go round it.

    Args:
      view: the WAN as it is believed to be.
      members: who relays.
      links: between neighbours, if they are there already.

    >>> rates = {("a", "b"): 9e6, ("b", "d"): 9e6, ("a", "c"): 1e6, ("c", "d"): 1e6}
    >>> rates |= {(to, come): rate for (come, to), rate in rates.items()}
    >>> view = NetworkView(("a", "c", "b", "d"), rates, {})
    >>> fastest_routes(view, view.centers)["a", "d"]
    ('a', 'b', 'd')
    """
    links = neighbour_links(view, members) if links is None else links
    with np.errstate(divide="ignore"):
        seconds = 1.0 / links.rate
    linked = np.isfinite(seconds)
    up = linked & (links.rate > OUTAGE_RATE)
    found: dict[Edge, tuple[str, ...]] = {}
    for target, length in enumerate(distances(seconds.T)):
        begins, goes_on = linked[:, target].tolist(), up[:, target].tolist()  # by their link
        after = tree_to(seconds, length).tolist()
        for source, name in enumerate(members):
            if source == target:
                continue
            path = [name]
            here = target if begins[source] else after[source]
            while here != target:
                path.append(members[here])
                here = target if goes_on[here] else after[here]
            found[name, members[target]] = (*path, members[target])
    return found


def member_links(view: NetworkView, members: Sequence[str]) -> LogicalLinks:
    """The links between all ordered pairs of members, along the paths that their messages take.

    These are :func:`fastest_routes` where members relay (``view.relayed``), else the network's own
    (:func:`geojax.overlay.routes.logical.packet_links`). A relay takes a chunk whole before it
    sends it on, so that a chunk crosses the path's links one after the other: the rate is what many
    chunks get, one behind the other.
    """
    if not view.relayed:
        return packet_links(view, members)
    links = neighbour_links(view, members)
    position = {member: index for index, member in enumerate(members)}
    rate, delay, age = links.rate.copy(), links.delay.copy(), links.age.copy()
    for (source, target), path in fastest_routes(view, members, links).items():
        hops = pairwise(path)
        at = [(position[here], position[there]) for here, there in hops]
        end = position[source], position[target]
        rate[end] = min(links.rate[hop] for hop in at)
        delay[end] = sum(links.delay[hop] for hop in at)
        age[end] = max(links.age[hop] for hop in at)
    return LogicalLinks(tuple(members), rate, delay, age)
