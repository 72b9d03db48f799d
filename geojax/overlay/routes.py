"""Which way a logical edge takes over a sparse WAN."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from geojax.errors import ConfigError
from geojax.overlay.view import Edge, NetworkView


def routes(view: NetworkView) -> dict[Edge, tuple[str, ...]]:
    """The path of every ordered pair of centers: fewest hops, ties by lowest index.

    Of several shortest paths it takes the one whose sequence of center indices (the position in
    ``view.centers``) is lexicographically smallest. Such paths are consistent: the rest of a
    route, seen from any center on it, is that center's own route. So routing tables that only
    know the destination, as in IP, realize exactly these paths.

    Args:
      view: the WAN; only which links exist matters here.

    Returns:
      ``{(source, target): (source, ..., target)}``.

    Raises:
      ConfigError: if some center cannot reach another one.

    >>> path = [("a", "b"), ("b", "c"), ("c", "b"), ("b", "a")]
    >>> view = NetworkView(("a", "b", "c"), rate=dict.fromkeys(path, 1e6), delay={})
    >>> routes(view)[("a", "c")]
    ('a', 'b', 'c')
    """
    position = {center: index for index, center in enumerate(view.centers)}
    neighbours: dict[str, list[str]] = {center: [] for center in view.centers}
    for source, target in view.rate:
        neighbours[source].append(target)
    for targets in neighbours.values():
        targets.sort(key=position.__getitem__)
    found: dict[Edge, tuple[str, ...]] = {}
    for source in view.centers:
        paths = _paths_from(source, neighbours)
        for target in view.centers:
            if target not in paths:
                fix = "no path of links leads there; add links"
                raise ConfigError("wan.links", f"{source}->{target}", fix)
            if target != source:
                found[source, target] = paths[target]
    return found


def _paths_from(source: str, neighbours: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Breadth-first search: the smallest shortest path to every center that can be reached.

    Centers enter the queue in the lexicographic order of their paths, so the first path that
    reaches a center is the smallest of its shortest ones.
    """
    paths: dict[str, tuple[str, ...]] = {source: (source,)}
    waiting = deque([source])
    while waiting and len(paths) < len(neighbours):
        center = waiting.popleft()
        for neighbour in neighbours[center]:
            if neighbour not in paths:
                paths[neighbour] = (*paths[center], neighbour)
                waiting.append(neighbour)
    return paths
