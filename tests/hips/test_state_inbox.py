"""A state counts from the member that was told to send it, and from nobody else."""

import asyncio
import logging
from dataclasses import replace

import numpy as np
import pytest
from exchange_group import run_virtual

from geojax.config import TimeoutsConfig
from geojax.errors import FrameError, WaitTimeout
from geojax.hips.control.state_inbox import StateInbox
from geojax.hips.exchange import states
from geojax.hips.storage.checkpoint import packed_state, state_like
from geojax.wire.message import Kind, Message

TIMEOUTS = TimeoutsConfig(round=5.0, warn=5.0)


def state(value=1, *, epoch=2, number=7):
    return Message(Kind.STATE, epoch=epoch, round=number, payload=np.full(3, value, np.uint8))


def first(payload):
    if not payload[0]:
        raise FrameError("empty")
    return int(payload[0])


def played(scenario):
    async def main():
        refused = []
        inbox = StateInbox(TIMEOUTS, lambda peer, why: refused.append((peer, why)))
        inbox.most = 100
        inbox.begin(2, "c1", 7)
        await scenario(inbox)
        return refused

    return run_virtual(main())


def test_it_is_read_with_the_round_after_which_it_is():
    async def scenario(inbox):
        inbox.take("c1", state(5))
        inbox.take("c1", state(6))
        assert await inbox.receive(first, "a state") == (7, 5)

    assert played(scenario) == []


@pytest.mark.parametrize(("peer", "number"), [("c2", 7), ("c1", 6), ("c1", 8)])
def test_one_that_nobody_was_told_to_send_is_refused(peer, number):
    async def scenario(inbox):
        inbox.take(peer, state(number=number))
        with pytest.raises(WaitTimeout, match="no a state from c1 within 5 s"):
            await inbox.receive(first, "a state")

    ((named, why),) = played(scenario)
    assert (named, why) == (peer, f"nobody told it to send the state after round {number}")


def test_one_of_an_epoch_that_is_over_is_dropped(caplog):
    async def scenario(inbox):
        caplog.set_level(logging.WARNING, logger="geojax.member")
        inbox.take("c2", state(epoch=1))
        assert "dropped a state of epoch 1 from c2" in caplog.text

    assert played(scenario) == []


def test_one_of_a_later_epoch_waits_for_it():
    async def scenario(inbox):
        inbox.take("c2", state(3, epoch=3, number=8))
        inbox.take("c3", state(4, epoch=3, number=8))
        inbox.begin(3, "c2", 8)
        assert await inbox.receive(first, "a state") == (8, 3)

    assert [peer for peer, _ in played(scenario)] == ["c3"]


def test_who_was_told_before_still_counts_when_an_epoch_tells_of_nobody():
    async def scenario(inbox):
        inbox.begin(3)
        inbox.take("c1", state())
        assert await inbox.receive(first, "a state") == (7, 1)

    assert played(scenario) == []


def test_one_that_cannot_be_read_is_refused_and_the_next_one_counts():
    async def scenario(inbox):
        received = asyncio.ensure_future(inbox.receive(first, "a state"))
        for value in (0, 9):
            inbox.take("c1", state(value))
            await asyncio.sleep(1)
        assert await received == (7, 9)

    assert played(scenario) == [("c1", "a state: empty")]


def in_pieces(value, size, monkeypatch, **told):
    monkeypatch.setattr(states, "PIECE_BYTES", size)
    settings = {"epoch": 2, "number": 7, **told}
    return [*states.state_messages(0, payload=np.full(10, value, np.uint8), **settings)]


@pytest.mark.parametrize("turned", [False, True])
def test_one_in_pieces_is_put_together(monkeypatch, turned):
    sent = in_pieces(5, 3, monkeypatch)
    assert [message.payload.size for message in sent] == [3, 3, 3, 1]

    async def scenario(inbox):
        for message in reversed(sent) if turned else sent:
            inbox.take("c1", message)
        number, whole = await inbox.receive(lambda payload: payload, "a state")
        assert (number, whole.tolist()) == (7, [5] * 10)

    assert played(scenario) == []


def test_pieces_of_a_sender_that_died_are_not_mixed_with_those_of_the_next(monkeypatch):
    async def scenario(inbox):
        for message in in_pieces(5, 3, monkeypatch)[:3]:
            inbox.take("c1", message)
        later = in_pieces(6, 3, monkeypatch, epoch=3)
        inbox.take("c2", later[0])  # before this member knows of the epoch
        inbox.begin(3, "c2", 7)
        for message in later[1:]:
            inbox.take("c2", message)
        _, whole = await inbox.receive(lambda payload: payload, "a state")
        assert whole.tolist() == [6] * 10

    assert played(scenario) == []


@pytest.mark.parametrize(
    "changed",
    [{"chunk": 4}, {"body": {"pieces": 1}}, {"body": {"pieces": "4"}}, {"body": {"pieces": 10**9}},
     {"payload": None}],
)  # fmt: skip
def test_a_piece_that_cannot_be_is_refused(monkeypatch, changed):
    async def scenario(inbox):
        inbox.take("c1", replace(in_pieces(5, 3, monkeypatch)[0], **changed))

    ((named, why),) = played(scenario)
    assert named == "c1"
    assert why.startswith("state: ")


def test_states_that_wait_are_bounded_and_whose_they_are_is_said(monkeypatch):
    """A peer that sends states of later epochs, again and again or ever larger ones."""

    async def scenario(inbox):
        for epoch in (3, 3, 9, 9):  # one waits: that of the latest epoch
            inbox.take("c2", state(epoch=epoch, number=8))
        for message in in_pieces(5, 3, monkeypatch, epoch=4) * 3:
            inbox.take("c3", message)
        for at in range(60):
            piece = replace(state(epoch=5), chunk=at, body={"pieces": 60})
            inbox.take("c4", piece)
        assert sum(len(early.messages) for early in inbox._early.values()) == 1 + 4 + 33
        inbox.begin(3)
        inbox.begin(4, "c3", 7)
        assert (await inbox.receive(lambda payload: payload.tolist(), "a state"))[1] == [5] * 10

    refused = played(scenario)
    assert [(peer, why) for peer, why in refused if peer == "c2"] == [
        ("c2", f"a state of epoch {epoch} from it waits already") for epoch in (3, 9)
    ]
    assert len([peer for peer, _ in refused if peer == "c3"]) == 8
    assert len([peer for peer, _ in refused if peer == "c4"]) == 60 - 33


def test_one_whose_epoch_does_not_come_is_refused_in_the_end():
    async def scenario(inbox):
        inbox.take("c2", state(epoch=99))
        await asyncio.sleep(3)
        inbox.expire(4.0)
        await asyncio.sleep(2)
        inbox.expire(4.0)
        inbox.expire(4.0)

    assert played(scenario) == [("c2", "a state: epoch 99 has not come in 4 s")]


@pytest.mark.parametrize("epoch", [2, 3])
def test_one_that_is_larger_than_any_state_is_refused(epoch, monkeypatch):
    async def scenario(inbox):
        large = Message(Kind.STATE, epoch=epoch, round=7, payload=np.zeros(101, np.uint8))
        inbox.take("c1", large)

    assert played(scenario) == [("c1", "state: expected at most 100 bytes, came a larger one")]


def test_so_is_one_whose_pieces_are_larger_together(monkeypatch):
    sent = in_pieces(5, 3, monkeypatch)

    async def scenario(inbox):
        for message in sent * 2:
            inbox.take("c1", replace(message, payload=np.zeros(30, np.uint8)))

    named, why = played(scenario)[0]
    assert (named, why) == ("c1", "state: expected at most 100 bytes in all")


LIKE = {"vector": np.zeros(3, np.float32), "outer": [{"count": np.int32(0), "name": "sgd"}]}


def like(**changed):
    return {**LIKE, **changed}


def test_a_state_of_the_right_form_is_read_back():
    sent = like(vector=np.arange(3, dtype=np.float32))
    found = state_like(LIKE, packed_state(sent))
    np.testing.assert_array_equal(found["vector"], sent["vector"])
    assert found["outer"][0]["name"] == "sgd"


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (like(vector=np.zeros(4, np.float32)), r"state\.vector: expected float32 of shape \(3,\)"),
        (like(vector=np.zeros(3)), r"state\.vector: expected float32"),
        (like(vector=[1.0]), r"state\.vector: expected float32"),
        (like(vector=np.full(3, np.nan, np.float32)), r"state\.vector: not all finite"),
        (like(outer=[]), r"state\.outer: expected a list of 1"),
        (like(outer=[{"count": np.int32(0)}]), r"state\.outer\.0: expected count, name"),
        (like(outer=[{"count": np.int32(0), "name": 3}]), r"state\.outer\.0\.name: expected a str"),
        ({"vector": LIKE["vector"]}, "state: expected vector, outer"),
        ([], "state: expected vector, outer"),
    ],
)
def test_a_state_of_another_form_is_refused(sent, says):
    with pytest.raises(FrameError, match=says):
        state_like(LIKE, packed_state(sent))


def test_compressed_bytes_no_bytes_and_other_bytes_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", vector=np.zeros(1_000_000))
    bomb = np.fromfile(tmp_path / "bomb.npz", np.uint8)
    with pytest.raises(FrameError, match="not compressed"):
        state_like(LIKE, bomb)
    with pytest.raises(FrameError, match="no payload"):
        state_like(LIKE, None)
    for other in (packed_state(LIKE)[:-40], np.zeros(99, np.uint8)):
        with pytest.raises(FrameError, match="expected a state, came"):
            state_like(LIKE, other)
