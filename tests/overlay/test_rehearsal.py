"""Rehearsed synchronizations: exact where one can count, and near what simulated runs take."""

import pytest
from wans import full_mesh, path

from geojax.overlay.planners.columns import Pair
from geojax.overlay.planners.rehearsal import Rehearsal
from geojax.overlay.routes.shared_links import shared_links


def took(links, *arguments, **options):
    """When the last chunk is held."""
    return Rehearsal(links).held(*arguments, **options).max()


RATE = 8.0  # bit/s
CHUNK = 8.0  # bits: one a second


def chain(count, **options):
    """A path of centers, and the pair of its only trees with the last one as the root."""
    view = path(count, **{"rate": RATE, **options})
    links = shared_links(view, view.centers)
    link = {(a, b): at for at, (a, b) in enumerate(zip(links.sources, links.targets, strict=True))}
    up = (*(link[node, node + 1] for node in range(count - 1)), -1)
    down = (*(link[node + 1, node] for node in range(count - 1)), -1)
    return links, Pair(count - 1, up, down)


@pytest.mark.parametrize("chunks", [1, 5])
@pytest.mark.parametrize("delay", [0.0, 0.25])
def test_a_chain_fills_its_pipe_once(chunks, delay):
    """Over d links up and d down the first chunk takes 2d s, each of the others 1 s more."""
    links, pair = chain(4, delay=delay)
    held = Rehearsal(links).held([pair], [0] * chunks, [CHUNK] * chunks)
    assert held.tolist() == [6 * (1 + delay) + chunk for chunk in range(chunks)]


def test_a_star_waits_for_all_and_sends_to_all_at_once():
    view = full_mesh(4, rate=RATE, delay=0.5)
    links = shared_links(view, view.centers)
    link = {(a, b): at for at, (a, b) in enumerate(zip(links.sources, links.targets, strict=True))}
    star = Pair(0, (-1, *(link[n, 0] for n in (1, 2, 3))), (-1, *(link[0, n] for n in (1, 2, 3))))
    assert took(links, [star], [0] * 5, [CHUNK] * 5) == 5 + 1 + 2 * 0.5


def test_a_cap_is_shared():
    """Three children send to a root that takes in one chunk a second."""
    view = full_mesh(4, rate=RATE, delay=0.0, ingress=RATE)
    links = shared_links(view, view.centers)
    link = {(a, b): at for at, (a, b) in enumerate(zip(links.sources, links.targets, strict=True))}
    star = Pair(0, (-1, *(link[n, 0] for n in (1, 2, 3))), (-1, *(link[0, n] for n in (1, 2, 3))))
    assert took(links, [star], [0] * 5, [CHUNK] * 5) == 15 + 1


def test_chunks_with_lower_numbers_go_first():
    """The result of chunk 1 comes to a link after chunk 2, and leaves before it."""
    links, pair = chain(2, delay=0.0)
    back = Pair(0, (-1, pair.down[0]), (-1, pair.up[0]))
    ended = took(links, [pair, back], [0, 1, 0], [3 * CHUNK, CHUNK, 3 * CHUNK])
    assert ended == 10, "up 0 to 3, 4 to 7, down 7 to 10; in order of coming it would be 9"


def test_new_connections_begin_slowly():
    """One chunk over one link and back: a round trip to set up, then windows that double."""
    links, pair = chain(2, delay=1.0)
    window = 10 * 1460 * 8.0  # bits, which take 1 / RATE s each
    least = 2 * (2 + 1)  # set-up, and the way; there and back
    assert took(links, [pair], [0], [CHUNK], cold=True) == 2 * CHUNK / RATE + least
    fast, pair = chain(2, delay=1.0, rate=1e12)
    ended = took(fast, [pair], [0], [3 * window], cold=True)
    assert ended == pytest.approx(least + 2 * 2, abs=1e-3), "a window, a round trip, two more"
    ended = took(fast, [pair], [0], [3 * window + 1], cold=True)
    assert ended == pytest.approx(least + 2 * 4, abs=1e-3)
    assert took(fast, [pair], [0], [3 * window]) == pytest.approx(2, abs=1e-3)


def test_what_relays_is_on_the_way():
    """Members at the ends of a path: a chunk takes two links, one after the other, as packets."""
    view = path(3, rate=RATE, delay=0.5)
    links = shared_links(view, ("c1", "c3"))
    pair = Pair(1, (0, -1), (1, -1))
    assert took(links, [pair], [0] * 3, [CHUNK] * 3) == 4 + 2 * 1.0
