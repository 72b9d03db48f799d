"""TCP transports for tests, and peers that a test plays by hand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

from geojax.errors import WireError
from geojax.wire.frame import PROTOCOL_VERSION, frames_of
from geojax.wire.message import Kind, Message
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
async def started(*nodes: TcpTransport) -> AsyncIterator[None]:
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


async def lost(transport: TcpTransport, peer: str, *, goodbye: bool | None = None) -> str:
    """The reason of a loss, which must be next; ``goodbye``: whether the peer must have said it."""
    item = await transport.receive()
    assert isinstance(item, Lost), item
    assert item.peer == peer
    assert goodbye in (None, item.goodbye)
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


def read_to_end(sock: socket.socket, most: int) -> None:
    """Reads until the other side ends it in any way, or ``most`` bytes have come."""
    with suppress(ConnectionResetError):
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
