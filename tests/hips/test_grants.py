"""Grants: they never shrink, end exactly with the run, and close to the time limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.hips.control.grants import Grant


def test_a_short_run_is_granted_at_once():
    grants = Grant(10, None)
    assert (grants.until, grants.final) == (10, True)


def test_a_long_run_is_granted_64_rounds_ahead():
    grants = Grant(1000, None)
    assert (grants.until, grants.final) == (64, False)
    grants.extend(9, 1.0)
    assert (grants.until, grants.final) == (74, False)
    grants.extend(935, 100.0)
    assert (grants.until, grants.final) == (1000, True)


def test_a_run_that_continues_is_granted_from_its_first_round_on():
    assert Grant(1000, None, first=100).until == 164
    assert Grant(1000, 10.0, first=100).until == 102


def test_with_a_time_limit_the_grant_reaches_half_of_the_rounds_that_are_left():
    grants = Grant(1000, 100.0)
    grants.extend(9, 10.0)  # 10 rounds in 10 s: 90 are left
    assert (grants.until, grants.final) == (10 + 45, False)
    grants.extend(54, 55.0)
    assert grants.until == 55 + 22
    grants.extend(98, 99.5)  # half a round is left
    assert grants.until == 100


def test_after_the_limit_nothing_more_is_granted():
    grants = Grant(1000, 100.0)
    grants.extend(9, 10.0)
    grants.extend(30, 100.0)
    assert (grants.until, grants.final) == (55, True)
    grants.extend(54, 120.0)
    assert grants.until == 55


def test_nothing_is_concluded_from_a_time_before_the_start():
    grants = Grant(1000, 100.0, first=5)
    for now in (-0.5, 0.0):
        grants.extend(4, now)
    assert (grants.until, grants.final) == (7, False)


def test_who_comes_back_is_granted_rounds_by_its_own_pace_only():
    grants = Grant(1000, 100.0, first=500, since=(500, 60.0))
    assert (grants.until, grants.final) == (502, False)
    grants.extend(499, 62.0)
    assert grants.until == 502
    grants.extend(501, 64.0)  # 2 rounds in 4 s: 18 are left
    assert grants.until == 502 + 9


def test_no_more_rounds_are_granted_ahead_than_are_wanted():
    grants = Grant(1000, 100.0, ahead=8)
    grants.extend(9, 1.0)
    assert grants.until == 10 + 8
    assert Grant(1000, None, ahead=8).until == 8


moments = st.lists(
    st.tuples(st.integers(-1, 400), st.floats(-1, 300, allow_nan=False)), max_size=30
)


@given(rounds=st.integers(1, 300), limit=st.none() | st.floats(0.1, 200), moments=moments)
def test_a_grant_never_shrinks_and_never_passes_the_last_round(rounds, limit, moments):
    grants = Grant(rounds, limit)
    before, was_final = grants.until, grants.final
    assert 1 <= before <= rounds
    for held, now in moments:
        grants.extend(min(held, grants.until - 1), now)
        assert before <= grants.until <= rounds
        if was_final:
            assert (grants.until, grants.final) == (before, True)
        if grants.until == rounds:
            assert grants.final
        elif limit is None or now < limit:
            assert grants.final == was_final
        before, was_final = grants.until, grants.final


@given(
    rounds=st.integers(1, 200), limit=st.none() | st.floats(0.5, 60),
    length=st.floats(0.05, 100), beat=st.floats(0.1, 5),
)  # fmt: skip
def test_rounds_of_one_length_end_exactly_or_within_two_rounds_of_the_limit(
    rounds, limit, length, beat
):
    """Members go on as long as they have a grant, and ask when they have none; by the clock."""
    grants = Grant(rounds, limit)
    now, done, next_beat = 0.0, 0, 0.0

    def beats_until(end):
        nonlocal next_beat
        while next_beat <= end:
            grants.extend(done - 1, next_beat)
            next_beat += beat

    while done < grants.until or not grants.final:
        if done < grants.until:
            beats_until(now + length)
            now, done = now + length, done + 1
            grants.extend(done - 1, now)  # asked for, or the next heartbeat
        else:
            now = next_beat
            beats_until(now)
            assert done < grants.until or grants.final, "no grant, and none to come"
    if limit is None or now < limit:
        assert done == rounds
    assert limit is None or (done - 1) * length <= limit + 2 * length, "the start of the last round"


@pytest.mark.parametrize("limit", [None, 10.0])
def test_one_round_is_final_from_the_start(limit):
    assert Grant(1, limit).final
