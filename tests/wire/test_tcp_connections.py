"""Several TCP connections that carry what goes to one peer."""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import pytest
from tcp_helpers import (
    LOCAL,
    PATIENCE_S,
    PING,
    answer_to,
    encoded,
    hello,
    lost,
    message,
    names,
    node,
    rest,
    run,
    started,
)

from geojax.wire import outgoing as outgoing_module
from geojax.wire.frame_order import FRAMES_AHEAD
from geojax.wire.message import FRAGMENT_BYTES, Kind, Message
from geojax.wire.queue import SendQueue
from geojax.wire.sockets import FrameReader
from geojax.wire.tcp import TcpTransport
from geojax.wire.transport import Lost

COUNT = 3


def several(*all_names: str, count: int = COUNT, **options: Any) -> list[TcpTransport]:
    """Nodes with so many connections from each to each."""
    return [
        node(name, names(*all_names), connections=lambda _a, _b: count, **options)
        for name in all_names
    ]


async def stand(outgoing: outgoing_module.Outgoing) -> None:
    """All have said HELLO, and the thread of the last one has taken note; a peer may know first."""
    while not outgoing.established:
        await asyncio.sleep(0.01)


def one_of(number: object, **changes: Any) -> bytes:
    said = {"connections": COUNT, "connection": number, "together": "x", **changes}
    return hello(**said)


def numbered(messages: list[Message]) -> list[bytes]:
    """The frames of messages as they leave over several connections."""
    queue = SendQueue(*[lambda: None] * COUNT)
    for each in messages:
        queue.push(each)
    found = []
    while (frame := queue.take()) is not None:
        found.append(frame.head + bytes(frame.payload))
    return found


def test_large_messages_in_both_directions_arrive_whole_and_in_order() -> None:
    sizes = random.Random(0).choices(range(3 * FRAGMENT_BYTES), k=60)
    source = np.random.default_rng(0)
    sent = [
        Message(Kind.OFFER, chunk=chunk, payload=source.integers(0, 256, size, np.uint8))
        for chunk, size in enumerate(sizes)
    ]

    async def scenario() -> None:
        a, b = several("a", "b")
        async with started(a, b):
            for each in sent:
                a.send("b", each)
                b.send("a", each)
            for there, peer in ((b, "a"), (a, "b")):
                for each in sent:
                    came = await message(there, peer)
                    assert came.chunk == each.chunk
                    assert np.array_equal(came.payload, each.payload)
            outgoing = a._peers["b"].outgoing
            assert outgoing is not None
            assert len(outgoing.connections) == COUNT
            await stand(outgoing)
            assert not outgoing._parted
            await a.close()
            assert a.sent["b"].bytes == b.received["a"].bytes
            assert a.sent["b"].messages == b.received["a"].messages
            assert a.sent["b"].messages[Kind.HELLO] == 2 * COUNT

    run(scenario())


def test_each_direction_may_have_a_number_of_its_own() -> None:
    def count(source: str, target: str) -> int:
        return {("a", "b"): 4}.get((source, target), 1)

    async def scenario() -> None:
        a, b = (node(name, names("a", "b"), connections=count) for name in "ab")
        async with started(a, b):
            a.send("b", PING)
            await message(b, "a")
            b.send("a", PING)
            await message(a, "b")
            found = [one._peers[other].outgoing for one, other in ((a, "b"), (b, "a"))]
            assert [len(each.connections) for each in found if each is not None] == [4, 1]

    run(scenario())


@pytest.mark.parametrize("end", ["sender's", "receiver's"])
def test_if_one_of_them_breaks_the_peer_is_lost_once_and_comes_back(end: str) -> None:
    async def scenario() -> None:
        a, b = several("a", "b")
        async with started(a, b):
            for _ in range(3):
                for one, peer in ((a, "b"), (b, "a")):
                    one.send(peer, PING)
                await message(a, "b")
                await message(b, "a")
                outgoing, incoming = a._peers["b"].outgoing, b._peers["a"].incoming
                assert outgoing is not None
                assert incoming is not None
                broken = [*incoming._living] if end == "receiver's" else outgoing.connections
                broken[1].abort()
                assert await lost(a, "b", goodbye=False)
                assert await lost(b, "a", goodbye=False)
                for connection in outgoing.connections:
                    await asyncio.to_thread(connection.thread.join, PATIENCE_S)
                    assert not connection.thread.is_alive()
                assert not incoming._living
            assert await rest(a) == await rest(b) == []

    run(scenario())


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (hello(), "connections: expected 3, came 1"),
        (one_of(0, connections=2), "connections: expected 3, came 2"),
        (one_of(3), r"connection: expected one of \[0, 1, 2\], came 3"),
        (one_of("0"), r"connection: expected one of \[0, 1, 2\], came '0'"),
    ],
)
def test_a_wrong_number_is_refused_and_told_why(said: bytes, complaint: str) -> None:
    async def scenario() -> None:
        a, b = several("a", "b")
        async with started(a, b):
            answer = await asyncio.to_thread(answer_to, a.address, said)
            assert complaint.replace("\\", "").encode() in answer
            assert a.refused == 1
            b.send("a", PING)
            await message(a, "b")

    run(scenario())


def test_who_dials_otherwise_than_agreed_learns_why() -> None:
    async def scenario() -> None:
        a = several("a", "b")[0]
        b = several("a", "b", count=2)[1]
        async with started(a, b):
            b.send("a", PING)
            assert "connections: expected 3, came 2" in await lost(b, "a")
            assert await rest(a) == []

    run(scenario())


@pytest.mark.parametrize("count", [1, COUNT])
def test_what_a_hello_says(count: int) -> None:
    """That of a single connection says nothing of others."""

    async def scenario() -> None:
        with ExitStack() as stack:  # if one ends, the others do, or do not dial any more
            listener = stack.enter_context(closing(socket.socket()))
            listener.settimeout(PATIENCE_S)
            listener.bind(LOCAL)
            listener.listen()
            peers = {"b": listener.getsockname()}
            a = node("a", peers, connections=lambda _a, _b: count)
            async with started(a):
                a.send("b", PING)
                said = []
                for _ in range(count):
                    sock, _ = await asyncio.to_thread(listener.accept)
                    stack.enter_context(closing(sock)).settimeout(PATIENCE_S)
                    frame = await asyncio.to_thread(FrameReader(sock, 0).read)
                    assert frame is not None
                    said.append(dict((frame[1].body or {}).items()))  # type: ignore[union-attr]
                stack.close()
        basic = {"name": "a", "to": "b", "run_id": "run", "protocol": 3}
        if count == 1:
            assert said == [basic]
            return
        assert len({each.pop("together") for each in said}) == 1
        said.sort(key=lambda each: each["connection"])
        more = [{"connections": COUNT, "connection": number} for number in range(COUNT)]
        assert said == [basic | each for each in more]

    run(scenario())


def by_hand(address: tuple[str, int], stack: ExitStack, *said: bytes) -> list[socket.socket]:
    """Connections of peer ``b`` that have said this."""
    socks = []
    for each in said:
        sock = stack.enter_context(closing(socket.create_connection(address, PATIENCE_S)))
        sock.sendall(each)
        socks.append(sock)
    return socks


def test_nothing_comes_from_a_peer_before_all_its_connections_are_there() -> None:
    frames = numbered([Message(Kind.OFFER, chunk=chunk) for chunk in range(3)])

    async def scenario() -> None:
        a = several("a", "b")[0]
        async with started(a):
            with ExitStack() as stack:
                first, second = by_hand(a.address, stack, one_of(0), one_of(1))
                first.sendall(frames[1])
                second.sendall(frames[0])
                while a._peers["b"].incoming is None or a._peers["b"].incoming._order._held:  # type: ignore[union-attr]
                    incoming = a._peers["b"].incoming
                    if incoming is not None and len(incoming._order._held) == 2:  # type: ignore[union-attr]
                        break
                    await asyncio.sleep(0.01)
                assert a._inbox._arrived.empty()
                (third,) = by_hand(a.address, stack, one_of(2))
                third.sendall(frames[2])
                assert [(await message(a, "b")).chunk for _ in range(3)] == [0, 1, 2]
            assert "goodbye" in await lost(a, "b")

    run(scenario())


def test_what_waits_for_others_counts_when_it_came() -> None:
    """So rates are not too high where a frame that was held up lets many go at once."""
    frames = numbered([Message(Kind.OFFER, chunk=chunk) for chunk in range(4)])

    async def scenario() -> None:
        a = several("a", "b")[0]
        async with started(a):
            with ExitStack() as stack:
                socks = by_hand(a.address, stack, *map(one_of, range(COUNT)))
                for each in frames[1:3]:
                    socks[1].sendall(each)
                incoming = None
                while incoming is None or len(incoming._order._held) < 2:  # type: ignore[union-attr]
                    await asyncio.sleep(0.01)
                    incoming = a._peers["b"].incoming
                socks[0].sendall(frames[0])
                came = [await a.receive() for _ in range(3)]
                socks[0].sendall(frames[3])
                came.append(await a.receive())
                assert [item.message.chunk for item in came] == list(range(4))  # type: ignore[union-attr]
                size = len(frames[0])
                assert [item.nbytes for item in came] == [3 * size, 0, 0, size]  # type: ignore[union-attr]

    run(scenario())


def test_a_peer_of_whom_only_some_connections_came_was_never_there() -> None:
    async def scenario() -> None:
        a = several("a", "b")[0]
        async with started(a):
            with ExitStack() as stack:
                by_hand(a.address, stack, one_of(0), one_of(1))
            with ExitStack() as stack:
                said = [one_of(number, together="y") for number in range(COUNT)]
                socks = by_hand(a.address, stack, *said)
                for sock, frame in zip(socks, numbered([PING] * COUNT), strict=True):
                    sock.sendall(frame + encoded(Message(Kind.HELLO, body={"bye": True})))
                for _ in range(COUNT):
                    await message(a, "b")
            assert await rest(a) == []

    run(scenario())


def test_what_is_refused_once_all_are_there_ends_all_and_the_peer_may_come_back() -> None:
    """The thread of the last connection finds it in what waited for that connection."""
    (large,) = numbered([Message(Kind.OFFER, payload=np.zeros(2000, np.uint8))])

    async def scenario() -> None:
        a = node("a", names("a", "b"), connections=lambda _a, _b: COUNT, max_payload_bytes=1000)
        async with started(a):
            with ExitStack() as stack:
                first, *_ = by_hand(a.address, stack, one_of(0), one_of(1))
                first.sendall(large)
                incoming = None
                while incoming is None or not incoming._order._held:  # type: ignore[union-attr]
                    await asyncio.sleep(0.01)
                    incoming = a._peers["b"].incoming
                (last,) = by_hand(a.address, stack, one_of(2))
                assert "expected at most 1000 bytes" in await lost(a, "b")
                for sock in (first, last):
                    found = await asyncio.to_thread(FrameReader(sock, 0).read)
                    assert found is not None
                    assert "at most 1000" in (found[1].body or {})["refused"]  # type: ignore[union-attr]
            with ExitStack() as stack:
                said = [one_of(number, together="y") for number in range(COUNT)]
                by_hand(a.address, stack, *said)[0].sendall(numbered([PING])[0])
                await message(a, "b")
            assert "goodbye" in await lost(a, "b")

    run(scenario())


def test_close_does_not_wait_for_a_frame_that_a_broken_peer_has_kept() -> None:
    _, *others = numbered([Message(Kind.OFFER, chunk=chunk) for chunk in range(400)])

    async def scenario() -> None:
        a = several("a", "b", connect_timeout=PATIENCE_S)[0]
        await a.start()
        with ExitStack() as stack:
            socks = by_hand(a.address, stack, *map(one_of, range(COUNT)))
            for number, frame in enumerate(others):
                socks[1 + number % 2].sendall(frame)
            incoming = None
            while incoming is None or incoming._order._blocked < 2:  # type: ignore[union-attr]
                await asyncio.sleep(0.01)
                incoming = a._peers["b"].incoming
            closed = asyncio.create_task(a.close())
            assert await asyncio.to_thread(socks[0].recv, 1)  # its goodbye
        async with asyncio.timeout(PATIENCE_S / 3):
            await closed

    run(scenario())


@pytest.mark.parametrize("closes", [True, False])
def test_who_is_too_far_ahead_is_let_go_where_the_others_never_come(closes: bool) -> None:
    """It does not read, so it does not notice that its peer has gone, and may be back."""
    frames = numbered([Message(Kind.OFFER, chunk=chunk) for chunk in range(400)])

    async def scenario() -> None:
        a = several("a", "b", connect_timeout=PATIENCE_S if closes else 0.5)[0]
        async with started(a):
            with ExitStack() as stack:
                (sock,) = by_hand(a.address, stack, one_of(0))
                sock.sendall(b"".join(frames))
                incoming = None
                while incoming is None or not incoming._order._blocked:  # type: ignore[union-attr]
                    await asyncio.sleep(0.01)
                    incoming = a._peers["b"].incoming
            async with asyncio.timeout(PATIENCE_S / 3):
                if closes:
                    await a.close()
                    return
                while a._peers["b"].incoming is incoming:
                    await asyncio.sleep(0.01)
            with ExitStack() as stack:
                said = [one_of(number, together="y") for number in range(COUNT)]
                by_hand(a.address, stack, *said)[0].sendall(frames[0])
                await message(a, "b")
            assert "goodbye" in await lost(a, "b")

    run(scenario())


def test_what_stalls_is_the_link_and_not_a_connection_whose_turn_comes_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a little is sent again and again, each is used, and acknowledged, now and then."""

    async def scenario() -> None:
        a, b = several("a", "b")
        async with started(a, b):
            a.send("b", PING)
            await message(b, "a")
            outgoing = a._peers["b"].outgoing
            assert outgoing is not None
            await stand(outgoing)
            socks = [connection._socket for connection in outgoing.connections]
            told = dict(zip(socks, [(True, 7.0), (False, 0.3), (False, 5.0)], strict=True))
            monkeypatch.setattr(outgoing_module, "outstanding", told.__getitem__)
            outgoing._resumed -= 60.0
            assert a.stalled("b") == 0.3
            told[socks[1]] = True, 4.0
            assert a.stalled("b") == 4.0
            told.update(dict.fromkeys(socks, (False, 9.0)))
            assert a.stalled("b") == 0.0

    run(scenario())


def test_a_number_that_was_there_ends_all_and_the_dialer_learns_why() -> None:
    frames = numbered([Message(Kind.OFFER, chunk=chunk) for chunk in range(2)])

    async def scenario() -> None:
        a = several("a", "b")[0]
        async with started(a):
            with ExitStack() as stack:
                socks = by_hand(a.address, stack, *map(one_of, range(COUNT)))
                socks[0].sendall(frames[0])
                await message(a, "b")
                socks[1].sendall(frames[0])
                assert "expected a new one, came 0 again" in await lost(a, "b")
                for sock in socks:
                    found = await asyncio.to_thread(FrameReader(sock, 0).read)
                    assert found is not None
                    assert "came 0 again" in (found[1].body or {})["refused"]  # type: ignore[union-attr]
            assert a.refused == 1

    run(scenario())


def test_a_frame_that_never_comes_holds_up_a_bounded_number_of_others() -> None:
    """One connection keeps back what is due; the others cannot bring all that they have."""
    frames = numbered([Message(Kind.OFFER, chunk=chunk) for chunk in range(900)])
    missing, *others = frames

    async def scenario() -> None:
        a = several("a", "b")[0]
        async with started(a):
            with ExitStack() as stack:
                socks = by_hand(a.address, stack, *map(one_of, range(COUNT)))
                for number, frame in enumerate(others):
                    socks[1 + number % 2].sendall(frame)
                incoming = None
                while incoming is None or incoming._order._blocked < 2:  # type: ignore[union-attr]
                    await asyncio.sleep(0.01)
                    incoming = a._peers["b"].incoming
                assert len(incoming._order._held) == COUNT * FRAMES_AHEAD - 1  # type: ignore[union-attr]
                socks[0].sendall(missing)
                chunks = [(await message(a, "b")).chunk for _ in frames]
                assert chunks == list(range(900))
            assert isinstance(await a.receive(), Lost)

    run(scenario())


def test_close_is_bounded_when_the_peer_does_not_read() -> None:
    async def scenario() -> None:
        with closing(socket.socket()) as deaf:
            deaf.bind(LOCAL)
            deaf.listen(8)
            peers = {"b": deaf.getsockname()}
            a = node("a", peers, connect_timeout=0.2, connections=lambda _a, _b: COUNT)
            async with started(a):
                big = np.zeros(64 * FRAGMENT_BYTES, np.uint8)
                a.send("b", Message(Kind.OFFER, payload=big))
                async with asyncio.timeout(3.0):
                    await a.close()

    run(scenario())
