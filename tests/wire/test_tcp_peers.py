"""TCP peers that die, come late, come back, or say goodbye."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
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
    read_to_end,
    rest,
    run,
    started,
)

from geojax.wire.message import FRAGMENT_BYTES, Kind, Message
from geojax.wire.sockets import FrameReader, outstanding
from geojax.wire.tcp import TcpTransport
from geojax.wire.transport import Lost, Received

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


def full(transport: TcpTransport, peer: str) -> bool:
    """Whether what waits for a peer waits for room in the peer's kernel."""
    outgoing = transport._peers[peer].outgoing
    assert outgoing is not None
    sock = outgoing.connections[0]._socket
    return sock is not None and outgoing.established and not outstanding(sock)[0]


def cut(transport: TcpTransport) -> None:
    """Ends what the transport receives from ``a`` as if ``a`` were lost otherwise."""
    incoming = transport._peers["a"].incoming
    assert incoming is not None
    incoming.cut("lost otherwise")


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


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux tells")
@pytest.mark.parametrize("ends", [TcpTransport.abort, cut])
def test_who_waits_for_room_learns_of_the_end(ends: Callable[[TcpTransport], None]) -> None:
    """The receiver reads all that its kernel had taken and closes; no room is told of any more."""

    async def scenario() -> None:
        a, b = node("a", names("a", "b")), node("b", names("a", "b"))
        reads = threading.Event()
        b.count_received = lambda *_: reads.wait()  # type: ignore[assignment]
        async with started(a, b):
            try:
                for _ in range(4):
                    a.send("b", Message(Kind.OFFER, payload=np.zeros(8 << 20, np.uint8)))
                while b._peers["a"].incoming is None or not full(a, "b"):
                    await asyncio.sleep(0.01)
                ends(b)
            finally:
                reads.set()
            async with asyncio.timeout(2.0):
                await lost(a, "b")

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
                    await asyncio.to_thread(read_to_end, left, 1 << 20)
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
                assert "no connection to 127.0.0.1:" in await lost(a, "b", goodbye=False)
                a.send("b", PING)
                again = a._peers["b"].outgoing
                assert again is not None
                await asyncio.to_thread(again.connections[0].thread.join)
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
                reason = await lost(a, "b", goodbye=True)
            # Which of both depends on whether the thread of the former connection was through.
            assert "no connection" in reason or "said goodbye before 1 messages" in reason

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
            read_to_end(sock, 1 << 30)

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
                assert "said goodbye before 3 messages" in await lost(a, "b", goodbye=True)

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


def test_nothing_more_is_read_is_said_after_all_has_been_sent() -> None:
    """Who heard it before, and sent something, would dial anew, in vain, and cut what comes."""

    async def scenario() -> None:
        with ExitStack() as stack:
            listener = stack.enter_context(closing(socket.create_server(LOCAL)))
            listener.settimeout(PATIENCE_S)
            a = node("a", {"b": listener.getsockname()})
            await a.start()
            sock = stack.enter_context(closing(socket.create_connection(a.address, PATIENCE_S)))
            sock.sendall(hello())
            sock.sendall(encoded(PING))
            await message(a, "b")
            a.send("b", Message(Kind.OFFER, payload=np.zeros(64 << 20, np.uint8)))
            taken, _ = await asyncio.to_thread(listener.accept)
            stack.enter_context(closing(taken)).settimeout(PATIENCE_S)
            end = asyncio.create_task(a.close())
            while not a._closing:
                await asyncio.sleep(0.01)
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
            sock.settimeout(PATIENCE_S)
            reader, kinds = FrameReader(taken, 64 << 20), []
            while (came := await asyncio.to_thread(reader.read)) is not None:
                kinds.append(came[0].kind)
            assert {Kind.OFFER} < {*kinds}
            taken.close()
            assert await asyncio.to_thread(sock.recv, 1)
            sock.close()
            await end

    run(scenario())
