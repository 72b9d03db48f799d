"""The earliest end of a synchronization during which rates change."""

import math
from dataclasses import replace

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from wans import path, random_wan, wan_of

from geojax.overlay.bounds.changing import SHORT, earliest_ends, mean_rates
from geojax.overlay.bounds.fluid import fluid_optimum
from geojax.overlay.bounds.release import earliest_end, later_offers, rate_of


def earliest(view, spells, offers, held, amount=1.0):
    found, same = earliest_ends(view, spells, amount, offers, held)
    assert found == same, "at a goodput of 1"
    return found


def scaled(view, factor):
    return {edge: factor * rate for edge, rate in view.rate.items()}


@given(seed=st.integers(0, 2**32), goodput=st.floats(0.5, 1))
@examples(20)
def test_rates_that_change_to_the_same_have_the_bound_of_those_that_stay(seed, goodput):
    view, rng = random_wan(seed), np.random.default_rng(seed)
    offers = {center: float(rng.uniform(0, 2)) for center in view.centers}
    bits = 1e8
    known = {later: rate_of(view, view.centers, later) for later in later_offers(offers)}
    held = max(offers.values()) + 30.0
    spells = [(float(at), view.rate) for at in range(8)]
    both = earliest_ends(view, spells, bits, offers, held, goodput)
    for found, share in zip(both, (1.0, goodput), strict=True):
        same = earliest_end(view, bits, offers, known, share)
        assert same.by_rates * (1 - SHORT) <= found.by_rates <= same.by_rates + 1e-6
        assert found.by_latency == same.by_latency


@given(seed=st.integers(0, 2**32))
@examples(20)
def test_it_is_the_first_instant_by_which_so_much_fits_through(seed):
    view, rng = random_wan(seed), np.random.default_rng(seed)
    bits, held = float(rng.uniform(1e6, 20e6)), 10.0
    changes = sorted(rng.uniform(0, held, int(rng.integers(1, 5))).tolist())
    rates = [
        {edge: float(rng.choice([2e6, 20e6, 180e6])) for edge in view.rate}
        for _ in range(1 + len(changes))
    ]
    spells = list(zip([0.0, *changes], rates, strict=True))
    end = earliest(view, spells, dict.fromkeys(view.centers, 0.0), held, bits).by_rates

    def through(until):
        return until * fluid_optimum(
            replace(view, rate=mean_rates(spells, 0.0, until)), view.centers
        )

    assert 0 < end < held
    assert through(end) <= bits * (1 + 1e-6)
    assert through(end / (1 - SHORT)) >= bits * (1 - 1e-6)


def test_the_member_that_is_slowest_decides():
    """c3 offers last, and what the link from c1 has lost it does not lack."""
    view = path(3)  # 1 bit/s each way
    spells = [(0.0, view.rate), (5.0, scaled(view, 0.5))]
    found = earliest(view, spells, {"c1": 0.0, "c2": 0.0, "c3": 4.0}, 20.0, amount=3.0)
    assert found.by_rates == pytest.approx(9.0, rel=SHORT)  # 1 bit until 5 s, 2 at half rate


def test_links_that_have_a_rate_one_after_the_other_do():
    """One way until 4 s, the other way from then on: an end that no single spell allows."""
    view = wan_of(2, [(0, 1), (1, 0)], delay=0.5)
    there, back = ({("c1", "c2"): a, ("c2", "c1"): 1.0 - a} for a in (1.0, 0.0))
    spells = [(0.0, there), (4.0, back)]
    found = earliest(view, spells, {"c1": 0.0, "c2": 0.0}, 9.0)
    assert found.by_rates == pytest.approx(5.0, rel=SHORT)
    assert found.by_latency == 1.0  # to the root and back


def test_an_end_before_the_bound_shows():
    view = path(2)
    spells = [(0.0, view.rate), (1.0, scaled(view, 0.5))]
    offers = {"c1": 0.0, "c2": 0.0}
    assert earliest(view, spells, offers, 2.0, amount=3.0).by_rates == pytest.approx(4.0)
    none = [(0.0, scaled(view, 0.0)), (1.0, scaled(view, 0.0))]
    for offers in ({"c1": 0.0, "c2": 0.0}, {"c1": 0.0, "c2": 0.5}):
        assert earliest(view, none, offers, 2.0).by_rates == math.inf


def test_what_is_offered_at_the_end_does_not_count():
    view = path(2)
    spells = [(0.0, view.rate), (1.0, scaled(view, 0.5))]
    found = earliest(view, spells, {"c1": 0.0, "c2": 3.0}, 3.0)
    assert found.by_rates == pytest.approx(1.0, rel=SHORT)
