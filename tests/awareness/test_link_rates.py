"""The estimator of link rates, on samples made by hand."""

import pytest
from wans import path, ring

from geojax.awareness.link_rates import ASSUMED_RATE, CHANGE_BYTES, CHANGED, HALF_LIFE_S, LinkRates

MB = 1_000_000
AB, BA, BC = ("c1", "c2"), ("c2", "c1"), ("c2", "c3")


def megabits(rates, edge):
    return rates.rates()[edge] / 1e6


def test_before_anything_is_known_all_links_are_equal_whatever_they_are():
    known = ring(4, rate=[1.0, 2.0, 3.0, 4.0] * 2)
    rates = LinkRates(known)
    assert set(rates.rates().values()) == {ASSUMED_RATE}
    assert (rates.view(0.0).delay, rates.view(0.0).age) == (known.delay, {})


def test_what_was_never_measured_is_as_fast_as_the_fastest_known():
    rates = LinkRates(ring(4))
    rates.take(*AB, MB, 1.0, now=0.0)
    assert set(rates.rates().values()) == {8e6}
    rates.take(*BC, MB, 0.1, now=0.0)
    assert megabits(rates, AB) == pytest.approx(8.0)
    assert {edge: rate for edge, rate in rates.rates().items() if edge != AB} == dict.fromkeys(
        [edge for edge in ring(4).rate if edge != AB], 8e7
    )


def test_directions_are_apart():
    rates = LinkRates(ring(4))
    rates.take(*AB, MB, 1.0, now=0.0)
    rates.take(*BA, MB, 0.5, now=0.0)
    assert (megabits(rates, AB), megabits(rates, BA)) == (8.0, 16.0)


def test_a_rate_is_all_bytes_over_all_seconds():
    rates = LinkRates(ring(4))
    rates.take(*AB, 3 * MB, 1.0, now=0.0)
    rates.take(*AB, 0.3 * MB, 0.11, now=0.0)
    assert megabits(rates, AB) == pytest.approx(8 * 3.3 / 1.11)


def test_samples_fade_and_links_that_are_not_used_keep_their_rate():
    rates = LinkRates(ring(4))
    rates.take(*AB, MB, 1.0, now=0.0)
    rates.take(*AB, MB, 1.1, now=HALF_LIFE_S)
    assert megabits(rates, AB) == pytest.approx(8 * 1.5 / 1.6)
    assert rates.view(now=100.0).rate[AB] == rates.rates()[AB]
    assert rates.view(now=100.0).age == {AB: pytest.approx(100.0 - HALF_LIFE_S)}


@pytest.mark.parametrize("factor", [1 - 1.1 * CHANGED, 1 + 1.1 * CHANGED, 5.0])
def test_a_link_that_changed_is_believed_at_once(factor):
    rates = LinkRates(ring(4))
    rates.take(*AB, 100 * MB, 100.0, now=0.0)
    rates.take(*AB, MB, 1.0 / factor, now=1.0)
    assert megabits(rates, AB) == pytest.approx(8.0 * factor)


def test_a_few_bytes_do_not_say_that_a_link_changed():
    rates = LinkRates(ring(4))
    rates.take(*AB, 100 * MB, 100.0, now=0.0)
    rates.take(*AB, CHANGE_BYTES - 1, 0.01, now=0.0)
    assert megabits(rates, AB) == pytest.approx(8.0, rel=0.01)
    assert rates.changed_at == float("-inf")


def test_a_few_bytes_are_enough_where_what_was_known_has_faded():
    rates = LinkRates(ring(4))
    rates.take(*AB, 3 * CHANGE_BYTES, 1.0, now=0.0)
    rates.take(*AB, CHANGE_BYTES - 1, 0.01, now=2 * HALF_LIFE_S)
    assert megabits(rates, AB) == pytest.approx(8 * (CHANGE_BYTES - 1) / 0.01 / 1e6)
    assert rates.changed_at == 2 * HALF_LIFE_S


def test_samples_over_several_hops_are_lower_bounds_where_there_are_no_others():
    rates = LinkRates(path(3))
    rates.take("c1", "c3", 2 * MB, 1.0, now=0.0)
    assert (megabits(rates, AB), megabits(rates, BC)) == (16.0, 16.0)
    assert rates.view(0.0).age == {}
    rates.take(*AB, MB, 1.0, now=0.0)
    assert (megabits(rates, AB), megabits(rates, BC)) == (8.0, 16.0)
    rates.take(*BA, 10 * MB, 1.0, now=0.0)
    assert (megabits(rates, AB), megabits(rates, BC)) == (8.0, 80.0)


def test_a_link_that_is_out_has_no_rate_until_it_is_back_with_its_old_one():
    rates = LinkRates(ring(4))
    rates.take(*AB, MB, 1.0, now=0.0)
    rates.set_out(AB, out=True)
    rates.set_out(("c1", "c3"), out=True)  # no link
    assert (megabits(rates, AB), rates.out) == (0.0, (AB,))
    rates.set_out(AB, out=False)
    assert (megabits(rates, AB), rates.out) == (8.0, ())
    rates.take(*AB, MB, 60.0, now=60.0)  # the outage is in it
    assert megabits(rates, AB) == 8.0
    rates.take(*AB, MB, 0.5, now=61.0)
    assert megabits(rates, AB) == pytest.approx(16.0)


def test_whatever_comes_through_brings_a_link_back():
    rates = LinkRates(ring(4))
    rates.take(*AB, MB, 0.5, now=0.0)
    rates.set_out(AB, out=True)
    rates.take(*AB, MB, 60.0, now=60.0)
    assert (megabits(rates, AB), rates.out) == (16.0, ())
    rates.take(*AB, MB, 1.0, now=61.0)
    assert megabits(rates, AB) == pytest.approx(8.0)


@pytest.mark.parametrize(
    "sample", [("c1", "c1", 1, 1.0), ("c1", "x", 1, 1.0), (*AB, 0, 1.0), (*AB, 1, 0.0)]
)
def test_samples_that_mean_nothing_are_refused(sample):
    with pytest.raises(ValueError, match="expected"):
        LinkRates(ring(4)).take(*sample, now=0.0)
