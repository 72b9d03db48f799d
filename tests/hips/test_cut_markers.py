"""Cuts begin at one server: what others tell of cuts is believed as far as it can be true."""

import logging
from dataclasses import replace

import pytest
from simulated_runs import simulated, small_config

from geojax.errors import FrameError
from geojax.hips.exchange.cuts import Cuts
from testbed.simulated.transport import SimulatedTransport

THREE = ("c1", "c2", "c3")


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def cuts(me, homes=("c1", "c2"), every=3):
    made = Cuts(every, clock=lambda: 7.0, centers=THREE)
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


@pytest.mark.parametrize("number", [0, -3, 4, 2**31 - 1])
def test_a_number_that_no_cut_has_is_refused(number):
    with pytest.raises(FrameError, match="cut"):
        cuts("c2").hear("c1", number, 1.0)


def test_nobody_tells_who_begins_them_of_another_one():
    first = cuts("c1")
    assert first.due(3) == (3, 7.0)
    assert first.hear("c2", 3, 7.0) is None
    with pytest.raises(FrameError, match="cut 6: the last one that began here is 3"):
        first.hear("c3", 6, 7.0)
    assert first.hear("c3", 3, 7.0) is None
    assert first.due(6) == (6, 7.0)


def test_one_that_only_others_tell_of_hides_no_later_ones():
    mine = cuts("c2")
    assert mine.hear("c3", 3 * 10**8, 1.0) is not None
    with pytest.raises(FrameError, match="only c3 has told of cut 300000000"):
        mine.hear("c3", 6 * 10**8, 1.0)
    mine.resume("c2", THREE, ("c1", "c2"))  # its sender is found out elsewhere: a new epoch
    assert mine.hear("c1", 3, 1.0) == (3, 1.0)
    with pytest.raises(FrameError, match="it told of cut 3 already"):
        mine.hear("c1", 3, 1.0)


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
    """The liar is the one that begins them, or another one; it lies once.

    Where the first one tells one member of another cut, it accuses that member, which believes it.
    """
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
    if number == 1 or liar == "c3":
        assert {event["peer"] for event in outcome.of("refused")} == {liar}
    kept = [{path.name for path in (tmp_path / "checkpoints" / name).iterdir()} for name in THREE]
    whole = max(int(name.split("_")[1].split(".")[0]) for name in set.intersection(*kept))
    assert 30 < whole <= 60, "cuts go on: there are 60 merges"
