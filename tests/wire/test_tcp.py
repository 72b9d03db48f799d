"""TCP alone: its options, its refusals, and peers that die, lie, come late or come back."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

import numpy as np
import pytest

from geojax.errors import ConfigError, WireError
from geojax.wire.frame import PROTOCOL_VERSION, frames_of, wire_bytes
from geojax.wire.message import FRAGMENT_BYTES, HEADER_BYTES, Kind, Message
from geojax.wire.sockets import FrameReader, send_all
from geojax.wire.tcp import TcpTransport
from geojax.wire.transport import Lost, Received

LOCAL = ("127.0.0.1", 0)
PATIENCE_S = 30.0
PING = Message(Kind.CONTROL, body={"type": "ping"})


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scenario

    asyncio.run(within())


def node(
    name: str, peers: dict[str, tuple[str, int]], *, run_id: str = "run", **options: Any
) -> TcpTransport:
    options = {"connect_timeout": 5.0, **options}
    return TcpTransport(name, LOCAL, peers, run_id=run_id, **options)


@asynccontextmanager
async def started(*nodes: TcpTransport, closes: bool = True) -> AsyncIterator[None]:
    """Starts nodes, tells each other's addresses, and closes them in the end."""
    try:
        for member in nodes:
            await member.start()
            for other in nodes:
                other._addresses[member.name] = member.address  # type: ignore[index]
        yield
    finally:
        for member in nodes:
            await member.close()


def names(*all_names: str) -> dict[str, tuple[str, int]]:
    return dict.fromkeys(all_names, LOCAL)


async def lost(transport: TcpTransport, peer: str) -> str:
    item = await transport.receive()
    assert isinstance(item, Lost), item
    assert item.peer == peer
    return item.reason


async def message(transport: TcpTransport, peer: str) -> Message:
    item = await transport.receive()
    assert isinstance(item, Received), item
    assert item.peer == peer
    return item.message


async def rest(transport: TcpTransport) -> list[Received | Lost]:
    """Closes a transport and returns what nobody had asked it for."""
    await transport.close()
    items = []
    with suppress(WireError):
        while True:
            items.append(await transport.receive())
    return items


def encoded(message: Message) -> bytes:
    return b"".join(head + bytes(payload) for head, payload in frames_of(message))


def _read_to_end(sock: socket.socket, most: int) -> None:
    """Reads until the other side ends it, or ``most`` bytes have come."""
    while most > 0 and (data := sock.recv(min(most, 1 << 16))):
        most -= len(data)


def hello(**changes: Any) -> bytes:
    body = {"name": "b", "to": "a", "run_id": "run", "protocol": PROTOCOL_VERSION} | changes
    return encoded(Message(Kind.HELLO, body=body))


def answer_to(address: tuple[str, int], *parts: bytes) -> bytes:
    """Sends bytes over a connection of its own, says no more, and returns what came back."""
    with closing(socket.create_connection(address, timeout=PATIENCE_S)) as sock:
        answer = b""
        with suppress(OSError):  # it may be refused before it has said all
            for part in parts:
                sock.sendall(part)
            sock.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while data := sock.recv(4096):
                answer += data
    return answer


# ---- start and options


def test_options_are_set_and_read_back() -> None:
    async def scenario() -> None:
        a, b = (node(name, names("a", "b"), congestion_control="reno") for name in "ab")
        async with started(a, b):
            a.send("b", PING)
            await message(b, "a")
            for options in (a.socket_options, b.socket_options):
                assert options["TCP_CONGESTION"] == "reno"
                assert options["TCP_NODELAY"] == 1
                assert options["TCP_NOTSENT_LOWAT"] == 128 * 1024

    run(scenario())


def test_an_unknown_congestion_control_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"testbed.congestion_control = 'nosuch'.*reno"):
        run(node("a", {}, congestion_control="nosuch").start())


def test_a_port_in_use_is_named_with_the_fix() -> None:
    async def scenario() -> None:
        a = node("a", names("a"))
        async with started(a):
            again = TcpTransport("b", a.address, {}, run_id="run", connect_timeout=1.0)
            with pytest.raises(ConfigError, match=f":{a.address[1]}.*port is in use; .*ss"):
                await again.start()
            await again.close()

    run(scenario())


def test_a_foreign_address_is_named() -> None:
    a = TcpTransport("a", ("192.0.2.1", 0), {}, run_id="run", connect_timeout=1.0)
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1.*no address of this host"):
        run(a.start())


def test_a_closed_transport_says_so() -> None:
    async def scenario() -> None:
        a = node("a", names("a", "b"))
        with pytest.raises(WireError, match="not open"):
            a.send("b", PING)
        await a.start()
        waiting = asyncio.create_task(a.receive())
        await a.close()
        await a.close()
        with pytest.raises(WireError, match="closed"):
            await waiting
        with pytest.raises(WireError, match="closed"):
            await a.receive()
        with pytest.raises(WireError, match="not open"):
            a.send("b", PING)

    run(scenario())


def test_hello_is_not_for_users() -> None:
    async def scenario() -> None:
        a = node("a", names("a", "b"))
        async with started(a):
            with pytest.raises(ValueError, match="CONTROL"):
                a.send("b", Message(Kind.HELLO))

    run(scenario())


# ---- refusals


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"run_id": "other"}, "run_id: expected 'run', came 'other'"),
        ({"to": "c"}, "to: expected 'a', came 'c'"),
        ({"name": "x"}, "name: expected one of b, c; came 'x'"),
        ({"name": ["b"]}, "name: expected one of"),
        ({"protocol": 99}, "protocol: expected 1, came 99"),
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
        ((GOOD[:4] + b"\x63" + GOOD[5:],), "protocol version: expected 1, came 99"),
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


# ---- peers that die, come late or come back

PEER = """
import asyncio, sys
from geojax.wire.message import Kind, Message
from geojax.wire.tcp import TcpTransport

async def main(port):
    me = TcpTransport("b", ("127.0.0.1", 0), {"a": ("127.0.0.1", port)}, run_id="run",
                      connect_timeout=5.0)
    await me.start()
    me.send("a", Message(Kind.CONTROL))
    await me.receive()

asyncio.run(main(int(sys.argv[1])))
"""


def test_a_killed_process_is_lost_at_once() -> None:
    async def scenario() -> None:
        a = node("a", names("a", "b"))
        async with started(a):
            with subprocess.Popen([sys.executable, "-c", PEER, str(a.address[1])]) as process:
                await message(a, "b")
                process.send_signal(signal.SIGKILL)
                async with asyncio.timeout(1.0):
                    assert "goodbye" in await lost(a, "b")

    run(scenario())


def test_what_arrived_before_the_death_is_delivered_first() -> None:
    async def scenario() -> None:
        a, b = node("a", names("a", "b")), node("b", names("a", "b"))
        async with started(a, b):
            a.send("b", PING)
            await message(b, "a")
            for _ in range(50):
                b.send("a", PING)
            for _ in range(50):
                await message(a, "b")
            b.abort()
            await lost(a, "b")
            assert await rest(a) == []

    run(scenario())


def test_a_peer_that_comes_back_is_heard_dialed_and_lost_again() -> None:
    async def scenario() -> None:
        a = node("a", names("a", "b"))
        async with started(a):
            for _ in range(3):
                b = node("b", names("a", "b"))
                async with started(b):
                    b._addresses["a"], a._addresses["b"] = a.address, b.address  # type: ignore[index]
                    b.send("a", PING)
                    await message(a, "b")
                    a.send("b", PING)
                    await message(b, "a")
                    b.abort()
                    await lost(a, "b")
            assert a.received["b"].messages[Kind.CONTROL] == 3

    run(scenario())


def test_a_peer_that_comes_back_before_its_end_was_read_is_not_a_second_one() -> None:
    async def scenario() -> None:
        a = node("a", names("a", "b"))
        async with started(a):
            big = encoded(Message(Kind.OFFER, payload=np.zeros(64 * FRAGMENT_BYTES, np.uint8)))
            with closing(socket.create_connection(a.address)) as former:
                await asyncio.to_thread(former.sendall, hello() + big)
                former.shutdown(socket.SHUT_WR)  # what the death of the process does
                answer = await asyncio.to_thread(answer_to, a.address, hello(), encoded(PING))
            assert b"refused" not in answer
            kinds = [type(item) for item in [await a.receive() for _ in range(4)]]
            assert kinds == [Received, Lost, Received, Lost]

    run(scenario())


def test_one_broken_direction_ends_the_other() -> None:
    """Peer ``b`` by hand: its two connections with ``a`` end one at a time."""

    async def scenario(breaks_outgoing: bool) -> None:
        with closing(socket.socket()) as listener:
            listener.bind(LOCAL)
            listener.listen()
            a = node("a", {"b": listener.getsockname()})
            async with started(a):
                to_a = socket.create_connection(a.address, timeout=PATIENCE_S)
                a.send("b", PING)
                from_a, _ = await asyncio.to_thread(listener.accept)
                with closing(to_a), closing(from_a):
                    from_a.settimeout(PATIENCE_S)
                    to_a.sendall(hello() + encoded(PING))
                    await message(a, "b")
                    broken, left = (from_a, to_a) if breaks_outgoing else (to_a, from_a)
                    broken.shutdown(socket.SHUT_RDWR)
                    await lost(a, "b")
                    await asyncio.to_thread(_read_to_end, left, 1 << 20)
                    assert await rest(a) == []

    run(scenario(breaks_outgoing=True))
    run(scenario(breaks_outgoing=False))


def test_a_peer_may_listen_later_than_it_is_called() -> None:
    async def scenario() -> None:
        with closing(socket.socket()) as reserved:
            reserved.bind(LOCAL)
            address = reserved.getsockname()
        a = node("a", {"b": address})
        async with started(a):
            a.send("b", PING)
            b = TcpTransport("b", address, {"a": LOCAL}, run_id="run", connect_timeout=5.0)
            async with started(b):
                await message(b, "a")

    run(scenario())


def test_a_peer_that_never_listens_is_lost_once() -> None:
    async def scenario() -> None:
        with closing(socket.socket()) as reserved:
            reserved.bind(LOCAL)
            a = node("a", {"b": reserved.getsockname()}, connect_timeout=0.1)
            async with started(a):
                a.send("b", PING)
                assert "no connection to 127.0.0.1:" in await lost(a, "b")
                a.send("b", PING)
                again = a._peers["b"].outgoing
                assert again is not None
                await asyncio.to_thread(again.thread.join)
                assert await rest(a) == []

    run(scenario())


def test_a_peer_that_said_goodbye_is_lost_only_when_it_is_called_again() -> None:
    async def scenario() -> None:
        a, b = (node(name, names("a", "b"), connect_timeout=PATIENCE_S) for name in "ab")
        async with started(a, b):
            a.send("b", PING)
            await message(b, "a")
            await b.close()
            a.send("b", PING)
            async with asyncio.timeout(5.0):  # a goodbye is believed: one attempt is enough
                assert "no connection" in await lost(a, "b")

    run(scenario())


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"bye": True}, "said goodbye before 1 messages to it had left"),
        ({"refused": "no"}, "refused the connection: no"),
    ],
)
def test_the_last_word_is_heard_behind_a_broken_pipe(body: dict[str, Any], reason: str) -> None:
    def answer_and_break(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with closing(sock):  # with unread data: the kernel resets the connection
            sock.sendall(encoded(Message(Kind.HELLO, body=body)))

    async def scenario() -> None:
        with closing(socket.socket()) as listener:
            listener.bind(LOCAL)
            listener.listen()
            a = node("a", {"b": listener.getsockname()})
            async with started(a):
                a.send("b", Message(Kind.OFFER, payload=np.zeros(64 * FRAGMENT_BYTES, np.uint8)))
                await asyncio.to_thread(answer_and_break, listener)
                assert await lost(a, "b") == reason

    run(scenario())


def test_a_goodbye_that_leaves_messages_behind_is_a_loss() -> None:
    def say_goodbye(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with closing(sock):
            sock.sendall(encoded(Message(Kind.HELLO, body={"bye": True})))
            _read_to_end(sock, 1 << 30)

    async def scenario() -> None:
        with closing(socket.socket()) as listener:
            listener.bind(LOCAL)
            listener.listen()
            a = node("a", {"b": listener.getsockname()})
            async with started(a):
                big = Message(Kind.OFFER, payload=np.zeros(64 * FRAGMENT_BYTES, np.uint8))
                for _ in range(3):
                    a.send("b", big)
                await asyncio.to_thread(say_goodbye, listener)
                assert "said goodbye before 3 messages" in await lost(a, "b")

    run(scenario())


def _closed_on(how: Callable[[socket.socket], None]) -> None:
    """Node ``a`` sends more than fits to a peer that listens but never reads; then closes."""

    async def scenario() -> None:
        with closing(socket.socket()) as deaf:
            deaf.bind(LOCAL)
            deaf.listen(0)
            how(deaf)
            a = node("a", {"b": deaf.getsockname()}, connect_timeout=0.2)
            async with started(a):
                a.send("b", Message(Kind.OFFER, payload=np.zeros(64 * FRAGMENT_BYTES, np.uint8)))
                async with asyncio.timeout(3.0):
                    await a.close()

    run(scenario())


def test_close_is_bounded_when_the_peer_does_not_read() -> None:
    _closed_on(lambda _: None)


def test_close_is_bounded_while_dialing() -> None:
    callers: list[socket.socket] = []

    def fill_the_backlog(listener: socket.socket) -> None:
        for _ in range(3):
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
            callers.append(caller)

    try:
        _closed_on(fill_the_backlog)
    finally:
        for caller in callers:
            caller.close()


# ---- what is on the wire


def test_frames_of_higher_priority_go_between_those_of_a_large_message() -> None:
    """Read by hand, so that the large message cannot be through before the small one comes."""

    async def scenario() -> None:
        with closing(socket.socket()) as listener:
            listener.bind(LOCAL)
            listener.listen()
            a = node("a", {"b": listener.getsockname()})
            async with started(a):
                big = Message(Kind.OFFER, chunk=1, payload=np.zeros(8 << 20, np.uint8))
                a.send("b", big, priority=9)
                a.send("b", Message(Kind.OFFER, chunk=2), priority=1)
                order = await asyncio.to_thread(_chunks_on, listener)
                assert order.index(2) < len(order) // 2
                assert order.count(1) == (8 << 20) // FRAGMENT_BYTES

    run(scenario())


def _chunks_on(listener: socket.socket) -> list[int]:
    """Chunk numbers of the frames of the next connection, in order of arrival."""
    sock, _ = listener.accept()
    with closing(sock):
        reader = FrameReader(sock, 1 << 24)
        reader.read()  # HELLO
        chunks = []
        whole = 0
        while whole < 2:
            frame = reader.read()
            assert frame is not None
            chunks.append(frame[0].chunk)
            whole += frame[1] is not None
        return chunks


def test_the_observer_sees_each_message_leave() -> None:
    async def scenario() -> None:
        a, b = node("a", names("a", "b")), node("b", names("a", "b"))
        seen: list[tuple[str, int, float, float]] = []
        a.observer = lambda peer, message, start, end: seen.append(
            (peer, message.chunk, start, end)
        )
        start = asyncio.get_running_loop().time()
        async with started(a, b):
            for chunk in range(3):
                payload = np.zeros(3 * FRAGMENT_BYTES, np.uint8)
                a.send("b", Message(Kind.OFFER, chunk=chunk, payload=payload))
            for _ in range(3):
                await message(b, "a")
            await a.close()
        assert [(peer, chunk) for peer, chunk, _, _ in seen] == [("b", 0), ("b", 1), ("b", 2)]
        times = [start] + [t for _, _, begin, end in seen for t in (begin, end)]
        assert times == sorted(times)
        assert a.sent["b"].seconds > 0.0

    run(scenario())


def test_counters_agree_with_the_other_side_to_the_last_byte() -> None:
    async def scenario() -> None:
        a, b = node("a", names("a", "b")), node("b", names("a", "b"))
        async with started(a, b):
            sent = Message(Kind.OFFER, payload=np.zeros(5 * FRAGMENT_BYTES + 3, np.uint8))
            a.send("b", sent)
            await message(b, "a")
            await a.close()
            assert a.sent["b"].bytes == b.received["a"].bytes
            assert a.sent["b"].messages == b.received["a"].messages
            assert a.sent["b"].bytes[Kind.OFFER] == wire_bytes(sent)
            assert a.sent["b"].bytes[Kind.HELLO] > 2 * HEADER_BYTES  # HELLO and goodbye

    run(scenario())


class _Dribble:
    """A socket that takes only a few bytes at a time."""

    def __init__(self) -> None:
        self.taken = b""

    def sendmsg(self, buffers: list[bytes]) -> int:
        taken = b"".join(bytes(buffer) for buffer in buffers)[:5]
        self.taken += taken
        return len(taken)

    def sendall(self, data: bytes) -> None:
        self.taken += bytes(data)


@pytest.mark.parametrize("parts", [(b"abc", b"defgh", b"ij"), (b"abcdefgh", b"ij"), (b"ab", b"c")])
def test_a_partial_send_goes_on_where_it_stopped(parts: tuple[bytes, ...]) -> None:
    sock = _Dribble()
    send_all(sock, parts)  # type: ignore[arg-type]
    assert sock.taken == b"".join(parts)
