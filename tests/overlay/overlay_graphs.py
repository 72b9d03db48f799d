"""Random small WANs for tests of overlays."""

import itertools

from hypothesis import strategies as st

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
