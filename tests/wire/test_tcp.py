"""TCP alone: its options, its state, and what is on the wire."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from contextlib import closing, suppress

import numpy as np
import pytest
from tcp_helpers import (
    LOCAL,
    PING,
    message,
    names,
    node,
    run,
    started,
)

from geojax.errors import ConfigError, WireError
from geojax.wire import outgoing as outgoing_module
from geojax.wire.frame import wire_bytes
from geojax.wire.message import FRAGMENT_BYTES, HEADER_BYTES, Kind, Message
from geojax.wire.outgoing import Outgoing
from geojax.wire.sockets import FrameReader, allow_connections, outstanding, send_all
from geojax.wire.tcp import TcpTransport


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


@pytest.mark.parametrize("most", [4000, resource.RLIM_INFINITY])
def test_a_process_may_have_as_many_files_as_its_connections_need(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [(1024, most)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.append(wanted))
    allow_connections(100)
    assert limits == [(1024, most)], "it has enough"
    allow_connections(800)
    assert limits[1:] == [(3712, most)]
    if most == 4000:
        with pytest.raises(ConfigError, match=r"wan\.connections = 900: .* 4112 .* may have 4000"):
            allow_connections(900)


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
        a.observers.append(
            lambda peer, message, _, start, end: seen.append((peer, message.chunk, start, end))
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


def test_a_connection_is_stalled_while_nothing_is_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the kernel says is played; emulated links that stop are another test's."""
    a, b = node("a", names("a", "b")), node("b", names("a", "b"))
    told = [(False, 0.0)]

    async def scenario() -> None:
        async with started(a, b):
            a.send("b", PING)
            await message(b, "a")
            outgoing = a._peers["b"].outgoing
            assert outgoing is not None
            assert a.stalled("b") == 0.0
            monkeypatch.setattr(outgoing_module, "outstanding", lambda sock: told[0])
            told[0] = True, 3.0
            outgoing._resumed -= 60.0
            assert a.stalled("b") == 3.0
            outgoing._resumed += 59.0  # it had nothing to send until a second ago
            assert 1.0 <= a.stalled("b") < 3.0
            told[0] = False, 3.0
            assert a.stalled("b") == 0.0

    run(scenario())


def test_what_is_on_its_way_to_a_peer_that_does_not_answer_is_stalled_since_it_was_dialed() -> None:
    a = node("a", names("a", "b"))
    outgoing = Outgoing(a, "b", ("127.0.0.1", 9))
    outgoing._resumed -= 5.0
    assert 5.0 <= outgoing.stalled() < 6.0
    outgoing.connections[0].wakeup.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux tells")
def test_a_peer_that_has_stopped_reading_is_no_link_that_is_out() -> None:
    """Its kernel has acknowledged what it had room for; the rest is not even on its way."""
    with socket.socket() as listener, socket.socket() as sender:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sender.connect(listener.getsockname())
        reader, _ = listener.accept()
        with reader:
            sender.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    sender.send(bytes(65_536))
            until = time.monotonic() + 5.0
            while outstanding(sender)[0]:
                assert time.monotonic() < until, "what is not sent counts as on its way"
