"""Frames of several connections: numbered as they leave, and put back in that order."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.errors import FrameError
from geojax.wire.frame import Assembler, WholeFrame, check_sum, parse_header
from geojax.wire.frame_order import FRAMES_AHEAD, FrameOrder
from geojax.wire.message import HEADER_BYTES, STRIPE_BYTES, Kind, Message
from geojax.wire.queue import Outbound, SendQueue

PATIENCE_S = 30.0


def as_it_came(frame: Outbound) -> WholeFrame:
    raw = memoryview(bytearray(frame.head[:HEADER_BYTES]))
    header = parse_header(raw, STRIPE_BYTES)
    body = memoryview(frame.head[HEADER_BYTES:])
    check_sum(header, raw, body, frame.payload)
    return WholeFrame(header, body, frame.payload)


def frames(count: int) -> list[WholeFrame]:
    """Numbered frames, one of a message each."""
    queue = SendQueue(lambda: None, lambda: None)
    for chunk in range(count):
        queue.push(Message(Kind.OFFER, chunk=chunk))
    taken = [queue.take(number % 2) for number in range(count)]
    return [as_it_came(frame) for frame in taken if frame is not None]


@st.composite
def sendings(draw: st.DrawFn) -> tuple[int, list[tuple[int, int, int]], list[int]]:
    """Connections; (bytes, priority, frames taken before it is pushed); who takes and who reads."""
    near = STRIPE_BYTES
    size = st.sampled_from([0, 1, near - 1, near, near + 1, 3 * near, 5 * near + 7])
    message = st.tuples(size, st.integers(0, 3), st.integers(0, 4))
    messages = draw(st.lists(message, min_size=1, max_size=12))
    connections = draw(st.integers(2, 5))
    return connections, messages, draw(st.lists(st.integers(0, 1000), min_size=1, max_size=60))


@given(sending=sendings())
def test_all_that_leaves_over_several_connections_comes_whole_and_in_order(
    sending: tuple[int, list[tuple[int, int, int]], list[int]],
) -> None:
    connections, messages, draws = sending
    chance = iter(draws * 1000)
    queue = SendQueue(*[lambda: None] * connections)
    pipes: list[deque[WholeFrame]] = [deque() for _ in range(connections)]
    ended: list[int] = []  # chunks, in the order in which their last frames left
    left = 0

    def take() -> bool:
        nonlocal left
        taker = next(chance) % connections
        frame = queue.take(taker)
        if frame is None:
            return False
        left += frame.nbytes
        if frame.last:
            ended.append(frame.message.chunk)
        pipes[taker].append(as_it_came(frame))
        return True

    source = np.random.default_rng(0)
    payloads = [source.integers(0, 256, nbytes, np.uint8) for nbytes, _, _ in messages]
    for chunk, (_, priority, taken) in enumerate(messages):
        queue.push(Message(Kind.OFFER, chunk=chunk, payload=payloads[chunk]), priority)
        for _ in range(taken):
            take()
    while take():
        pass

    assembler, came, arrived = Assembler(), [], 0

    def put_together(frame: WholeFrame) -> None:
        nonlocal arrived
        arrived += frame.header.frame_bytes
        message = assembler.add(frame)
        if message is not None:
            came.append(message)

    order = FrameOrder(connections, put_together)
    order.open()
    while any(pipes):
        due = min(pipe[0].header.tag for pipe in pipes if pipe)
        most = due + FRAMES_AHEAD * connections
        readable = [pipe for pipe in pipes if pipe and pipe[0].header.tag < most]
        assert order.put(readable[next(chance) % len(readable)].popleft())
    assert [message.chunk for message in came] == ended
    assert arrived == left
    assert assembler.unfinished == 0
    for message in came:
        expected = payloads[message.chunk]
        assert np.array_equal(message.payload if message.payload_bytes else [], expected)


def test_nothing_is_handed_on_before_all_connections_are_there() -> None:
    came: list[int] = []
    order = FrameOrder(2, lambda frame: came.append(frame.header.tag))
    first, second, third = frames(3)
    assert order.put(second)
    assert order.put(first)
    assert not came
    order.open()
    assert came == [0, 1]
    assert order.put(third)
    assert came == [0, 1, 2]


@pytest.mark.parametrize("twice", [0, 1])
def test_a_number_that_was_there_is_refused(twice: int) -> None:
    order = FrameOrder(2, lambda frame: None)
    order.open()
    found = frames(3)
    for number in (0, 2, 1)[: twice + 1]:
        assert order.put(found[number])
    again = (0, 2)[twice]
    with pytest.raises(FrameError, match=f"expected a new one, came {again} again"):
        order.put(found[again])


def reader(order: FrameOrder, found: list[WholeFrame], results: list[bool]) -> threading.Thread:
    """A connection that brings frames until it is told that there is no hope, and then ends."""

    def read() -> None:
        results.append(all(order.put(frame) for frame in found))
        order.ended()

    thread = threading.Thread(target=read, name="geojax-reader", daemon=True)
    thread.start()
    return thread


def wait_for_blocked(order: FrameOrder, *threads: threading.Thread) -> None:
    while order._blocked < len(threads):
        for thread in threads:
            thread.join(0.01)
            assert thread.is_alive()


def test_who_is_too_far_ahead_waits_for_the_others() -> None:
    came: list[int] = []
    order = FrameOrder(2, lambda frame: came.append(frame.header.tag))
    order.open()
    most = 2 * FRAMES_AHEAD
    first, *rest = frames(most + 3)
    results: list[bool] = []
    thread = reader(order, rest, results)
    wait_for_blocked(order, thread)
    assert len(order._held) == most - 1
    assert not came
    assert order.put(first)
    thread.join(PATIENCE_S)
    assert results == [True]
    assert came == list(range(most + 3))


def test_who_waits_for_what_cannot_come_is_let_go() -> None:
    """The frame that is due was on a connection that has ended; two others wait for it."""
    came: list[int] = []
    order = FrameOrder(3, lambda frame: came.append(frame.header.tag))
    order.open()
    found = frames(6 * FRAMES_AHEAD)
    results: list[bool] = []
    threads = [reader(order, found[start::2], results) for start in (1, 2)]
    wait_for_blocked(order, *threads)
    order.close()
    order.ended()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert results == [False, False]
    assert not came


def test_who_is_about_to_go_on_does_not_count_as_waiting() -> None:
    """One brings what two others wait for, and before they have woken a frame far ahead."""
    came: list[int] = []
    order = FrameOrder(3, lambda frame: came.append(frame.header.tag))
    order.open()
    most = 3 * FRAMES_AHEAD
    first, *between, last = frames(2 * most + 1)
    results: list[bool] = []
    threads = [reader(order, between[start::2], results) for start in (0, 1)]
    wait_for_blocked(order, *threads)
    order.close()

    def read() -> None:
        with order._changed:  # the others cannot look before this waits
            results.append(order.put(first) and order.put(last))

    thread = threading.Thread(target=read, name="geojax-reader", daemon=True)
    thread.start()
    for each in (*threads, thread):
        each.join(PATIENCE_S)
    assert results == [True, True, True]
    assert came == list(range(2 * most + 1))


def test_who_waits_is_let_go_where_not_all_connections_came() -> None:
    order = FrameOrder(3, lambda frame: None)
    results: list[bool] = []
    thread = reader(order, frames(4 * FRAMES_AHEAD), results)
    wait_for_blocked(order, thread)
    order.close()
    thread.join(PATIENCE_S)
    assert results == [False]
