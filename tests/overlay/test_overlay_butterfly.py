"""The shares of Hivemind's all-reduce against a solver of linear programs."""

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from overlay_graphs import mesh
from scipy.optimize import linprog

from geojax.overlay.planners.butterfly import access_rate, butterfly, load_shares
from geojax.overlay.planners.sharded_star import sharded_star
from geojax.overlay.view import NetworkView

rates = st.lists(st.floats(0.1, 100), min_size=3, max_size=9)


def slowest(rates, shares):
    count = len(rates)
    return max((1 + (count - 2) * share) / rate for rate, share in zip(rates, shares, strict=True))


@examples(60)
@given(rates)
def test_no_shares_are_faster(rates):
    count = len(rates)
    shares = load_shares(rates)
    assert sum(shares) == pytest.approx(1)
    assert min(shares) >= 0
    # variables w, T: (n − 2) w_i − b_i T ≤ −1
    rows = [
        [*((count - 2) * (i == j) for j in range(count)), -rate] for i, rate in enumerate(rates)
    ]
    best = linprog(
        [0] * count + [1], A_ub=rows, b_ub=[-1] * count, A_eq=[[1] * count + [0]], b_eq=[1]
    )
    assert slowest(rates, shares) == pytest.approx(best.fun, rel=1e-6)


def test_equal_rates_are_the_sharded_star():
    view = mesh([[10] * 4] * 4)
    ours, theirs = (o.plan(view, "abcd", [9], 1) for o in (butterfly(), sharded_star()))
    assert [(t.root, t.parent) for t in ours.trees] == [(t.root, t.parent) for t in theirs.trees]
    assert [t.share for t in ours.trees] == pytest.approx([t.share for t in theirs.trees])


def test_no_shares_of_some_members_are_faster():
    rates, sums = [3.0, 2.0, 4.0, 1.5], [True, False, True, True]
    shares = load_shares(rates, sums)
    assert shares[1] == 0
    assert sum(shares) == pytest.approx(1)
    rows = [[*(2 * (i == j) for j in range(4)), -rate] for i, rate in enumerate(rates)]
    bounds = [(0, None if does else 0) for does in [*sums, True]]
    best = linprog([0] * 4 + [1], rows, [-1] * 4, [[1] * 4 + [0]], [1], bounds)
    assert slowest(rates, shares) == pytest.approx(best.fun)


def test_only_members_that_all_can_reach_sum():
    view = mesh([[10] * 4] * 4)
    cut = view.with_rates({("b", "c"): 0.0, ("c", "b"): 0.0})
    trees = butterfly().plan(cut, "abcd", [9], 1).trees
    assert [(tree.root, tree.share) for tree in trees] == [("a", 0.5), ("d", 0.5)]
    apart = view.with_rates({(a, b): 0.0 for a in "ab" for b in "cd"})
    assert len(butterfly().plan(apart, "abcd", [9], 1).trees) == 4


def test_few_members_share_equally():
    assert load_shares([5.0]) == [1.0]
    assert load_shares([5.0, 1.0]) == [0.5, 0.5]


def test_a_center_without_a_link_that_works_changes_nothing():
    assert load_shares([0.0, 5.0, 5.0, 5.0]) == [0.25] * 4


def test_access_rate_is_the_narrower_way():
    rate = {("a", "b"): 3.0, ("b", "a"): 2.0, ("a", "c"): 4.0, ("c", "a"): 9.0}
    view = NetworkView(("a", "b", "c"), rate, {})
    assert [access_rate(view, center) for center in view.centers] == [7.0, 2.0, 4.0]
    capped = NetworkView(view.centers, rate, {}, egress={"a": 5.0}, ingress={"c": 1.0})
    assert [access_rate(capped, center) for center in view.centers] == [5.0, 2.0, 1.0]
