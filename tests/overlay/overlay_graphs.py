"""Random small WANs for tests of overlays."""

import itertools
from collections.abc import Sequence

from hypothesis import strategies as st

from geojax.overlay.routes.fastest_paths import disjoint_paths
from geojax.overlay.routes.logical import CHUNK_ELEMENTS, neighbour_links
from geojax.overlay.view import NetworkView


@st.composite
def networks(draw, *, most=5, delays=True):
    """Two to ``most`` centers, joined by a ring and any other directed links, uneven rates."""
    centers = [f"c{number}" for number in range(1, draw(st.integers(2, most)) + 1)]
    ring = list(zip(centers, centers[1:] + centers[:1], strict=True))
    others = [pair for pair in itertools.permutations(centers, 2) if pair not in ring]
    more = draw(st.lists(st.sampled_from(others), unique=True)) if others else []
    edges = list(dict.fromkeys([*ring, *more]))
    rate = {edge: draw(st.integers(1, 9)) * 1e6 for edge in edges}
    delay = {edge: draw(st.integers(0, 5)) / 1000 if delays else 0.0 for edge in edges}
    return NetworkView(tuple(centers), rate, delay)


def mesh(rates):
    """A full mesh of centers a, b, c, ... from a table of Mbit/s ``[from][to]``."""
    names = tuple("abcdefghij"[: len(rates)])
    pairs = itertools.permutations(range(len(rates)), 2)
    rate = {(names[i], names[j]): rates[i][j] * 1e6 for i, j in pairs}
    return NetworkView(names, rate, dict.fromkeys(rate, 0.0))


def auxiliary_routes(
    view: NetworkView,
    source: str,
    target: str,
    *,
    members: Sequence[str] | None = None,
    elements: int = CHUNK_ELEMENTS,
    processing_s: float = 0.0,
) -> list[tuple[str, ...]]:
    """Paths for a chunk from one center to another that share no center in between.

    The first is the primary path, the one in the target's tree. The others, in increasing time, are
    taken greedily: each is the fastest that has no interior center of an earlier one, as in the
    release (``add_route``), where the candidates are all simple paths in order. A direct link has
    no interior, so that it is always among them.

    Args:
      view: the WAN.
      source: where the chunk is.
      target: where it goes.
      members: centers that may relay, the two among them; None: all.
      elements: of a chunk.
      processing_s: at each end of a link, s.

    >>> links = dict.fromkeys([("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")], 8e6)
    >>> links |= {("a", "c"): 1e6, ("c", "a"): 1e6}
    >>> auxiliary_routes(NetworkView(("a", "b", "c"), links, {}), "a", "c")
    [('a', 'b', 'c'), ('a', 'c')]
    """
    names = tuple(view.centers if members is None else members)
    seconds = neighbour_links(view, names).seconds(elements, processing_s=processing_s)
    found = disjoint_paths(seconds, names.index(source), names.index(target))
    return [tuple(names[node] for node in path) for path in found]
