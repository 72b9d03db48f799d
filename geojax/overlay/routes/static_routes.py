"""The path that a logical edge takes over a sparse WAN."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise

from geojax.errors import ConfigError
from geojax.overlay.view import Edge, NetworkView


def routes(view: NetworkView, *, ends: Collection[str] = ()) -> Mapping[Edge, tuple[str, ...]]:
    """The path of every ordered pair of centers: fewest hops, ties by lowest index.

    Of several shortest paths it takes the one whose sequence of center indices (the position in
    ``view.centers``) is lexicographically smallest. Such paths are consistent: the rest of a
    route, seen from any center on it, is that center's own route. So routing tables that only
    know the destination, as in IP, realize exactly these paths.

    Args:
      view: the WAN; only which links exist matters here.
      ends: centers that relay nothing. Paths stay consistent: a path from such a center never
        continues a shorter one through it.

    Returns:
      ``{(source, target): (source, ..., target)}``; the paths from a center are searched when the
      first of them is asked for, so that a few routes of a large WAN cost little.

    Raises:
      ConfigError: if some center cannot reach another one.

    >>> path = [("a", "b"), ("b", "c"), ("c", "b"), ("b", "a")]
    >>> view = NetworkView(("a", "b", "c"), rate=dict.fromkeys(path, 1e6), delay={})
    >>> routes(view)[("a", "c")]
    ('a', 'b', 'c')
    """
    return _Routes(view, ends)


def is_up(source: str, target: str, view: NetworkView) -> bool:
    """Whether no link on the route between two centers is out."""
    if all(view.rate.values()):
        return True
    return all(view.rate[hop] > 0 for hop in pairwise(routes(view)[source, target]))


def two_way(view: NetworkView) -> NetworkView:
    """The same WAN, where a link is out (rate 0) too while its return path is.

    Receivers acknowledge what comes, or nothing more is sent: while no packet gets back from b to
    a, TCP moves nothing from a to b either. The return path is the route from b to a, in most WANs
    the link in the other direction. Trees whose results go down the path that sums came up need
    both directions anyhow.

    >>> rates = {("a", "b"): 0.0, ("b", "a"): 1e6, ("b", "c"): 1e6, ("c", "b"): 1e6}
    >>> two_way(NetworkView(("a", "b", "c"), rates, {})).rate["b", "a"]
    0.0
    """
    out = {edge for edge, rate in view.rate.items() if rate <= 0}
    if not out:
        return view
    paths = routes(view)
    back = {(a, b): pairwise(paths[b, a]) for a, b in view.rate}
    return view.with_rates({edge: 0.0 for edge, hops in back.items() if not out.isdisjoint(hops)})


class _Routes(Mapping[Edge, tuple[str, ...]]):
    """Routes by predecessor: the center before each target, per source, once it was asked for."""

    def __init__(self, view: NetworkView, ends: Collection[str]):
        self._centers = view.centers
        self._position = {center: index for index, center in enumerate(view.centers)}
        self._ends = frozenset(self._position[center] for center in ends)
        self._onward: list[list[int]] = [[] for _ in view.centers]
        back: list[list[int]] = [[] for _ in view.centers]
        for source, target in view.rate:
            self._onward[self._position[source]].append(self._position[target])
            back[self._position[target]].append(self._position[source])
        for targets in self._onward:
            targets.sort()
        self._before: dict[int, list[int]] = {}
        if view.centers and -1 in (*self._search(0, self._onward), *self._search(0, back)):
            self._refuse()

    def __getitem__(self, edge: Edge) -> tuple[str, ...]:
        source, target = (self._position[center] for center in edge)
        if source == target:
            raise KeyError(edge)
        before = self._before.get(source)
        if before is None:
            before = self._before[source] = self._search(source, self._onward)
        path = [target]
        while path[-1] != source:
            path.append(before[path[-1]])
        return tuple(self._centers[index] for index in reversed(path))

    def __iter__(self) -> Iterator[Edge]:
        for source in self._centers:
            for target in self._centers:
                if target != source:
                    yield source, target

    def __len__(self) -> int:
        return len(self._centers) * (len(self._centers) - 1)

    def _refuse(self) -> None:
        """Names the first pair without a path."""
        for source, name in enumerate(self._centers):
            before = self._search(source, self._onward)
            if -1 in before:
                target = self._centers[before.index(-1)]
                fix = "no path of links leads there; add links"
                raise ConfigError("wan.links", f"{name}->{target}", fix)

    def _search(self, source: int, onward: Sequence[Sequence[int]]) -> list[int]:
        """Breadth-first search: each center's predecessor on its smallest shortest path, else -1.

        Centers enter the queue in the lexicographic order of their paths, so the first path that
        reaches a center is the smallest of its shortest ones. The source is its own predecessor.
        """
        before = [-1] * len(onward)
        before[source] = source
        waiting = deque([source])
        while waiting:
            center = waiting.popleft()
            if center in self._ends and center != source:
                continue
            for neighbour in onward[center]:
                if before[neighbour] < 0:
                    before[neighbour] = center
                    waiting.append(neighbour)
        return before
