"""Jitter, loss and outages of the delaying switch's paths, on times and draws of our own."""

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.emulated.switch.forwarder import Control, Forwarder
from testbed.emulated.switch.paths import Impairment, Path

MS = 1_000_000  # ns
FAR_APART = 1000 * MS  # between frames that cannot hold up each other


def sent(path, arrivals):
    """Delays (ns) of the frames that arrive at these times; None: lost."""
    delays = []
    for now in arrivals:
        before = len(delays)
        path.admit(now, b"", lambda release, _send, _frame, now=now: delays.append(release - now))
        if len(delays) == before:
            delays.append(None)
    return delays


def test_the_share_of_lost_frames_is_as_configured_and_drawn_from_the_seed():
    def lost(seed):
        path = Path(MS, print, Impairment(loss=0.02), seed)
        return [delay is None for delay in sent(path, range(50_000))]

    first = lost("7/a>b")
    deviation = math.sqrt(0.02 * 0.98 / 50_000)
    assert sum(first) / 50_000 == pytest.approx(0.02, abs=4 * deviation)
    pairs = sum(a and b for a, b in itertools.pairwise(first))
    assert pairs / 50_000 == pytest.approx(0.02**2, abs=4 * 0.02 / math.sqrt(50_000))
    assert lost("7/a>b") == first
    assert lost("8/a>b") != first


def test_uniform_jitter_spreads_evenly_around_the_delay():
    path = Path(20 * MS, print, Impairment(jitter=4 * MS), "s")
    delays = sent(path, range(0, 10_000 * FAR_APART, FAR_APART))
    deciles = statistics.quantiles(delays, n=10)
    assert deciles == pytest.approx([(16 + 0.8 * n) * MS for n in range(1, 10)], abs=0.2 * MS)
    assert 16 * MS <= min(delays) < max(delays) <= 24 * MS


def test_normal_jitter_has_its_deviation_and_no_delay_falls_below_zero():
    path = Path(20 * MS, print, Impairment(jitter=4 * MS, normal=True), "s")
    delays = sent(path, range(0, 10_000 * FAR_APART, FAR_APART))
    assert statistics.mean(delays) == pytest.approx(20 * MS, abs=0.2 * MS)
    assert statistics.stdev(delays) == pytest.approx(4 * MS, rel=0.05)
    wild = Path(MS, print, Impairment(jitter=MS, normal=True), "s")
    assert min(sent(wild, range(0, 1000 * FAR_APART, FAR_APART))) == 0


@given(st.lists(st.integers(0, 3 * MS), max_size=80), st.booleans(), st.integers(0, 5))
def test_jitter_never_reorders(pauses, normal, seed):
    path = Path(5 * MS, print, Impairment(jitter=5 * MS, normal=normal, loss=0.1), str(seed))
    now, releases = 0, []
    for pause in pauses:
        now += pause
        path.admit(now, b"", lambda release, _send, _frame: releases.append(release))
    assert releases == sorted(releases)
    assert len(releases) + path.lost == len(pauses)


def test_in_an_outage_frames_wait_up_to_the_limit_and_then_leave_at_once_in_order():
    path, departed = Path(10 * MS, print), []

    def depart(release, _send, frame):
        departed.append((release, frame))

    path.admit(0, b"before", depart)
    path.hold(9)
    assert not path.plain
    for number, frame in enumerate([b"first", b"too long", b"4242", b"x"]):
        path.admit((1 + number) * MS, frame, depart)
    path.hold(1000)  # it has begun already
    path.admit(5 * MS, b"y", depart)
    assert departed == [(10 * MS, b"before")]
    assert (len(path), path.overflowed) == (2, 3)
    path.release(700 * MS, depart)
    assert departed[1:] == [(710 * MS, b"first"), (710 * MS, b"4242")]
    assert path.plain
    path.release(701 * MS, depart)
    path.admit(702 * MS, b"after", depart)
    assert departed[3:] == [(712 * MS, b"after")]


def test_impairments_can_be_switched_off_and_on():
    path = Path(5 * MS, print, Impairment(loss=0.999_999))
    assert sent(path, [0]) == [None]
    path.impair(False)
    assert path.plain
    assert sent(path, [1]) == [5 * MS]
    path.impair(True)
    assert not path.plain
    assert sent(path, [2]) == [None]
    unimpaired = Path(5 * MS, print)
    unimpaired.impair(True)
    assert unimpaired.plain


def test_orders_come_in_pieces_and_each_is_answered():
    clock = iter([3 * MS]).__next__
    path = Path(MS, print)
    forwarder = Forwarder({}, clock)
    control = Control(forwarder, {("s0", "02:67"): path})
    assert control.read(b'{"do": "hold", "pat') == []
    assert not len(path)
    assert path.plain
    assert control.read(b'hs": [["s0", "02:67", 5]]}\n{"do": "impair", "on": false}\n') == [{}, {}]
    path.admit(0, b"abc", forwarder.flight.depart)
    assert control.read(b'{"do": "release", "paths": [["s0", "02:67"]]}\n') == [{}]
    assert list(forwarder.flight.land(4 * MS)) == [(4 * MS, print, b"abc")]
    [counters] = control.read(b'{"do": "count"}\n')
    assert counters["in_flight"] == counters["overflowed"] == 0
    with pytest.raises(ValueError, match="no such order: 'dance'"):
        control.obey({"do": "dance"})
