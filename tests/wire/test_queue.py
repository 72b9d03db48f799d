"""The priority queue of a neighbour."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.errors import FrameError
from geojax.wire.frame import parse_header
from geojax.wire.message import FRAGMENT_BYTES, HEADER_BYTES, STRIPE_BYTES, Kind, Message, SizeOnly
from geojax.wire.priority import chunk_priority, late_priority
from geojax.wire.queue import SendQueue


def message(chunk: int, frames: int = 1) -> Message:
    return Message(Kind.OFFER, chunk=chunk, payload=np.zeros(frames * FRAGMENT_BYTES, np.uint8))


def drain(queue: SendQueue) -> list[int]:
    chunks = []
    while (frame := queue.take()) is not None:
        chunks.append(frame.message.chunk)
    return chunks


@given(priorities=st.lists(st.integers(-2, 2), max_size=20))
def test_priority_then_arrival(priorities: list[int]) -> None:
    queue = SendQueue()
    for chunk, priority in enumerate(priorities):
        queue.push(message(chunk), priority)
    assert drain(queue) == sorted(range(len(priorities)), key=lambda chunk: priorities[chunk])


def late(number: int, chunk: int, chunks: int = 3) -> tuple[Message, int]:
    kept = Message(Kind.LATE, round=number, chunk=chunk, payload=np.zeros(9, np.uint8))
    return kept, late_priority(number, chunk, chunks)


def test_old_rounds_go_first_and_their_late_parts_give_way_two_rounds_later() -> None:
    queue = SendQueue()
    dropped = [queue.push(*late(number, chunk)) for number in range(4) for chunk in range(3)]
    assert sum(dropped) == 6
    queue.push(replace(message(7), round=5), chunk_priority(5, 0))
    queue.push(replace(message(8), round=4), chunk_priority(4, 9))
    assert drain(queue) == [8, 7, 2, 0, 1, 0, 1, 2]
    begun = Message(Kind.LATE, round=1, payload=np.zeros(2 * FRAGMENT_BYTES, np.uint8))
    assert queue.push(begun, 1) == 0
    assert queue.take() is not None
    assert queue.push(*late(9, 0)) == 0, "half of it has left"
    assert queue.unsent == 2


def test_a_higher_priority_overtakes_between_frames() -> None:
    queue = SendQueue()
    queue.push(message(0, frames=3), priority=5)
    first = queue.take()
    assert first is not None
    assert (first.first, first.last) == (True, False)
    queue.push(message(1, frames=2), priority=1)
    queue.push(message(2), priority=5)
    assert drain(queue) == [1, 1, 0, 0, 2]


def test_a_frame_follows_unless_the_queue_was_found_empty_before_it() -> None:
    queue = SendQueue()
    assert queue.take() is None
    queue.push(message(0, frames=2))
    queue.push(message(1))
    told = []
    while (frame := queue.take()) is not None:
        told.append((frame.message.chunk, frame.follows))
    assert told == [(0, False), (0, True), (1, True)]
    queue.push(message(2))
    first = queue.take()
    queue.push(message(3))  # pushed before anybody found the queue empty
    second = queue.take()
    assert first is not None
    assert second is not None
    assert (first.follows, second.follows) == (False, True)


def striped(chunk: int, frames: int) -> Message:
    """Of so many frames over several connections."""
    return Message(Kind.OFFER, chunk=chunk, payload=np.zeros(frames * STRIPE_BYTES, np.uint8))


def test_frames_of_several_takers_are_numbered_and_follow_once_all_are_busy() -> None:
    queue = SendQueue(*[lambda: None] * 3)
    assert queue.take(1) is None
    queue.push(striped(0, 5))
    queue.push(striped(1, 1))
    taken = [queue.take(number % 3) for number in range(6)]
    assert [frame.follows for frame in taken if frame] == [False] * 3 + [True] * 3
    headers = [parse_header(frame.head[:HEADER_BYTES], STRIPE_BYTES) for frame in taken if frame]
    assert [(header.chunk, header.tag) for header in headers] == [
        (0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 5),
    ]  # fmt: skip
    assert queue.take(2) is None
    queue.push(striped(2, 1))
    after = queue.take(0)
    assert after is not None
    assert (after.follows, parse_header(after.head[:HEADER_BYTES], STRIPE_BYTES).tag) == (False, 6)


def test_a_single_takers_frames_have_no_number() -> None:
    queue = SendQueue()
    queue.push(message(0, frames=3))
    tags = []
    while (frame := queue.take()) is not None:
        tags.append(parse_header(frame.head[:HEADER_BYTES]).tag)
    assert tags == [0, 0, 0]


def test_one_taker_is_woken_for_each_frame_the_longest_idle_first() -> None:
    woken: list[int] = []
    queue = SendQueue(*(partial(woken.append, number) for number in range(3)))
    for taker in (2, 0, 1):
        assert queue.take(taker) is None
    queue.push(striped(0, 3))
    assert woken == [2]
    assert queue.take(2) is not None
    assert woken == [2, 0], "there is more"
    assert queue.take(2) is not None
    assert woken == [2, 0, 1]
    assert queue.take(0) is not None
    queue.push(message(1))
    assert woken == [2, 0, 1], "nobody has found it empty since"
    queue.finish()
    assert woken == [2, 0, 1, 0, 1, 2]


def test_the_taker_is_woken_once() -> None:
    woken: list[None] = []
    queue = SendQueue(lambda: woken.append(None))
    queue.push(message(0))
    assert not woken  # nobody has found the queue empty
    drain(queue)
    queue.push(message(1))
    queue.push(message(2))
    assert len(woken) == 1
    queue.finish()
    assert len(woken) == 2
    assert queue.finished


def test_a_message_that_fits_no_frame_leaves_no_trace() -> None:
    queue = SendQueue()
    with pytest.raises(FrameError):
        queue.push(Message(Kind.OFFER, payload=SizeOnly(1)))
    assert queue.take() is None


def test_pushes_from_many_threads_all_leave() -> None:
    queue = SendQueue()

    def push(start: int) -> None:
        for chunk in range(start, start + 200):
            queue.push(message(chunk), priority=chunk % 3)

    threads = [threading.Thread(target=push, args=(1000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    taken = drain(queue)
    for thread in threads:
        thread.join()
    taken += drain(queue)
    assert sorted(taken) == [1000 * i + j for i in range(4) for j in range(200)]
