"""What a TCP transport refuses, while it lives on for others."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import tracemalloc
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from tcp_helpers import (
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

from geojax.wire.message import FRAGMENT_BYTES, HEADER_BYTES, Kind, Message


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"run_id": "other"}, "run_id: expected 'run', came 'other'"),
        ({"to": "c"}, "to: expected 'a', came 'c'"),
        ({"name": "x"}, "name: expected one of b, c; came 'x'"),
        ({"name": ["b"]}, "name: expected one of"),
        ({"protocol": 99}, "protocol: expected 3, came 99"),
    ],
)
def test_a_wrong_hello_is_refused_and_told_why(changes: dict[str, Any], complaint: str) -> None:
    async def scenario() -> None:
        a, c = node("a", names("a", "b", "c")), node("c", names("a", "b", "c"))
        async with started(a, c):
            answer = await asyncio.to_thread(answer_to, a.address, hello(**changes))
            assert complaint.encode() in answer
            assert a.refused == 1
            c.send("a", PING)
            await message(a, "c")

    run(scenario())


def test_the_dialer_learns_why_it_was_refused() -> None:
    async def scenario() -> None:
        a, b = node("a", names("a", "b")), node("b", names("a", "b"), run_id="yesterday")
        async with started(a, b):
            b.send("a", Message(Kind.OFFER, payload=np.zeros(8 * FRAGMENT_BYTES, np.uint8)))
            assert "run_id: expected 'run', came 'yesterday'" in await lost(b, "a")

    run(scenario())


def test_a_second_connection_of_one_name_is_refused() -> None:
    async def scenario() -> None:
        a, b = node("a", names("a", "b"), connect_timeout=0.1), node("b", names("a", "b"))
        async with started(a, b):
            b.send("a", PING)
            await message(a, "b")
            answer = await asyncio.to_thread(answer_to, a.address, hello())
            assert b"b is already connected from 127.0.0.1" in answer
            b.send("a", PING)
            await message(a, "b")

    run(scenario())


GOOD = encoded(Message(Kind.OFFER, payload=np.zeros(100, np.uint8)))
CLAIM = encoded(Message(Kind.OFFER, payload=np.zeros(FRAGMENT_BYTES + 1, np.uint8)))
GIBIBYTE = 1 << 30


def with_total(frame: bytes, total: int) -> bytes:
    return frame[:44] + total.to_bytes(8, "big") + frame[52:]


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ((b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + b" " * 80,), "magic: expected b'GEOJ'"),
        ((GOOD[:4] + b"\x63" + GOOD[5:],), "protocol version: expected 3, came 99"),
        ((GOOD[:50],), "header: expected 80 bytes, came 50 and the end"),
        ((GOOD[:HEADER_BYTES] + b"abc",), "payload: expected at most 0 bytes"),
        ((encoded(PING),), "first frame: expected HELLO, came CONTROL"),
        ((hello()[:-3],), "body: expected .* bytes, came .* and the end"),
        ((hello(), GOOD[:-3]), "payload: expected 100 bytes, came 97 and the end"),
        ((hello(), GOOD[:-1] + b"\x01"), "checksum: expected 0x"),
        ((hello(), hello()), "HELLO: expected one"),
        ((hello(), with_total(CLAIM, GIBIBYTE + 1)), f"at most {GIBIBYTE} bytes, came a claim of"),
        ((hello(), with_total(CLAIM, 2**64 - 1)), f"came a claim of {2**64 - 1}"),
    ],
)
def test_bad_frames_end_their_connection_alone(
    parts: tuple[bytes, ...], complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        a, c = node("a", names("a", "b", "c")), node("c", names("a", "b", "c"))
        async with started(a, c):
            tracemalloc.start()
            try:
                await asyncio.to_thread(answer_to, a.address, *parts)
                assert tracemalloc.get_traced_memory()[1] < 2**21
            finally:
                tracemalloc.stop()
            assert a.refused == 1
            if len(parts) > 1:  # it had a name
                await lost(a, "b")
            c.send("a", PING)
            await message(a, "c")

    with caplog.at_level(logging.WARNING, "geojax.wire"):
        run(scenario())
    assert caplog.records
    assert pytest.raises(AssertionError, match=complaint).matches(
        AssertionError(caplog.records[0].getMessage())
    )


@pytest.mark.parametrize("named", [False, True])
def test_noise_never_stops_the_server(named: bool) -> None:
    source = random.Random(7)
    starts = [b"", GOOD[:4], GOOD[:6], GOOD[:60]]

    def noise(number: int) -> bytes:
        return starts[number % len(starts)] + source.randbytes(source.randrange(1, 3000))

    async def scenario() -> None:
        a, c = node("a", names("a", "b", "c")), node("c", names("a", "b", "c"))
        async with started(a, c):
            for number in range(100):
                parts = (hello(), noise(number)) if named else (noise(number),)
                await asyncio.to_thread(answer_to, a.address, *parts)
                if named:
                    await lost(a, "b")
            assert a.refused == 100
            c.send("a", PING)
            await message(a, "c")
            assert await rest(a) == []

    run(scenario())


def test_a_silent_stranger_is_let_go_and_left_alone_when_closing() -> None:
    async def scenario() -> None:
        a = node("a", names("a", "b"), connect_timeout=0.1)
        async with started(a):
            assert await asyncio.to_thread(_answer_to_silence, a.address) == b""
        with closing(socket.socket()) as stranger:
            patient = node("a", names("a", "b"), connect_timeout=PATIENCE_S)
            async with started(patient):
                stranger.connect(patient.address)

    run(scenario())


def _answer_to_silence(address: tuple[str, int]) -> bytes:
    with closing(socket.create_connection(address, timeout=PATIENCE_S)) as sock:
        return sock.recv(1)
