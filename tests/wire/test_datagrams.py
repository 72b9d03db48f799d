"""Datagrams over UDP: what is dropped, and what waits."""

from __future__ import annotations

import socket
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from tcp_helpers import LOCAL, message, names, node, run, started

from geojax.errors import ConfigError
from geojax.wire.datagrams import DatagramQueue, DatagramSocket
from geojax.wire.frame import wire_bytes
from geojax.wire.message import HEADER_BYTES, Kind, Message
from geojax.wire.tcp import TcpTransport

LATE = Message(Kind.LATE, round=1, body={"part": 0}, payload=np.arange(50, dtype=np.uint8))


def datagram_of(a: TcpTransport, sender: str, *, run_id: str = "run", to: str = "a", sent=LATE):  # type: ignore[no-untyped-def]
    """The bytes that a node would send."""
    other = DatagramSocket(
        sender, run_id, {"a": a.address},
        deliver=lambda *_: None, refuse=lambda *_: None, ended=lambda: None,
    )  # fmt: skip
    frame = other.frame(to, sent)
    other._stop.close()
    return frame.head + bytes(frame.payload)


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_what_is_no_datagram_of_a_known_peer_is_counted_and_dropped() -> None:
    async def scenario() -> None:
        a, b = node("a", names("a", "b")), node("b", names("a", "b"))
        async with started(a, b):
            good = datagram_of(a, "b")
            offer = datagram_of(a, "b", sent=replace(LATE, kind=Kind.OFFER))
            large = np.zeros(300_000, np.uint8)  # the first of two frames claims to be a datagram
            wrong = [
                b"", b"x", bytes(200), good[:-1], good + b"\0", good[: HEADER_BYTES - 1], offer,
                datagram_of(a, "b", sent=replace(LATE, payload=large))[:60_000],
                datagram_of(a, "b", run_id="another run"), datagram_of(a, "c"),
                datagram_of(a, "b", to="c"), datagram_of(a, "a"),
                *(changed(good, at) for at in (0, 4, 5, 20, 40, HEADER_BYTES, len(good) - 1)),
            ]  # fmt: skip
            own = b._datagrams._socket  # type: ignore[union-attr]
            assert own is not None
            for data in wrong:
                own.sendto(data, a.address)
            with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as stranger:
                stranger.bind(LOCAL)
                stranger.sendto(good, a.address)  # right, but not from b's address
                own.sendto(good, a.address)
                came = await message(a, "b")
            assert np.array_equal(came.payload, LATE.payload)  # type: ignore[arg-type]
            assert came.round == 1
            # The stranger's, of another socket, may come after the good one.
            assert a.refused_datagrams in (len(wrong), len(wrong) + 1)
            assert a.received["b"].messages[Kind.LATE] == 1
            assert a.received["b"].bytes[Kind.LATE] == wire_bytes(LATE)
            b.send("a", Message(Kind.CONTROL, round=7))
            assert (await message(a, "b")).round == 7, "nothing else was delivered"

    run(scenario())


def test_a_udp_port_in_use_is_named_with_the_fix() -> None:
    async def scenario() -> None:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
            taken.bind(LOCAL)
            address = taken.getsockname()
            a = TcpTransport("a", address, {}, run_id="run", connect_timeout=1.0)
            with pytest.raises(ConfigError, match=f":{address[1]}.*UDP port is not free.*ss -lunp"):
                await a.start()
            await a.close()

    run(scenario())


def test_datagrams_to_one_who_has_no_socket_are_lost_and_nothing_else() -> None:
    async def scenario() -> None:
        a, b = node("a", names("a", "b")), node("b", names("a", "b"))
        async with started(a, b):
            a.send("b", Message(Kind.CONTROL))
            await message(b, "a")
            assert b._datagrams is not None
            b._datagrams.stop()
            b._datagrams.thread.join()
            for _ in range(10):
                a.send_datagram("b", LATE)
            a.send("b", Message(Kind.CONTROL, round=1))
            assert (await message(b, "a")).kind is Kind.CONTROL

    run(scenario())


def test_the_oldest_give_way_when_too_much_waits() -> None:
    queue = DatagramQueue(max_bytes=250)
    for chunk in range(4):
        queue.push(replace(LATE, chunk=chunk), 100)
    assert (len(queue), queue.dropped) == (2, 2)
    first = queue.take()
    assert first is not None
    assert first.chunk == 2
    queue.push(replace(LATE, chunk=4), 100)
    assert [m.chunk for m in (queue.take(), queue.take()) if m is not None] == [3, 4]
    assert queue.take() is None
    queue.push(LATE, 251)  # alone too large
    assert queue.take() is None


def test_those_of_the_round_before_the_last_give_way() -> None:
    queue = DatagramQueue()
    for number in (5, 5, 6, 7):
        queue.push(replace(LATE, round=number), 1)
    assert queue.dropped == 2
    assert [queue.take().round, queue.take().round] == [6, 7]  # type: ignore[union-attr]
