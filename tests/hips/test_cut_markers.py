"""Cuts begin at one server: what others tell of cuts is believed as far as it can be true."""

import heapq
import logging
import random
from dataclasses import replace

import pytest
from simulated_runs import simulated, small_config

from geojax.config import WanConfig
from geojax.errors import FrameError
from geojax.hips.exchange.cuts import Cuts
from testbed.simulated.transport import SimulatedTransport

THREE = ("c1", "c2", "c3")


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def cuts(me, homes=("c1", "c2"), every=3):
    made = Cuts(every, clock=lambda: 7.0, centers=THREE, most=60)
    made.resume(me, THREE, homes)
    return made


def test_one_may_be_heard_of_from_others_before_who_begins_them_tells_of_it():
    mine = cuts("c2")
    assert mine.hear("c3", 3, 1.0) == (3, 1.0)
    assert mine.hear("c1", 3, 1.0) is None
    assert mine.hear("c1", 6, 2.0) == (6, 2.0)
    assert mine.hear("c3", 6, 2.0) is None


def test_a_server_that_who_begins_them_tells_nothing_believes_two():
    mine = cuts("s2", homes=("s1", "s2"))
    for number in (3, 6, 9):
        assert mine.hear("c3", number, 1.0) == (number, 1.0)
        assert mine.hear("c1", number, 1.0) is None
        assert mine.hear("c2", number, 1.0) is None


def test_others_may_be_any_number_of_cuts_before_who_begins_them():
    mine = cuts("c3")
    for number in (3, 6, 9):
        assert mine.hear("c2", number, 1.0) == (number, 1.0)
    for number in (3, 9, 6):  # over auxiliary paths they overtake each other
        assert mine.hear("c1", number, 1.0) is None


@pytest.mark.parametrize("number", [0, -3, 4, 63, 2**31 - 1])
def test_a_number_that_no_cut_has_is_refused(number):
    with pytest.raises(FrameError, match="cut"):
        cuts("c2").hear("c1", number, 1.0)


def test_nobody_tells_who_begins_them_of_another_one():
    first = cuts("c1")
    first.take(first.due(3))
    assert first.hear("c2", 3, 7.0) is None
    with pytest.raises(FrameError, match="cut 6: the last one that began here is 3"):
        first.hear("c3", 6, 7.0)
    assert first.hear("c3", 3, 7.0) is None
    assert first.due(6) == (6, 7.0)


def test_nobody_tells_of_a_cut_twice():
    mine = cuts("c2")
    assert mine.hear("c1", 3, 1.0) == (3, 1.0)
    with pytest.raises(FrameError, match="cut 3: it told of this one already"):
        mine.hear("c1", 3, 1.0)
    mine.resume("c2", THREE, ("c1", "c2"))  # a new epoch: what was told may have been a lie
    assert mine.hear("c1", 3, 1.0) == (3, 1.0)


def played(rng):
    """Cuts of a few members with links of very different delays; all are honest.

    Returns the cuts that began, and those that every other member took its part in. Where markers
    overtake each other, servers that are no centers are not among them: nobody waits for them.
    """
    members = [f"c{k}" for k in range(1, rng.randint(2, 6) + 1)]
    sites = [f"s{k}" for k in range(rng.choice((0, 0, 2)))]  # servers that are no centers
    homes = tuple(sites or rng.sample(members, rng.randint(1, len(members))))
    everyone, every = [*members, *sites], rng.randint(1, 4)
    views = {
        name: Cuts(every, clock=lambda: 7.0, centers=members, most=400) for name in everyone
    }  # fmt: skip
    for name, view in views.items():
        view.resume(name, members, homes)
    delay = {(a, b): 10 ** rng.uniform(-2, 2) for a in everyone for b in everyone}
    order, taken = rng.random() < 0.5, {name: [] for name in everyone}
    arrivals, last, came = [], {}, 0

    def take(name, cut, now):
        nonlocal came
        views[name].take(cut)
        taken[name].append(cut.number)
        for peer in members if name in homes else homes:
            if peer != name:
                came += 1
                at = now + delay[name, peer] * rng.uniform(0.5, 1.5)
                if order:
                    at = last[name, peer] = max(at, last.get((name, peer), 0.0))
                heapq.heappush(arrivals, (at, came, name, peer, cut))

    version = 0
    while version < 400 or arrivals:
        if version < 400 and (not arrivals or arrivals[0][0] > version):
            version += 1
            cut = views[homes[0]].due(version)
            if cut is not None:
                take(homes[0], cut, float(version))
            continue
        now, _, sender, name, cut = heapq.heappop(arrivals)
        told = views[name].hear(sender, cut.number, cut.time)
        if told is not None:
            take(name, told, now)
    begun = taken.pop(homes[0])
    return begun, {name: taken[name] for name in taken if order or name in members}


def test_whatever_the_links_no_honest_member_is_refused_and_all_cuts_are_whole():
    total = 0
    for seed in range(200):
        begun, taken = played(random.Random(seed))
        total += len(begun)
        assert all(numbers == begun for numbers in taken.values())
    assert total > 2000


def test_a_slow_link_from_who_begins_them_makes_nobody_accused(tmp_path):
    fast, slow = {"rate": 1000, "rtt": 2}, {"rate": 2, "rtt": 2}
    settings = {
        "sync__name": "mixed_sync", "overlay__name": "sharded_star", "rounds": 20,
        "checkpoint_every": 1, "timeouts__dead": 0.5, "timeouts__heartbeat": 0.05,
        "elements": 6000, "chunk_elements": 2000,
    }  # fmt: skip
    config = small_config(**settings)
    config.wan = WanConfig(
        name="one slow link", centers=list(THREE),
        links=[
            {"between": ["c1", "c2"], **fast}, {"between": ["c2", "c3"], **fast},
            {"from": "c1", "to": "c3", **slow}, {"from": "c3", "to": "c1", **fast},
        ],
    )  # fmt: skip
    outcome = simulated(config, folder=tmp_path)
    assert not outcome.of("refused")
    assert len(outcome.finals) == 3
    kept = [{path.name for path in (tmp_path / "checkpoints" / name).iterdir()} for name in THREE]
    assert len(set.intersection(*kept)) > 1, "cuts are whole"


@pytest.mark.parametrize(
    ("overlay", "number", "liar"),
    [
        ("star", 1, "c1"), ("star", 3 * 10**8, "c1"), ("star", 3 * 10**8, "c3"),
        ("sharded_star", 1, "c3"), ("sharded_star", 6, "c3"), ("sharded_star", 3 * 10**8, "c1"),
    ],
)  # fmt: skip
def test_a_marker_of_a_cut_that_is_none_stops_no_checkpoints(
    overlay, number, liar, monkeypatch, tmp_path
):
    """The liar is the one that begins them, or another one; it lies once."""
    send, told = SimulatedTransport.send, []

    def lying(self, peer, message, priority=0):
        if self.name == liar and "cut" in (message.body or {}) and not told:
            told.append(message)
            message = replace(message, round=number)
        send(self, peer, message, priority)

    monkeypatch.setattr(SimulatedTransport, "send", lying)
    settings = {
        "sync__name": "mixed_sync", "rounds": 20, "checkpoint_every": 3, "overlay__name": overlay,
        "timeouts__dead": 0.2, "timeouts__heartbeat": 0.05,
    }  # fmt: skip
    outcome = simulated(small_config(**settings), folder=tmp_path)
    assert told
    assert {last for last, _ in outcome.finals.values()} == {19}
    assert not outcome.of("dead")
    assert {event["peer"] for event in outcome.of("refused")} == {liar}
    kept = [{path.name for path in (tmp_path / "checkpoints" / name).iterdir()} for name in THREE]
    whole = max(int(name.split("_")[1].split(".")[0]) for name in set.intersection(*kept))
    assert 30 < whole <= 60, "cuts go on: there are 60 merges"
