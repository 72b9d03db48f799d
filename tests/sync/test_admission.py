"""Admission rules, driven by lists of arrivals: no network, no clock."""

import pytest

from geojax.sync.admission import buffer, immediately, quorum, tiers
from geojax.sync.algorithm import Arrival, Desk


def desk(*arrived, merged=(), retired=(), now=0.0):
    """``arrived``: names of centers, in order; the k-th came at k seconds, in round 5."""
    pushes = tuple(Arrival(center, 5, float(at)) for at, center in enumerate(arrived))
    known = {"c1": 4, "c2": 4, "c3": 4, **dict(merged)}
    return Desk(pushes, known, frozenset(retired), max(known.values()), now)


def test_immediately_takes_one_at_a_time_in_order():
    rule = immediately()
    assert rule.admit(desk()) == ()
    assert rule.admit(desk("c2", "c1")) == ("c2",)
    assert not rule.answers("c2", 5, desk()), "it is not merged yet"
    assert rule.answers("c2", 5, desk(merged={"c2": 5}))
    assert rule.again(desk("c2")) is None


@pytest.mark.parametrize(("bound", "answered"), [(0, False), (1, True)])
def test_a_bound_holds_the_answer_back_until_the_slowest_is_near(bound, answered):
    rule = immediately(bound)
    assert rule.answers("c1", 5, desk(merged={"c1": 5})) == answered
    assert rule.answers("c1", 5, desk(merged={"c1": 5, "c2": 5, "c3": 5}))
    assert rule.answers("c1", 5, desk(merged={"c1": 5, "c2": 5}, retired=["c3"]))


def test_a_buffer_waits_for_as_many_as_it_holds_and_answers_at_once():
    rule = buffer(2, "sync.buffer")
    assert rule.admit(desk("c3")) == ()
    assert rule.admit(desk("c3", "c3", "c1")) == ("c3", "c3"), "one center may fill it"
    assert rule.answers("c3", 5, desk("c3"))
    assert rule.least == ("sync.buffer", 2, 2)


def test_a_quorum_waits_out_its_grace_unless_everyone_is_there():
    rule = quorum(2, 10.0, "sync.quorum")
    assert rule.again(desk("c1")) is None
    two = desk("c1", "c3", now=10.5)
    assert (rule.admit(two), rule.again(two)) == ((), 11.0)
    assert rule.admit(two._replace(now=11.0)) == ("c1", "c3")
    assert rule.admit(desk("c1", "c3", "c2", now=2.0)) == ("c1", "c3", "c2")
    assert rule.admit(desk("c1", "c3", retired=["c2"], now=2.0)) == ("c1", "c3")
    assert rule.admit(desk("c1", retired=["c2", "c3"])) == ("c1",), "no quorum can come any more"
    assert rule.admit(desk()) == ()


@pytest.mark.parametrize(
    ("took", "margin", "ends"),
    [
        ((None, None), 0.5, 11.0),  # nothing is measured: grace_s
        ((7.0, 9.0), 0.5, 1 + 0.5 * (8 - 1)),
        ((7.0, None), 0.5, 1 + 0.5 * (7 - 1)),
        ((0.5, 0.5), 0.5, 1.0),  # the quorum itself took longer than a round
        ((70.0, 90.0), 0.5, 11.0),  # grace_s bounds it
        ((7.0, 9.0), None, 11.0),
    ],
)
def test_a_grace_adapts_to_how_quickly_the_quorum_came(took, margin, ends):
    rule = quorum(2, 10.0, "sync.quorum", margin)
    pair = desk("c1", "c3", now=ends)
    arrived = tuple(one._replace(took=t) for one, t in zip(pair.arrived, took, strict=True))
    pair = pair._replace(arrived=arrived)
    assert rule.again(pair) == ends
    assert rule.admit(pair) == ("c1", "c3")
    assert rule.admit(pair._replace(now=ends - 0.001)) == ()


def test_a_tier_waits_for_its_own_centers_only():
    rule = tiers({"c1": 0, "c2": 1, "c3": 0})
    assert rule.admit(desk("c1")) == ()
    assert rule.admit(desk("c1", "c2")) == ("c2",)
    assert rule.admit(desk("c1", "c2", "c3")) == ("c1", "c3")
    assert rule.admit(desk("c1", retired=["c3"])) == ("c1",)
