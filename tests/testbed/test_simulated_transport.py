"""The simulated transport beyond what every transport does: times, lives, frozen nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from geojax.hollow import SizeOnly
from geojax.wire.frame import wire_bytes
from geojax.wire.message import Kind, Message
from geojax.wire.transport import Lost, Received
from testbed.simulated.impairments import Impairments
from testbed.simulated.loop import run_virtual, virtual_loop
from testbed.simulated.transport import Route, SimulatedNetwork, SimulatedTransport

DELAY = 0.05
RATE = 8e6  # bit/s; 1 MB/s
PAIRS = [(a, b) for a in "abc" for b in "abc" if a != b]


class Net:
    """Three nodes; all that a sends shares one port."""

    def __init__(self) -> None:
        self.loop = virtual_loop()
        routes = {pair: Route((pair[0],), DELAY) for pair in PAIRS}
        self.network = SimulatedNetwork(dict.fromkeys("abc", RATE), routes, self.loop)
        self.a, self.b, self.c = (self.network.transport(name) for name in "abc")


def simulated(scenario: Callable[[Net], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Turns a scenario into a test on virtual time."""

    async def main() -> None:
        await scenario(Net())

    def test() -> None:
        run_virtual(main())

    test.__doc__ = scenario.__doc__
    return test


def sized(nbytes: int, **fields: Any) -> Message:
    """A message of so many bytes on the wire."""
    heads = wire_bytes(Message(Kind.OFFER, payload=SizeOnly(nbytes))) - nbytes
    return Message(Kind.OFFER, payload=SizeOnly(nbytes - heads), **fields)


async def received(node: SimulatedTransport) -> Message:
    item = await node.receive()
    assert isinstance(item, Received), item
    return item.message


async def warm(net: Net) -> None:
    """Sends so much that all windows of slow start are behind."""
    for source, target in PAIRS:
        net.network.nodes[source].send(target, sized(2_000_000))
    for node in (net.a, net.b, net.c):
        await received(node)
        await received(node)


@simulated
async def test_a_message_arrives_a_delay_after_its_last_bit(net: Net) -> None:
    await warm(net)
    start = net.loop.time()
    net.a.send("b", sized(100_000))
    net.a.send("b", sized(50_000))
    await received(net.b)
    assert net.loop.time() - start == pytest.approx(0.1 + DELAY)
    await received(net.b)
    assert net.loop.time() - start == pytest.approx(0.15 + DELAY)


@simulated
async def test_two_peers_share_the_port(net: Net) -> None:
    await warm(net)
    start = net.loop.time()
    net.a.send("b", sized(100_000))
    net.a.send("c", sized(300_000))
    await received(net.b)
    assert net.loop.time() - start == pytest.approx(0.2 + DELAY)
    await received(net.c)
    assert net.loop.time() - start == pytest.approx(0.4 + DELAY)


@simulated
async def test_the_observer_sees_every_message_leave(net: Net) -> None:
    await warm(net)
    seen: list[tuple[str, int, float, float]] = []
    net.a.observers.append(
        lambda peer, message, _, start, end: seen.append((peer, message.chunk, start, end))
    )
    start = net.loop.time()
    net.a.send("b", sized(100_000, chunk=1))
    net.a.send("b", sized(200_000, chunk=2))
    before = net.a.sent["b"].seconds
    await received(net.b)
    await received(net.b)
    assert [(peer, chunk) for peer, chunk, _, _ in seen] == [("b", 1), ("b", 2)]
    assert [t - start for entry in seen for t in entry[2:]] == pytest.approx([0, 0.1, 0.1, 0.3])
    assert net.a.sent["b"].seconds - before == pytest.approx(0.3)


@simulated
async def test_sizes_travel_as_they_are_and_arrays_as_bytes(net: Net) -> None:
    net.a.send("b", Message(Kind.OFFER, payload=SizeOnly(123)))
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    net.a.send("b", Message(Kind.OFFER, payload=array))
    assert (await received(net.b)).payload == SizeOnly(123)
    payload = (await received(net.b)).payload
    assert isinstance(payload, np.ndarray)
    assert not payload.flags.writeable
    assert array.flags.writeable
    assert np.array_equal(payload.view(np.float32), array.ravel())


@simulated
async def test_what_is_on_its_way_when_its_sender_dies_still_arrives(net: Net) -> None:
    await warm(net)
    net.a.send("b", sized(100_000, chunk=1))
    net.a.send("b", sized(100_000, chunk=2))
    await asyncio.sleep(0.1 + DELAY / 2)
    net.network.kill("a")
    start = net.loop.time()
    assert (await received(net.b)).chunk == 1
    assert net.loop.time() - start == pytest.approx(DELAY / 2)
    item = await net.b.receive()
    assert isinstance(item, Lost)
    assert net.loop.time() - start == pytest.approx(DELAY)
    assert isinstance(await net.c.receive(), Lost)


@simulated
async def test_a_dead_nodes_transfers_make_room(net: Net) -> None:
    await warm(net)
    net.a.send("b", sized(1_000_000))
    net.a.send("c", sized(100_000))
    await asyncio.sleep(0.1)
    net.network.kill("b")
    start = net.loop.time()
    item = await net.a.receive()
    assert isinstance(item, Lost)
    assert item.peer == "b"
    assert net.loop.time() - start == pytest.approx(DELAY)
    # 50 kB left when b died; half of the port until a knows of it, then all of it.
    assert isinstance(await net.c.receive(), Lost)
    await received(net.c)
    assert net.loop.time() - start == pytest.approx(0.05 + 0.025 + DELAY)


@simulated
async def test_a_peer_that_never_was_here_refuses_after_a_round_trip(net: Net) -> None:
    net.network.kill("b")
    start = net.loop.time()
    net.a.send("b", sized(1000))
    net.a.send("b", sized(1000))
    item = await net.a.receive()
    assert isinstance(item, Lost)
    assert "refused" in item.reason
    assert net.loop.time() - start == pytest.approx(2 * DELAY)
    await asyncio.sleep(1.0)
    net.c.send("a", sized(1000))
    assert isinstance(await net.a.receive(), Received)  # it is lost once


@simulated
async def test_a_restarted_node_is_a_new_peer(net: Net) -> None:
    await warm(net)
    net.a.send("b", sized(1_000_000, chunk=1))
    await asyncio.sleep(0.5)
    net.network.kill("b")
    assert isinstance(await net.a.receive(), Lost)
    again = net.network.transport("b")
    start = net.loop.time()
    net.a.send("b", sized(1000, chunk=2))
    assert (await received(again)).chunk == 2
    # A new connection: set-up, the message, the delay.
    assert net.loop.time() - start == pytest.approx(2 * DELAY + 0.001 + DELAY)
    net.network.kill("b")
    assert isinstance(await net.a.receive(), Lost)  # lost again, since it had come back


@simulated
async def test_a_quick_restart_is_a_loss_too(net: Net) -> None:
    await warm(net)
    net.a.send("b", sized(1_000_000, chunk=1))
    await asyncio.sleep(0.5)
    net.network.kill("b")
    again = net.network.transport("b")
    net.a.send("b", sized(1000, chunk=2))
    again.send("c", sized(1000, chunk=3))
    lost = await net.a.receive()
    assert isinstance(lost, Lost)
    assert lost.reason == "connection reset"
    assert isinstance(await net.c.receive(), Lost)
    assert (await received(again)).chunk == 2
    assert (await received(net.c)).chunk == 3


@simulated
async def test_a_frozen_node_neither_sends_nor_receives(net: Net) -> None:
    await warm(net)
    start = net.loop.time()
    net.a.send("b", sized(100_000, chunk=1))
    net.a.freeze(1.0)
    net.a.send("b", sized(100_000, chunk=2))
    net.c.send("a", sized(1000, chunk=3))
    assert (await received(net.b)).chunk == 1
    assert net.loop.time() - start == pytest.approx(0.1 + DELAY)
    assert (await received(net.a)).chunk == 3
    assert net.loop.time() - start == pytest.approx(1.0)
    assert (await received(net.b)).chunk == 2
    assert net.loop.time() - start == pytest.approx(1.1 + DELAY)


@simulated
async def test_close_waits_for_what_is_queued_and_is_no_loss(net: Net) -> None:
    await warm(net)
    start = net.loop.time()
    net.a.send("b", sized(100_000))
    net.a.send("c", sized(200_000))
    await net.a.close()
    assert net.loop.time() - start == pytest.approx(0.3)
    await asyncio.sleep(1.0)
    assert isinstance(await net.b.receive(), Received)
    net.c.send("b", sized(10))
    assert isinstance(await net.b.receive(), Received)


# ---- datagrams


def late(nbytes: int, **fields: Any) -> Message:
    heads = wire_bytes(Message(Kind.LATE, payload=SizeOnly(nbytes))) - nbytes
    return Message(Kind.LATE, payload=SizeOnly(nbytes - heads), **fields)


@simulated
async def test_a_datagram_crosses_the_same_port_without_a_window(net: Net) -> None:
    start = net.loop.time()
    for _ in range(20):
        net.a.send_datagram("b", late(50_000))
    for number in range(1, 21):
        await received(net.b)
        assert net.loop.time() - start == pytest.approx(0.05 * number + DELAY)
    await warm(net)
    start = net.loop.time()
    net.a.send("c", sized(100_000))
    net.a.send_datagram("b", late(50_000))
    await received(net.b)  # half of the port
    assert net.loop.time() - start == pytest.approx(0.1 + DELAY)
    await received(net.c)
    assert net.loop.time() - start == pytest.approx(0.15 + DELAY)


@simulated
async def test_a_dead_peers_datagrams_make_room_too(net: Net) -> None:
    await warm(net)
    for _ in range(20):
        net.a.send_datagram("b", late(50_000))
    await asyncio.sleep(0.1)
    net.network.kill("b")
    assert isinstance(await net.a.receive(), Lost)
    start = net.loop.time()
    net.a.send("c", sized(100_000))
    assert isinstance(await net.c.receive(), Lost)
    await received(net.c)
    assert net.loop.time() - start == pytest.approx(0.1 + DELAY)


def which_arrive(loss: float, seed: int, *, others: bool = False, count: int = 400) -> list[int]:
    """The numbers of a's datagrams to b that arrive there, of ``count``."""

    async def main() -> list[int]:
        routes = {pair: Route((pair[0],), DELAY, Impairments(loss)) for pair in PAIRS}
        network = SimulatedNetwork(dict.fromkeys("abc", RATE), routes, virtual_loop(), seed=seed)
        a, b, c = (network.transport(name) for name in "abc")
        for number in range(count):
            if others:
                a.send_datagram("c", late(1000))
                c.send_datagram("b", late(1000))
            a.send_datagram("b", late(1000, chunk=number))
        await asyncio.sleep(100)
        assert a.sent["b"].messages[Kind.LATE] == count
        came = []
        for _ in range(sum(b.received[peer].messages[Kind.LATE] for peer in b.received)):
            item = await b.receive()
            assert isinstance(item, Received)
            if item.peer == "a":
                came.append(item.message.chunk)
        return came

    return run_virtual(main())


def test_datagrams_are_lost_as_packets_are_whatever_others_send() -> None:
    assert which_arrive(0.0, 1) == list(range(400))
    came = which_arrive(0.25, 1)
    assert 250 < len(came) < 350
    assert which_arrive(0.25, 1, others=True) == came
    assert which_arrive(0.25, 2) != came


@simulated
async def test_messages_one_behind_the_other_arrive_at_the_rate_of_the_link(net: Net) -> None:
    await warm(net)
    for _ in range(4):
        net.a.send("b", sized(50_000))
    came = [await net.b.receive() for _ in range(4)]
    assert all(isinstance(item, Received) for item in came)
    assert [item.follows for item in came] == [False, True, True, True]  # type: ignore[union-attr]
    first, *rest = [(item.nbytes, item.at) for item in came]  # type: ignore[union-attr]
    seconds = rest[-1][1] - first[1]  # type: ignore[operator]
    assert sum(nbytes for nbytes, _ in rest) / seconds == pytest.approx(RATE / 8)


@simulated
async def test_a_frozen_loop_does_not_change_when_messages_were_there(net: Net) -> None:
    await warm(net)
    net.b.freeze(7.0)
    net.a.send("b", sized(50_000))
    item = await net.b.receive()
    assert isinstance(item, Received)
    assert item.at is not None
    assert item.at < net.loop.time() - 6.0


@simulated
async def test_what_a_dead_link_holds_up_is_stalled_until_it_moves_again(net: Net) -> None:
    await warm(net)
    net.a.send("b", sized(100_000))
    await asyncio.sleep(0.05)
    assert net.a.stalled("b") == 0.0
    net.network.fluid.set_capacity("a", 0.0)
    await asyncio.sleep(3.0)
    net.a.send("c", sized(10))  # another one joins those that stand
    await asyncio.sleep(1.0)
    assert net.a.stalled("b") == pytest.approx(4.0)
    assert net.a.stalled("c") == pytest.approx(1.0)
    net.network.fluid.set_capacity("a", RATE)
    await net.b.receive()
    assert net.a.stalled("b") == 0.0
