"""The bounds of a synchronization: closed forms, and that they are bounds."""

import math
from dataclasses import replace
from itertools import combinations
from unittest import mock

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from wans import full_mesh, path, random_wan, ring, wan_of

from geojax.overlay.bounds import latency
from geojax.overlay.bounds.bound import Bounds, bounds
from geojax.overlay.bounds.cut import min_cut
from geojax.overlay.bounds.fluid import fluid_optimum
from geojax.overlay.view import NetworkView

BIT = 1 / 8  # bytes


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (full_mesh(9, egress=1.0, ingress=1.0), 16 / 9),  # 2 (N-1) / N
        (full_mesh(9, egress=1.0), 16 / 9),
        (full_mesh(9, ingress=1.0), 16 / 9),
        (ring(9), 8 / 9),  # (N-1) / N
        (path(9), 1.0),
        (path(2), 1.0),
        (wan_of(9, [(node, (node + 1) % 9) for node in range(9)]), 16 / 9),  # a one-way ring
        (wan_of(4, [(0, 1), (1, 0), (0, 2), (2, 0), (0, 3), (3, 0)], egress=1.0), 3.0),
    ],
)
def test_closed_forms(view, expected):
    assert bounds(view, BIT).bound_s == pytest.approx(expected, rel=1e-6)


@given(st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_a_plain_search_and_scipys_find_the_same_delays(nodes, seed):
    draw = np.random.default_rng(seed)
    edges = [(a, b) for a in range(nodes) for b in range(nodes) if a != b and draw.random() < 0.4]
    delays = [float(delay) * (draw.random() < 0.8) for delay in draw.random(len(edges))]
    found = []
    for few in (0, nodes):
        latency._shortest.cache_clear()
        with mock.patch.object(latency, "FEW", few):
            found.append(latency._shortest(nodes, tuple(edges), tuple(delays)))
    np.testing.assert_array_equal(*found)


def test_the_parts_of_a_ring():
    found = bounds(ring(9, delay=0.01), BIT)
    assert found[:3] == pytest.approx((1 / 2, 1 / 2, 8 / 9))
    assert found.latency_s == pytest.approx(0.08)  # four links there, four back


def test_size_and_rates_scale_the_time():
    view = random_wan(3)
    faster = replace(
        view, rate={edge: 2 * rate for edge, rate in view.rate.items()}, egress={}, ingress={}
    )
    plain = replace(view, egress={}, ingress={})
    assert bounds(plain, 3e6).bound_s == pytest.approx(3 * bounds(plain, 1e6).bound_s)
    assert bounds(faster, 1e6).bound_s == pytest.approx(bounds(plain, 1e6).bound_s / 2)


def test_one_center_has_nothing_to_wait_for():
    assert bounds(NetworkView(("a",), {}, {}), 1e9) == Bounds(0, 0, 0, 0, 0)


def test_centers_that_cannot_reach_each_other_never_end():
    apart = wan_of(3, [(0, 1), (1, 0), (1, 2)])
    assert bounds(apart, BIT).bound_s == math.inf
    assert bounds(wan_of(2, [(0, 1), (1, 0)], rate=0.0), BIT) == Bounds(*[math.inf] * 5)


def test_a_link_without_rate_is_none():
    whole = ring(4)
    broken = replace(whole, rate={**whole.rate, ("c1", "c2"): 0.0, ("c2", "c1"): 0.0})
    assert bounds(broken, BIT).bound_s == pytest.approx(1.0)
    assert bounds(broken, BIT).latency_s == pytest.approx(0.04)  # a path now


def test_a_center_that_is_no_member_may_relay_and_merge():
    view = wan_of(3, [(0, 1), (1, 0), (1, 2), (2, 1)])
    ends = bounds(view, BIT, ("c1", "c3"))
    assert ends.bound_s == pytest.approx(1.0)
    assert ends.latency_s == pytest.approx(0.02)
    assert bounds(view, BIT, ("c2",)).bound_s == 0


@examples(25)
@given(st.integers(0, 2**32))
def test_no_bound_is_above_the_optimum(seed):
    view = random_wan(seed)
    found = bounds(view, 1e6)
    assert max(found.cut_s, found.node_s, found.volume_s) <= found.bound_s * (1 + 1e-6)
    assert found.node_s <= found.cut_s * (1 + 1e-6)


@examples(20)
@given(st.integers(0, 2**32))
def test_the_optimum_is_at_least_that_of_the_best_single_tree(seed):
    """Summing over a path of fewest hops and back is one schedule: half its slowest link."""
    view = random_wan(seed, caps=False)
    slowest = min(view.rate.values())
    assert fluid_optimum(view, view.centers) >= slowest / 2 * (1 - 1e-6)


@given(st.integers(0, 2**32))
def test_the_smallest_cut_among_some_members_is_found(seed):
    view = random_wan(seed, most=5, caps=False)
    members = view.centers[1:]
    cut = min_cut(view, members)
    if len(members) < 2:
        assert cut is None
        return
    everyone = view.centers
    cuts = [
        sum(rate for (a, b), rate in view.rate.items() if a in near and b not in near)
        for size in range(1, len(everyone))
        for near in combinations(everyone, size)
        if 0 < len(set(near) & set(members)) < len(members)
    ]
    assert cut.rate == pytest.approx(min(cuts))
