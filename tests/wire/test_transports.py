"""What every transport does, whatever moves its bytes: one row of the table a transport."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import pytest

from geojax.errors import FrameError
from geojax.wire.frame import wire_bytes
from geojax.wire.message import FRAGMENT_BYTES, Kind, Message, fragment_bytes
from geojax.wire.tcp import TcpTransport
from geojax.wire.transport import Lost, Received, Transport
from testbed.simulated.loop import run_virtual, virtual_loop
from testbed.simulated.transport import Route, SimulatedNetwork

PATIENCE_S = 30.0  # on the row's clock; every wait below ends long before


class Network(Protocol):
    """Transports that can reach each other; made on the row's loop.

    Attributes:
      connections: that carry what goes from one to another.
    """

    connections: int

    async def make(self, names: Sequence[str]) -> dict[str, Transport]:
        """Started transports by name."""
        ...

    async def pause(self, source: str, target: str) -> None:
        """Waits until the source has found nothing more to send to the target."""
        ...

    async def kill(self, name: str) -> None:
        """Ends a node as a crash would."""
        ...

    async def close(self) -> None:
        """Closes what is still open."""
        ...


@dataclass(frozen=True)
class Row:
    """One transport in the table."""

    name: str
    network: Callable[[], Network]
    run: Callable[[Coroutine[Any, Any, None]], None]


class TcpNetwork:
    """TCP over loopback, all nodes in this process; so many connections for each direction."""

    def __init__(self, connections: int = 1) -> None:
        self._nodes: dict[str, TcpTransport] = {}
        self.connections = connections

    async def make(self, names: Sequence[str]) -> dict[str, Transport]:
        addresses = dict.fromkeys(names, ("127.0.0.1", 0))
        for name in names:
            node = TcpTransport(
                name, addresses[name], addresses, run_id="test", connect_timeout=5.0,
                connections=lambda _source, _target: self.connections,
            )  # fmt: skip
            await node.start()
            addresses[name] = node.address
            self._nodes[name] = node
        return dict(self._nodes)

    async def pause(self, source: str, target: str) -> None:
        outgoing = self._nodes[source]._peers[target].outgoing
        assert outgoing is not None
        while len(outgoing.queue._idle) < self.connections:
            await asyncio.sleep(0.01)

    async def kill(self, name: str) -> None:
        self._nodes[name].abort()

    async def close(self) -> None:
        for node in self._nodes.values():
            await node.close()


class Between(dict[tuple[str, str], Route]):
    """Routes of 80 Mbit/s and 10 ms between any two of a few names."""

    def __init__(self, connections: int) -> None:
        super().__init__()
        self._connections = connections

    def __missing__(self, pair: tuple[str, str]) -> Route:
        if not set(pair) <= set("abcd"):
            raise KeyError(pair)
        return Route((pair,), 0.01, connections=self._connections)


class Simulated:
    """The simulated transport on virtual time."""

    def __init__(self, connections: int = 1) -> None:
        capacities = dict.fromkeys(itertools.permutations("abcd", 2), 80e6)
        self._network = SimulatedNetwork(capacities, Between(connections), virtual_loop())
        self.connections = connections

    async def make(self, names: Sequence[str]) -> dict[str, Transport]:
        nodes: dict[str, Transport] = {name: self._network.transport(name) for name in names}
        for node in nodes.values():
            await node.start()
        return nodes

    async def pause(self, source: str, target: str) -> None:
        """What has arrived has left."""

    async def kill(self, name: str) -> None:
        self._network.kill(name)

    async def close(self) -> None:
        for node in list(self._network.nodes.values()):
            await node.close()


ROWS = [
    Row("tcp", TcpNetwork, asyncio.run),
    Row("tcp, 3 connections", partial(TcpNetwork, 3), asyncio.run),
    Row("simulated", Simulated, run_virtual),
    Row("simulated, 3 connections", partial(Simulated, 3), run_virtual),
]


def on_every_transport(scenario: Callable[[Network], Awaitable[None]]) -> Callable[[Row], None]:
    """Turns a scenario into a test that is run once for each row."""

    async def within(row: Row) -> None:
        network = row.network()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await scenario(network)
        finally:
            await network.close()

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
    def test(row: Row) -> None:
        row.run(within(row))

    test.__doc__ = scenario.__doc__
    return test


async def message_from(transport: Transport, peer: str) -> Message:
    item = await transport.receive()
    assert isinstance(item, Received), item
    assert item.peer == peer
    return item.message


@on_every_transport
async def test_a_message_arrives_with_all_its_fields(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    payload = np.arange(1000, dtype=np.float32)
    body = {"type": "x", "list": [1, 2.5, None], "bytes": b"\x00"}
    sent = Message(Kind.RESULT, 1, 2, 3, 4, 5, 6, 7, 0.125, 9, 11, body, payload)
    nodes["a"].send("b", sent)
    came = await message_from(nodes["b"], "a")
    for name in Message.__slots__:
        if name != "payload":
            assert getattr(came, name) == getattr(sent, name), name
    assert came.payload.dtype == np.uint8
    assert np.array_equal(came.payload.view(np.float32), payload)


@on_every_transport
async def test_the_receiver_cannot_change_what_the_sender_has(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    payload = np.zeros(100, np.uint8)
    nodes["a"].send("b", Message(Kind.OFFER, payload=payload))
    came = await message_from(nodes["b"], "a")
    assert not came.payload.flags.writeable or not np.shares_memory(came.payload, payload)


@on_every_transport
async def test_no_payload_and_an_empty_one_arrive_as_none(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    nodes["a"].send("b", Message(Kind.CONTROL, body={}))
    nodes["a"].send("b", Message(Kind.OFFER, payload=np.zeros(0, np.float32)))
    first = await message_from(nodes["b"], "a")
    second = await message_from(nodes["b"], "a")
    assert (first.payload, first.body) == (None, {})
    assert (second.payload, second.body) == (None, None)


@on_every_transport
async def test_within_a_priority_order_is_kept(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    sizes = [1, FRAGMENT_BYTES + 1, 0, 3 * FRAGMENT_BYTES, 10, 2]
    for chunk, size in enumerate(sizes):
        nodes["a"].send("b", Message(Kind.OFFER, chunk=chunk, payload=np.zeros(size, np.uint8)))
    chunks = [(await message_from(nodes["b"], "a")).chunk for _ in sizes]
    assert chunks == list(range(len(sizes)))


@on_every_transport
async def test_a_higher_priority_overtakes_what_waits(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    big = np.zeros(32 * FRAGMENT_BYTES, np.uint8)
    for chunk in (1, 2):
        nodes["a"].send("b", Message(Kind.OFFER, chunk=chunk, payload=big), priority=9)
    nodes["a"].send("b", Message(Kind.OFFER, chunk=3), priority=0)
    chunks = [(await message_from(nodes["b"], "a")).chunk for _ in range(3)]
    assert chunks.index(3) < chunks.index(2)
    assert chunks.index(1) < chunks.index(2)


@on_every_transport
async def test_all_pairs_talk_at_once(network: Network) -> None:
    names = ["a", "b", "c", "d"]
    nodes = await network.make(names)
    for source in names:
        for target in names:
            if source != target:
                for chunk in range(5):
                    nodes[source].send(target, Message(Kind.OFFER, chunk=chunk))
    for target in names:
        came: dict[str, list[int]] = {name: [] for name in names if name != target}
        for _ in range(5 * len(came)):
            item = await nodes[target].receive()
            assert isinstance(item, Received)
            came[item.peer].append(item.message.chunk)
        assert came == {name: list(range(5)) for name in came}


@on_every_transport
async def test_counters_hold_the_bytes_on_the_wire(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    messages = [
        Message(Kind.OFFER, payload=np.zeros(2 * FRAGMENT_BYTES + 5, np.uint8), body={"x": 1}),
        Message(Kind.OFFER, payload=np.zeros(10, np.uint8)),
        Message(Kind.RESULT, payload=np.zeros(FRAGMENT_BYTES, np.uint8)),
        Message(Kind.CONTROL, body={"type": "x"}),
    ]
    for message in messages:
        nodes["a"].send("b", message)
    for _ in messages:
        await message_from(nodes["b"], "a")
    for counters in (nodes["a"].sent["b"], nodes["b"].received["a"]):
        for kind in (Kind.OFFER, Kind.RESULT, Kind.CONTROL, Kind.AGGREGATE):
            of_kind = [message for message in messages if message.kind is kind]
            fragment = fragment_bytes(network.connections)
            assert counters.bytes[kind] == sum(wire_bytes(m, fragment) for m in of_kind)
            assert counters.messages[kind] == len(of_kind)


@on_every_transport
async def test_nobody_and_oneself_are_no_peers(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    for peer in ("a", "nobody"):
        with pytest.raises(ValueError, match=peer):
            nodes["a"].send(peer, Message(Kind.CONTROL))


@on_every_transport
async def test_what_fits_no_frame_is_refused_by_send(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    with pytest.raises(FrameError, match="body"):
        nodes["a"].send("b", Message(Kind.CONTROL, body={"x": object()}))
    nodes["a"].send("b", Message(Kind.CONTROL, round=5))
    assert (await message_from(nodes["b"], "a")).round == 5


@on_every_transport
async def test_a_killed_peer_is_lost_once_and_others_live_on(network: Network) -> None:
    nodes = await network.make(["a", "b", "c"])
    nodes["a"].send("b", Message(Kind.CONTROL))
    nodes["b"].send("a", Message(Kind.CONTROL))
    await message_from(nodes["a"], "b")
    await message_from(nodes["b"], "a")
    await network.kill("b")
    item = await nodes["a"].receive()
    assert isinstance(item, Lost)
    assert item.peer == "b"
    assert item.reason
    for chunk in range(20):
        nodes["c"].send("a", Message(Kind.CONTROL, chunk=chunk))
        assert (await message_from(nodes["a"], "c")).chunk == chunk
        nodes["a"].send("c", Message(Kind.CONTROL, chunk=chunk))
        assert (await message_from(nodes["c"], "a")).chunk == chunk


@on_every_transport
async def test_a_message_to_a_dead_peer_shows_up_as_lost(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    nodes["a"].send("b", Message(Kind.CONTROL))
    await message_from(nodes["b"], "a")
    await network.kill("b")
    nodes["a"].send("b", Message(Kind.CONTROL))
    item = await nodes["a"].receive()
    assert isinstance(item, Lost)
    assert item.peer == "b"


@on_every_transport
async def test_an_orderly_close_is_no_loss(network: Network) -> None:
    nodes = await network.make(["a", "b", "c"])
    for source, target in (("a", "b"), ("b", "a"), ("b", "c")):  # both ways, and each way alone
        nodes[source].send(target, Message(Kind.CONTROL))
        await message_from(nodes[target], source)
    await nodes["b"].close()
    for chunk in range(20):
        nodes["c"].send("a", Message(Kind.CONTROL, chunk=chunk))
        assert (await message_from(nodes["a"], "c")).chunk == chunk
        nodes["a"].send("c", Message(Kind.CONTROL, chunk=chunk))
        assert (await message_from(nodes["c"], "a")).chunk == chunk


@on_every_transport
async def test_close_sends_what_is_queued(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    payload = np.arange(2 * FRAGMENT_BYTES, dtype=np.int64)
    for chunk in range(10):
        nodes["a"].send("b", Message(Kind.OFFER, chunk=chunk, payload=payload))
    await nodes["a"].close()
    for chunk in range(10):
        message = await message_from(nodes["b"], "a")
        assert message.chunk == chunk
        assert np.array_equal(message.payload.view(np.int64), payload)


# ---- what the receiver can time


async def received(transport: Transport) -> Received:
    item = await transport.receive()
    assert isinstance(item, Received), item
    return item


@on_every_transport
async def test_messages_that_left_one_behind_the_other_say_so_and_are_timed(
    network: Network,
) -> None:
    nodes = await network.make(["a", "b"])
    sizes = [32 * FRAGMENT_BYTES, 1000, FRAGMENT_BYTES + 1, 10]
    messages = [Message(Kind.OFFER, payload=np.zeros(size, np.uint8)) for size in sizes]
    for message in messages:
        nodes["a"].send("b", message)
    began = asyncio.get_running_loop().time()
    came = [await received(nodes["b"]) for _ in messages]
    await network.pause("a", "b")
    nodes["a"].send("b", messages[-1])
    came.append(await received(nodes["b"]))
    # Over TCP all frames of a message count: its first one, which follows nothing, is the first's.
    follows = [item.follows for item in came]
    assert follows == [False, True, True, True, False] or network.connections > 1
    assert (follows[0], follows[-1]) == (False, False)
    fragment = fragment_bytes(network.connections)
    expected = [wire_bytes(m, fragment) for m in (*messages, messages[-1])]
    found = [item.nbytes for item in came]
    if network.connections > 1:  # what came out of order counts as soon as it is there
        assert sum(found) == sum(expected)
    else:
        assert found == expected
    times = [item.at for item in came]
    assert all(at is not None and at >= began for at in times)
    assert times == sorted(times)


@on_every_transport
async def test_the_bytes_between_two_whole_messages_are_told_whatever_overtook(
    network: Network,
) -> None:
    nodes = await network.make(["a", "b"])
    for chunk in (1, 2):
        big = np.zeros(32 * FRAGMENT_BYTES, np.uint8)
        nodes["a"].send("b", Message(Kind.OFFER, chunk=chunk, payload=big), priority=9)
    nodes["a"].send("b", Message(Kind.OFFER, chunk=3), priority=0)
    came = [await received(nodes["b"]) for _ in range(3)]
    fragment = fragment_bytes(network.connections)
    whole = sum(wire_bytes(item.message, fragment) for item in came)
    assert sum(item.nbytes for item in came) == whole
    follows = [item.follows for item in came]
    assert follows == [False, True, True] or (network.connections > 1 and not follows[0])


@on_every_transport
async def test_datagrams_are_not_timed(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    nodes["a"].send_datagram("b", datagram(0))
    item = await received(nodes["b"])
    assert (item.at, item.follows) == (None, False)


@on_every_transport
async def test_nothing_is_stalled_where_everything_has_come(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    assert nodes["a"].stalled("b") == 0.0
    nodes["a"].send("b", Message(Kind.OFFER, payload=np.zeros(FRAGMENT_BYTES, np.uint8)))
    nodes["b"].send("a", Message(Kind.CONTROL))
    await received(nodes["b"])
    await received(nodes["a"])
    assert nodes["a"].stalled("b") < 1.0  # TCP: the last acknowledgement may be on its way


# ---- datagrams


def datagram(number: int, size: int = 1000, **fields: Any) -> Message:
    payload = np.full(size, number, np.uint8)
    return Message(
        Kind.LATE, round=number, chunk=2, body={"part": number}, payload=payload, **fields
    )


@on_every_transport
async def test_datagrams_arrive_where_nothing_is_lost_in_any_order(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    sent = [datagram(0, epoch=3, group=1, policy=2, tree=1, codec=6) for _ in range(10)]
    for number, message in enumerate(sent):
        nodes["a"].send_datagram("b", replace(message, body={"part": number}))
    came = [await message_from(nodes["b"], "a") for _ in sent]
    assert sorted((m.body or {})["part"] for m in came) == list(range(10))
    for message in came:
        for name in set(Message.__slots__) - {"payload", "body"}:
            assert getattr(message, name) == getattr(sent[0], name), name
        assert np.array_equal(message.payload, sent[0].payload)


@on_every_transport
async def test_datagrams_are_counted_as_what_they_are(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    messages = [datagram(0, size) for size in (0, 1, 4000, 33_000)]
    for message in messages:
        nodes["a"].send_datagram("b", message)
    for _ in messages:
        await message_from(nodes["b"], "a")
    for counters in (nodes["a"].sent["b"], nodes["b"].received["a"]):
        assert counters.bytes[Kind.LATE] == sum(map(wire_bytes, messages))
        assert counters.messages[Kind.LATE] == len(messages)


@on_every_transport
async def test_messages_leave_before_datagrams_that_wait(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    left: list[tuple[Kind, int]] = []
    all_left = asyncio.get_running_loop().create_future()

    def observe(peer: str, message: Message, nbytes: int, start: float, end: float) -> None:
        assert nbytes == wire_bytes(message, fragment_bytes(network.connections))
        left.append((message.kind, message.chunk))
        if len(left) == 3:
            all_left.set_result(None)

    nodes["a"].observers.append(observe)
    big = np.zeros(32 * FRAGMENT_BYTES, np.uint8)
    nodes["a"].send("b", Message(Kind.OFFER, chunk=0, payload=big))
    nodes["a"].send_datagram("b", datagram(0))
    nodes["a"].send("b", Message(Kind.OFFER, chunk=1), priority=9)
    await all_left
    if network.connections > 1:  # each has a frame at a time, and may be through with it first
        left.sort()
    assert left == [(Kind.OFFER, 0), (Kind.OFFER, 1), (Kind.LATE, 2)]


@on_every_transport
async def test_a_datagram_that_waits_gives_way_to_the_round_after_next(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    big = np.zeros(32 * FRAGMENT_BYTES, np.uint8)
    nodes["a"].send("b", Message(Kind.OFFER, chunk=0, payload=big))
    for number in (0, 1, 2):
        nodes["a"].send_datagram("b", datagram(number))
    came = [await message_from(nodes["b"], "a") for _ in range(3)]
    assert sorted(m.round for m in came if m.kind is Kind.LATE) == [1, 2]


@on_every_transport
async def test_what_must_not_get_lost_or_fits_no_datagram_is_refused(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    with pytest.raises(ValueError, match="OFFER"):
        nodes["a"].send_datagram("b", Message(Kind.OFFER))
    for peer in ("a", "nobody"):
        with pytest.raises(ValueError, match=peer):
            nodes["a"].send_datagram(peer, datagram(0))
    with pytest.raises(FrameError, match="datagram: expected at most 65507"):
        nodes["a"].send_datagram("b", datagram(0, 65_507))
    nodes["a"].send_datagram("b", datagram(0, 65_507 - 80 - 7))
    assert (await message_from(nodes["b"], "a")).payload_bytes == 65_507 - 80 - 7


@on_every_transport
async def test_close_does_not_wait_for_datagrams(network: Network) -> None:
    nodes = await network.make(["a", "b"])
    big = np.zeros(8 * FRAGMENT_BYTES, np.uint8)
    nodes["a"].send("b", Message(Kind.OFFER, payload=big))
    for _ in range(5):
        nodes["a"].send_datagram("b", datagram(0))
    await nodes["a"].close()
    assert nodes["a"].sent["b"].messages[Kind.LATE] == 0
    assert (await message_from(nodes["b"], "a")).kind is Kind.OFFER
