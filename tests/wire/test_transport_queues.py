"""What waits in any transport: how much, until when, and what is taken back."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from test_transports import Network, datagram, message_from, on_every_transport

from geojax.errors import FrameError
from geojax.wire.message import FRAGMENT_BYTES, Kind, Message
from geojax.wire.transport import Lost


@on_every_transport
async def test_what_has_left_waits_no_more_and_every_observer_hears_of_it(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    a = nodes["a"]
    assert a.waiting("b") == 0
    heard: list[tuple[str, int]] = []
    counts: list[int] = []
    all_left = asyncio.get_running_loop().create_future()

    def first(peer: str, message: Message, nbytes: int, start: float, end: float) -> None:
        heard.append((peer, message.chunk))
        counts.append(a.waiting("b"))

    def second(peer: str, message: Message, nbytes: int, start: float, end: float) -> None:
        heard.append((peer, message.chunk))
        if len(heard) == 8:
            all_left.set_result(None)

    a.observers += [first, second]
    big = np.zeros(32 * FRAGMENT_BYTES, np.uint8)
    for chunk in range(4):
        a.send("b", Message(Kind.OFFER, chunk=chunk, payload=big))
    assert a.waiting("b") == 4
    with pytest.raises(FrameError):
        a.send("b", Message(Kind.OFFER, body={"x": object()}))
    assert a.waiting("b") == 4
    await all_left
    if network.connections > 1:
        assert heard[::2] == heard[1::2]
        heard.sort()
    assert heard == [("b", chunk) for chunk in range(4) for _ in range(2)]
    assert counts[-1] == a.waiting("b") == 0
    assert all(count <= 3 - chunk for chunk, count in enumerate(counts))


@on_every_transport
async def test_what_is_withdrawn_never_leaves_and_waits_no_more(network: Network) -> None:
    """Messages of four frames and more; of what has begun to leave, nothing is withdrawn."""
    nodes = await network.make(["a", "b", "c"])
    a = nodes["a"]
    big = np.zeros(4 * FRAGMENT_BYTES, np.uint8)
    for chunk in range(40):
        for peer in "bc":
            a.send(peer, Message(Kind.OFFER, chunk=chunk, payload=big), chunk)
    waiting = {peer: a.waiting(peer) for peer in "bc"}
    withdrawn = a.withdraw(lambda message: message.chunk % 2 == 1)
    assert 0 < withdrawn <= 40
    assert sum(waiting[peer] - a.waiting(peer) for peer in "bc") >= withdrawn
    assert a.withdraw(lambda message: message.chunk % 2 == 1) == 0
    a.send("b", Message(Kind.OFFER, chunk=99), 99)
    a.send("c", Message(Kind.OFFER, chunk=99), 99)
    came = 0
    for peer in "bc":
        chunks: list[int] = []
        while chunks[-1:] != [99]:
            chunks.append((await message_from(nodes[peer], "a")).chunk)
        assert [chunk for chunk in chunks if chunk % 2 == 0] == list(range(0, 40, 2))
        came += len(chunks) - 1
    assert came == 80 - withdrawn
    assert a.waiting("b") == a.waiting("c") == 0


@on_every_transport
async def test_an_observer_may_send_what_comes_next(network: Network) -> None:
    nodes = await network.make(["a", "b", "c"])
    a = nodes["a"]

    def more(peer: str, message: Message, nbytes: int, start: float, end: float) -> None:
        if message.chunk < 5:
            following = Message(Kind.OFFER, chunk=message.chunk + 1)
            a.send("c" if peer == "b" else "b", following)

    a.observers.append(more)
    a.send("b", Message(Kind.OFFER, chunk=0))
    assert [(await message_from(nodes["b"], "a")).chunk for _ in range(3)] == [0, 2, 4]
    assert [(await message_from(nodes["c"], "a")).chunk for _ in range(3)] == [1, 3, 5]


@on_every_transport
async def test_datagrams_do_not_count_as_waiting_messages(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    for _ in range(3):
        nodes["a"].send_datagram("b", datagram(0))
    assert nodes["a"].waiting("b") == 0
    for _ in range(3):
        await message_from(nodes["b"], "a")
    assert nodes["a"].waiting("b") == 0


@on_every_transport
async def test_nothing_waits_for_a_peer_that_is_gone(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    nodes["a"].send("b", Message(Kind.CONTROL))
    await message_from(nodes["b"], "a")
    big = np.zeros(32 * FRAGMENT_BYTES, np.uint8)
    for chunk in range(20):
        nodes["a"].send("b", Message(Kind.OFFER, chunk=chunk, payload=big))
    await network.kill("b")
    assert isinstance(await nodes["a"].receive(), Lost)
    assert nodes["a"].waiting("b") == 0
