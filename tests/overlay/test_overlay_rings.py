"""Orders of rings against all permutations, and the ring's trees."""

import itertools

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from overlay_graphs import mesh, networks

from geojax.overlay.planners import ring_orders
from geojax.overlay.planners.ring import ring, ring_order
from geojax.overlay.planners.ring_orders import cheapest_order, widest_order
from geojax.overlay.routes.fastest_routes import member_links
from geojax.overlay.view import NetworkView


def total(cost, order):
    return sum(cost[a][b] for a, b in steps(order))


def slowest(rate, order):
    return min(rate[a][b] for a, b in steps(order))


def steps(order):
    return list(zip(order, [*order[1:], order[0]], strict=True))


def round_trips(count):
    return ([0, *rest] for rest in itertools.permutations(range(1, count)))


@st.composite
def tables(draw, *, least=2, most=7):
    """Directed rates between a few members; few different values, so that ties are common."""
    count = draw(st.integers(least, most))
    values = st.integers(1, 20)
    return np.array([[draw(values) for _ in range(count)] for _ in range(count)], float)


@examples(40)
@given(tables())
def test_the_cheapest_order_is_the_best_of_all(cost):
    order = cheapest_order(cost)
    assert sorted(order) == list(range(len(cost)))
    assert order[0] == 0
    assert total(cost, order) == min(total(cost, other) for other in round_trips(len(cost)))


@examples(40)
@given(tables())
def test_the_widest_order_is_the_widest_and_of_these_the_cheapest(rate):
    order = widest_order(rate)
    assert sorted(order) == list(range(len(rate)))
    assert order[0] == 0
    best = max(slowest(rate, other) for other in round_trips(len(rate)))
    assert slowest(rate, order) == best
    widest = [other for other in round_trips(len(rate)) if slowest(rate, other) == best]
    assert total(1 / rate, order) == pytest.approx(min(total(1 / rate, o) for o in widest))


@examples(40)
@given(tables(least=3))
def test_the_heuristic_is_a_round_trip_that_no_reversal_improves(cost):
    order = ring_orders._improved(cost)
    assert sorted(order) == list(range(len(cost)))
    assert order[0] == 0
    for first, last in itertools.combinations(range(1, len(cost)), 2):
        reversed_ = [*order[:first], *order[first : last + 1][::-1], *order[last + 1 :]]
        assert total(cost, order) <= total(cost, reversed_) + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_many_members_on_a_circle_are_walked_around(seed):
    turn = np.random.default_rng(seed).permutation(30) * 2 * np.pi / 30
    points = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    cost = np.linalg.norm(points[:, None] - points[None], axis=2)
    order = cheapest_order(cost)
    assert sorted(order) == list(range(30))
    assert total(cost, order) == pytest.approx(30 * 2 * np.sin(np.pi / 30))


def test_many_members_on_one_wide_ring_find_it():
    rng = np.random.default_rng(5)
    hidden = rng.permutation(20)
    rate = rng.uniform(1, 2, (20, 20))
    rate[hidden, np.roll(hidden, -1)] = 9.0
    assert slowest(rate, widest_order(rate)) == 9.0


def test_wide_and_cheap_differ():
    """One slow step is cheaper than four middling ones."""
    rates = [[0, 99, 4, 4], [4, 0, 99, 4], [4, 4, 0, 99], [1.5, 4, 4, 0]]
    links = member_links(mesh(rates), "abcd")
    assert ring_order(links, "tsp") == ["a", "b", "c", "d"]
    order = ring_order(links, "bottleneck")
    assert slowest(links.rate, ["abcd".index(member) for member in order]) == 4e6


@examples(30)
@given(networks(most=6), st.sampled_from(["tsp", "bottleneck"]))
def test_chains_run_once_round_to_the_root_and_on(view, order):
    policy = ring(order=order).plan(view, view.centers, [1000], 1)
    around = ring_order(member_links(view, view.centers), order)
    assert [tree.root for tree in policy.trees] == list(view.centers)
    for tree in policy.trees:
        up, down = [around[(around.index(tree.root) + 1) % len(around)]], [tree.root]
        while up[-1] != tree.root:
            up.append(tree.parent[up[-1]])
        receivers = {source: member for member, source in tree.down.items()}
        assert len(receivers) == len(tree.down)  # each sends to one
        while down[-1] in receivers:
            down.append(receivers[down[-1]])
        start = around.index(tree.root)
        assert down == around[start:] + around[:start]
        assert up == [*down[1:], tree.root]


def test_a_logical_link_has_the_rate_of_its_slowest_hop():
    rate = {("a", "b"): 8e6, ("b", "c"): 2e6, ("c", "d"): 4e6, ("d", "a"): 6e6}
    view = NetworkView(tuple("abcd"), rate, dict.fromkeys(rate, 0.01), age={("b", "c"): 3.0})
    links = member_links(view, "acd")
    assert links.rate.tolist() == [[0, 2e6, 2e6], [4e6, 0, 4e6], [6e6, 2e6, 0]]
    assert links.delay[0, 2] == pytest.approx(0.03)
    assert links.age.tolist() == [[0, 3, 3], [0, 0, 0], [0, 3, 0]]
    assert links.seconds(1000)[0, 1] == pytest.approx(0.016 + 0.02)
