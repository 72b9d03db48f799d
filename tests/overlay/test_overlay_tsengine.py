"""TSEngine's rules, played through."""

from collections import Counter
from random import Random

import numpy as np
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from overlay_graphs import mesh, networks

from geojax.overlay.planners import tsengine as module
from geojax.overlay.planners.tsengine import tsengine
from geojax.overlay.routes.fastest_paths import distances
from geojax.overlay.routes.fastest_routes import member_links
from geojax.overlay.routes.logical import OUTAGE_RATE
from geojax.overlay.view import NetworkView

SIZES = [65_536] * 20
UP = np.ones((9, 9), bool)
RATES = [[0, 9, 5, 5], [2, 0, 7, 5], [5, 3, 0, 8], [5, 5, 1, 0]]


def plan(view, version=1, sizes=SIZES, **options):
    return tsengine(**options).plan(view, view.centers, sizes, version)


@examples(40)
@given(networks(most=7), st.booleans())
def test_both_ways_span_all_members(view, faithful):
    for tree in plan(view, faithful=faithful).trees:
        for way in (tree.parent, tree.down):
            assert list(way) == [member for member in view.centers if member != tree.root]
            for member in way:
                here, taken = member, 0
                while here != tree.root:
                    here, taken = way[here], taken + 1
                    assert taken < len(view.centers)


def test_a_draw_per_chunk_up_to_sixteen():
    assert len(plan(mesh(RATES), sizes=[9] * 3).trees) == 3
    assert len(plan(mesh(RATES), sizes=[9] * 99).trees) == 16


def test_versions_and_seeds_draw_anew():
    view = mesh(RATES)
    assert plan(view).trees == plan(view).trees
    assert plan(view, version=2).trees != plan(view, version=1).trees
    assert plan(view, seed=2).trees != plan(view, seed=1).trees


def test_the_better_link_sends():
    """Of a pair without the root, the one with the faster way to the other is the sender."""
    seconds = np.array([[np.inf, 1, 1], [1, np.inf, 1], [1, 1, np.inf]])
    measured = np.array([[0, 5, 5], [5, 0, 7], [5, 3, 0]], float)
    seen = Counter()
    for seed in range(40):
        parent = module._aggregate(0, seconds, measured, UP, Random(seed))
        assert set(parent) == {1, 2}
        seen[tuple(sorted(parent.items()))] += 1
        assert parent.get(2) != 1  # 1 -> 2 has 7, 2 -> 1 has 3
    assert set(seen) == {((1, 0), (2, 0)), ((1, 2), (2, 0))}


def test_the_root_only_receives_and_asks_again():
    parent = module._aggregate(0, np.full((2, 2), 1.0), np.zeros((2, 2)), UP, Random(0))
    assert parent == {1: 0}
    for tree in plan(mesh(RATES), root="c").trees:
        assert tree.root == "c"
        assert "c" not in tree.parent


def test_all_greed_goes_to_the_fastest_first():
    for tree in plan(mesh(RATES), greed=1.0).trees:
        # a serves b first (9 Mbit/s); then b serves c (7) while a, done at the same time but
        # asking first, serves c or d (5 each): c, the first
        assert tree.down == {"b": "a", "c": "a", "d": "b"}


def test_without_greed_everyone_is_served_by_chance():
    policies = [plan(mesh([[5] * 4] * 4), version, greed=0) for version in range(5)]
    served = {frozenset(tree.down.items()) for policy in policies for tree in policy.trees}
    assert len(served) == 6  # one of three first; then the root serves one of two, it the other


def draws(choose, known, greed, times=2000):
    """How often each of three receivers is taken; the rate to the last one is the highest."""
    rng = Random(3)
    measured, known = np.array([1.0, 2.0, 3.0]), np.array(known)
    found = Counter(choose([0, 1, 2], measured, known, greed, rng) for _ in range(times))
    return [found[node] / times for node in range(3)]


def near(shares, expected):
    return np.allclose(shares, expected, atol=0.04)


def test_the_rule_that_was_meant():
    assert near(draws(module._choose, [True] * 3, 0.9), [0.1 / 3, 0.1 / 3, 0.9 + 0.1 / 3])
    assert near(draws(module._choose, [False, True, True], 0.9), [1 / 3, 0, 2 / 3])
    assert near(draws(module._choose, [False, False, True], 0.2), [0.4, 0.4, 0.2])
    assert near(draws(module._choose, [False] * 3, 0.9), [1 / 3] * 3)


def test_the_rule_of_the_release():
    """Integer division: no greed but one in ten while a rate is unknown; a cap of 0.9 is none."""
    choose = module._choose_faithfully
    assert draws(choose, [True] * 3, 0.9) == [0, 0, 1]
    assert near(draws(choose, [True] * 3, 0.8), [0.1 / 3, 0.1 / 3, 0.9 + 0.1 / 3])
    assert near(draws(choose, [False, True, True], 0.9), [0.3, 0.3, 0.4])
    assert near(draws(choose, [False] * 3, 0.9), [1 / 3] * 3)


def test_rates_of_infinite_age_are_unknown():
    view = mesh(RATES)
    unknown = NetworkView(
        view.centers, view.rate, view.delay, age=dict.fromkeys(view.rate, float("inf"))
    )
    assert plan(unknown, greed=1.0).trees != plan(view, greed=1.0).trees


def test_the_release_counts_whole_transfers():
    """Rates that differ by less than one transfer a second look equal to it."""
    rates = [[0, 5.0, 5.4], [5, 0, 5], [5, 5, 0]]  # 2.4 and 2.6 chunks of 2.1 Mbit a second
    first = [
        min(tree.down, key=lambda member: (tree.down[member] != "a", member))
        for tree in plan(mesh(rates), faithful=True).trees
    ]
    assert set(first) == {"b"}


@examples(60)
@given(networks(most=7), st.randoms(use_true_random=False), st.booleans())
def test_no_link_that_is_out_is_taken_if_there_is_another_way(view, rng, faithful):
    """Links of all kinds go out, as long as those that stay connect everybody."""
    view = NetworkView(view.centers, {e: 5e6 for a, b in view.rate for e in ((a, b), (b, a))}, {})
    for edge in rng.sample(list(view.rate), len(view.rate)):
        less = view.with_rates({edge: 0.0, edge[::-1]: 0.0})
        ups = {e for e, rate in less.rate.items() if rate}
        member_up = member_links(less, less.centers).rate > OUTAGE_RATE
        if ups and np.isfinite(distances(np.where(member_up, 1.0, np.inf))).all():
            view = less
    up = member_links(view, view.centers).rate > OUTAGE_RATE
    at = {center: index for index, center in enumerate(view.centers)}
    for tree in plan(view, faithful=faithful).trees:
        assert len(tree.parent) == len(tree.down) == len(view.centers) - 1
        assert all(up[at[child], at[parent]] for child, parent in tree.parent.items())
        assert all(up[at[source], at[child]] for child, source in tree.down.items())
