"""The earliest end of a synchronization whose members make their offers one by one."""

import math

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from wans import path, random_wan, wan_of

from geojax.overlay.bounds.bound import bounds
from geojax.overlay.bounds.fluid import fluid_optimum
from geojax.overlay.bounds.latency import latency_bound
from geojax.overlay.bounds.release import earliest_end, later_offers, rate_of

BIT = 1 / 8  # bytes


def earliest(view, offers, bits=1.0, goodput=1.0):
    rates = {later: rate_of(view, tuple(offers), later) for later in later_offers(offers)}
    return earliest_end(view, bits, offers, rates, goodput)


@given(seed=st.integers(0, 2**32), at=st.floats(0, 9), goodput=st.floats(0.5, 1))
@examples(20)
def test_offers_at_one_instant_have_the_bound_of_the_wan(seed, at, goodput):
    view = random_wan(seed)
    found = earliest(view, dict.fromkeys(view.centers, at), goodput=goodput)
    assert found.by_rates == pytest.approx(at + bounds(view, BIT).fluid_s / goodput)
    assert found.by_latency == pytest.approx(at + latency_bound(view, view.centers))


@given(seed=st.integers(0, 2**32))
@examples(20)
def test_the_rate_for_fewer_offers_is_higher(seed):
    view = random_wan(seed)
    order = np.random.default_rng(seed).permutation(view.centers)
    found = [fluid_optimum(view, view.centers, order[:count]) for count in (1, 2, len(order))]
    assert sorted(found, reverse=True) == pytest.approx(found, rel=1e-6)


def test_a_single_late_offer_is_broadcast():
    view = path(3)  # 1 bit/s each way
    assert earliest(view, {"c1": 0.0, "c2": 0.0, "c3": 50.0}) == pytest.approx((51.0, 50.02))
    assert earliest(view, {"c1": 49.9, "c2": 0.0, "c3": 50.0}).by_rates == pytest.approx(51.0)
    halves = wan_of(3, [(0, 1), (1, 0), (1, 2), (2, 1)], rate=[0.1, 1.0, 1.0, 1.0])
    assert earliest(halves, {"c1": 0.0, "c2": 0.0, "c3": 50.0}).by_rates == pytest.approx(51.0)
    assert earliest(halves, {"c1": 45.0, "c2": 0.0, "c3": 50.0}).by_rates == pytest.approx(55.0)


def test_delay_decides_where_it_is_long():
    found = earliest(path(3, delay=7.0), {"c1": 0.0, "c2": 1.0, "c3": 2.0})
    assert found.end == found.by_latency == 16.0


def test_centers_that_cannot_reach_each_other_never_end():
    assert earliest(wan_of(2, [(0, 1)]), {"c1": 0.0, "c2": 1.0}).end == math.inf
