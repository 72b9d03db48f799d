"""The transport of a simulated node, and the network that joins all of them."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Protocol

import numpy as np

from geojax.wire.datagrams import DatagramQueue, check_datagram
from geojax.wire.frame import wire_bytes
from geojax.wire.message import Kind, Message, fragment_bytes
from geojax.wire.priority import outdated
from geojax.wire.transport import LinkCounters, Lost, Observer, Received
from testbed.simulated.fluid import FluidNetwork
from testbed.simulated.impairments import (
    UNIMPAIRED,
    Arrivals,
    Impairments,
    datagram_loss,
)
from testbed.simulated.loop import Turn, VirtualLoop
from testbed.simulated.tcp import Connection
from testbed.wan.tcp_rates import loss_limit

SHORTEST_S = 1e-3  # round trips below this share alike


@dataclass(frozen=True)
class Route:
    """How messages go from one node to another.

    Attributes:
      resources: those that they share with others.
      delay: s.
      impairments: jitter and loss.
      connections: how many carry the messages side by side.
    """

    resources: tuple[Hashable, ...]
    delay: float
    impairments: Impairments = UNIMPAIRED
    connections: int = 1


class Routes(Protocol):
    """The routes between nodes, by (source, target)."""

    def __getitem__(self, pair: tuple[str, str], /) -> Route:
        """The route of an ordered pair; ``KeyError`` if there are no such nodes."""
        ...


class SimulatedNetwork:
    """All simulated nodes and the fluid network between them.

    Args:
      capacities: goodput of every resource, bit/s (link rate × TCP goodput factor).
      routes: the route of every ordered pair of nodes that may talk.
      loop: the clock.
      congestion_control: TCP's, which decides what losses do to it.
      rtt_bias: connections share a bottleneck in proportion to round trip ** -rtt_bias; 0: evenly.
      seed: of jitter and of lost datagrams.
    """

    def __init__(
        self,
        capacities: Mapping[Hashable, float],
        routes: Routes,
        loop: VirtualLoop,
        *,
        congestion_control: str = "cubic",
        rtt_bias: float = 0.0,
        seed: int = 0,
    ):
        self.loop = loop
        self.congestion_control, self.rtt_bias, self.seed = congestion_control, rtt_bias, seed
        self.fluid = FluidNetwork(capacities, loop)
        self.routes = routes
        self.nodes: dict[str, SimulatedTransport] = {}

    def transport(self, name: str) -> SimulatedTransport:
        """The transport of a node; a restarted node gets a new one under its old name."""
        transport = SimulatedTransport(name, self)
        self.nodes[name] = transport
        return transport

    def kill(self, name: str) -> None:
        """What a killed process leaves: its flows end, and every peer sees its connection end."""
        dead = self.nodes.pop(name, None)
        if dead is None:
            return
        dead.drop_all()
        for peer in self.nodes.values():
            if peer.known.get(name) is dead:
                at = self.loop.time() + self.routes[name, peer.name].delay
                self.loop.schedule(at, peer.lose, name, dead, "connection reset")


class _Channel:
    """The channel to one peer in its present life: a connection, and what waits for it.

    Datagrams share the connection's path, but not its window and not the limit that losses set it:
    they leave as fast as the path takes them, and some of them do not arrive.
    """

    __slots__ = (
        "_arrivals", "_connection", "_counters", "_datagram_flow", "_delay", "_follows",
        "_fragment", "_loss", "_luck", "_now", "_now_datagram", "_owner", "_since", "_waiting",
        "busy", "datagrams", "peer", "receiver",
    )  # fmt: skip

    def __init__(self, owner: SimulatedTransport, peer: str, route: Route, connection: Connection):
        self.peer, self.receiver = peer, owner.network.nodes[peer]
        self.busy = False
        self._owner, self._delay, self._connection = owner, route.delay, connection
        jitters, seed = route.impairments.jitters, f"{owner.network.seed}/{owner.name}>{peer}"
        self._arrivals = Arrivals(route.delay, jitters, seed) if jitters else None
        self.datagrams = DatagramQueue()
        self._fragment = fragment_bytes(route.connections)
        self._datagram_flow = owner.network.fluid.flow(route.resources)
        self._loss = route.impairments.loss
        self._luck = random.Random(f"{seed}/datagrams") if self._loss else None
        self._counters = owner.sent.setdefault(peer, LinkCounters())
        self._waiting: list[tuple[int, int, int, Message]] = []  # priority, number, bytes, message
        self._now: tuple[int, Message] | None = None  # what enters the network now
        self._now_datagram = False
        self._since = 0.0
        self._follows = False  # what enters the network left straight behind the message before it

    @property
    def stalled(self) -> float:
        """Seconds for which nothing has moved although something is being sent."""
        return self._connection.stalled if self.busy else 0.0

    def push(self, priority: int, number: int, message: Message) -> None:
        """Queues a message, and drops those that it makes outdated."""
        if message.kind is Kind.LATE:
            self.withdraw(lambda waiting: outdated(waiting, message))
        heappush(self._waiting, (priority, number, wire_bytes(message, self._fragment), message))

    def withdraw(self, unwanted: Callable[[Message], bool]) -> int:
        """Drops messages of which nothing has left; returns how many."""
        kept = [item for item in self._waiting if not unwanted(item[-1])]
        dropped = len(self._waiting) - len(kept)
        if dropped:
            heapify(kept)
            self._waiting = kept
        return dropped

    @property
    def waiting(self) -> int:
        """Messages that have not left, the one that enters the network among them."""
        leaves = self.busy and self._now is not None and not self._now_datagram
        return len(self._waiting) + leaves

    def go_on(self, *, follows: bool = False) -> None:
        """Sends the message that comes first, if any may be sent now; a datagram if none waits.

        Args:
          follows: another message has left this instant.
        """
        self._follows = follows
        self.busy = not self._owner.frozen and bool(self._waiting or self.datagrams)
        if not self.busy:
            return
        self._since = self._owner.loop._now
        if self._waiting:
            _, _, nbytes, message = heappop(self._waiting)
            self._now, self._now_datagram = (nbytes, message), False
            self._connection.send(nbytes, self._left, urgent=message.kind is Kind.CONTROL)
        else:
            datagram = self.datagrams.take()
            assert datagram is not None
            nbytes = wire_bytes(datagram)
            self._now, self._now_datagram = (nbytes, datagram), True
            self._owner.network.fluid.start(self._datagram_flow, nbytes, self._datagram_left)

    def drop(self) -> None:
        """Forgets all messages."""
        self._connection.abort()
        self._owner.network.fluid.cancel(self._datagram_flow)
        self._waiting.clear()
        self.datagrams.clear()
        self.busy = False

    def _datagram_left(self) -> None:
        assert self._now is not None
        nbytes, _ = self._now
        luck = self._luck
        arrives = luck is None or luck.random() >= datagram_loss(nbytes, self._loss)
        self._left(arrives=arrives, timed=False)

    def _left(self, *, arrives: bool = True, timed: bool = True) -> None:
        assert self._now is not None
        nbytes, message = self._now
        self._now = None
        owner, since = self._owner, self._since
        loop = owner.loop
        now = loop._now
        self._counters.add(message.kind, nbytes, now - since)
        for observer in owner.observers:
            observer(self.peer, message, nbytes, since, now)
        if arrives:
            arrival = now + self._delay
            if self._arrivals is not None:
                arrival = self._arrivals.arrival(nbytes, since, now)
            if isinstance(message.payload, np.ndarray):
                message = _as_received(message, message.payload)
            at = arrival if timed else None
            item = Received(owner.name, message, nbytes, at, self._follows)
            loop.at(arrival, self.receiver.arrive, item)
        self.go_on(follows=timed)
        if not self.busy:
            owner.check_drained()


class SimulatedTransport:
    """Moves messages over the fluid network; see :class:`geojax.wire.transport.Transport`.

    One message at a time enters the network for each peer, and what waits behind it
    leaves by priority. (Over TCP a message of more than one frame can also be overtaken between
    two frames.) A message arrives one propagation delay after its last bit left.

    Attributes:
      known: peers that a connection exists with, in either direction, in their present lives.
      frozen: nothing is sent or delivered for now.
      inbox: what has arrived and has not been taken.
    """

    def __init__(self, name: str, network: SimulatedNetwork):
        self.name, self.network, self.loop = name, network, network.loop
        self.sent: dict[str, LinkCounters] = defaultdict(LinkCounters)
        self.received: dict[str, LinkCounters] = {}
        self.observers: list[Observer] = []
        self.known: dict[str, SimulatedTransport] = {}
        self.frozen = False
        self._channels: dict[str, _Channel] = {}
        self._lost: dict[str, None] = {}  # reported, and not come back since
        self.inbox: deque[Received | Lost] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._receiver: _Receiver | None = None
        self._drained: asyncio.Future[None] | None = None
        self._number = 0

    async def start(self) -> None:
        """There is nothing to open."""

    async def close(self) -> None:
        """Waits until what is queued has left, then leaves without being missed."""
        for channel in self._channels.values():
            channel.datagrams.clear()
        while any(channel.busy for channel in self._channels.values()):
            self._drained = self.loop.create_future()
            await self._drained
        if self.network.nodes.get(self.name) is self:
            del self.network.nodes[self.name]

    def send(self, peer: str, message: Message, priority: int = 0) -> None:
        """Queues a message; a peer that does not exist (any more) is reported as lost."""
        channel = self._channels.get(peer)
        if channel is None or self.network.nodes.get(peer) is not channel.receiver:
            channel = self._connect(peer)
            if channel is None:
                return
        channel.push(priority, self._number, message)
        self._number += 1
        if not channel.busy:
            channel.go_on()

    def withdraw(self, unwanted: Callable[[Message], bool]) -> int:
        """Drops messages, for any peer, of which nothing has left; returns how many."""
        return sum([channel.withdraw(unwanted) for channel in self._channels.values()])

    def waiting(self, peer: str) -> int:
        """How many messages for a peer have not left, or not all of them."""
        channel = self._channels.get(peer)
        return 0 if channel is None else channel.waiting

    def send_datagram(self, peer: str, message: Message, priority: int = 0) -> None:
        """Queues a message that leaves when no other waits for the peer, and may get lost."""
        nbytes = check_datagram(message)
        channel = self._channel(peer)
        if channel is None:
            return
        channel.datagrams.push(message, nbytes, priority)
        if not channel.busy:
            channel.go_on()

    def stalled(self, peer: str) -> float:
        """Seconds for which nothing has moved towards ``peer`` although something is being sent."""
        channel = self._channels.get(peer)
        return 0.0 if channel is None else channel.stalled

    async def receive(self) -> Received | Lost:
        """The next message or loss, in order of arrival."""
        while not self.inbox or self.frozen:
            self._wake = self.loop.create_future()
            await self._wake
        return self.inbox.popleft()

    def deliver_to(self, take: Callable[[Received | Lost], None]) -> asyncio.Future[None]:
        """See :class:`geojax.wire.transport.Delivers`."""
        self._receiver = _Receiver(self, take)
        self._receiver.wake()
        return self._receiver.failed

    def freeze(self, seconds: float) -> None:
        """Sends and delivers nothing for a while; what is in the network goes on."""
        self.frozen = True
        self.loop.call_later(seconds, self._thaw)

    def lose(self, peer: str, life: SimulatedTransport | None, reason: str) -> None:
        """Reports a peer as lost, once for each life, and drops what was queued for it.

        Args:
          peer: who.
          life: what the connection led to; None: it came to none.
          reason: why.
        """
        if life is None and (peer in self.known or peer in self._lost):
            return
        if self.known.get(peer) is life:
            self._forget(peer)
        if peer not in self.known:
            self._lost[peer] = None
        self._put(Lost(peer, reason))

    def drop_all(self) -> None:
        """Ends everything at once, as the death of the process would."""
        for peer in list(self._channels):
            self._forget(peer)

    def arrive(self, item: Received) -> None:
        """Takes a message whose last bit is in, unless this life of the node is over."""
        if self.network.nodes.get(self.name) is not self:
            return
        peer, message = item.peer, item.message
        counters = self.received.get(peer)
        if counters is None:
            counters = self.received[peer] = LinkCounters()
        counters.add(message.kind, item.nbytes)
        self.inbox.append(item)
        if not self.frozen:
            self._rouse()

    def check_drained(self) -> None:
        """Goes on closing when a channel has nothing left to send."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _channel(self, peer: str) -> _Channel | None:
        """The channel to a peer that is there; connects where there is none yet."""
        channel = self._channels.get(peer)
        if channel is None or self.network.nodes.get(peer) is not channel.receiver:
            channel = self._connect(peer)
        return channel

    def _connect(self, peer: str) -> _Channel | None:
        """The channel to a peer that is there; what is not there refuses, after a round trip."""
        if peer == self.name:
            raise ValueError(f"{self.name} sends to itself")
        routes = self.network.routes
        try:
            there, back = routes[self.name, peer], routes[peer, self.name]
        except KeyError:
            raise ValueError(f"{self.name} knows no peer {peer!r}") from None
        self._forget(peer)
        round_trip = there.delay + back.delay
        other = self.network.nodes.get(peer)
        if other is None:
            at = self.loop.time() + round_trip
            self.loop.schedule(at, self.lose, peer, None, "connection refused")
            return None
        self.known[peer], other.known[self.name] = other, self
        self._lost.pop(peer, None)
        other._lost.pop(self.name, None)
        network = self.network
        limit = loss_limit(network.congestion_control, round_trip, there.impairments.loss)
        weight = max(round_trip, SHORTEST_S) ** -network.rtt_bias
        connection = Connection(
            network.fluid, there.resources, round_trip, self.loop, limit, weight,
            there.connections,
        )  # fmt: skip
        channel = self._channels[peer] = _Channel(self, peer, there, connection)
        return channel

    def _forget(self, peer: str) -> None:
        self.known.pop(peer, None)
        channel = self._channels.pop(peer, None)
        if channel is not None:
            channel.drop()
            self.check_drained()

    def _thaw(self) -> None:
        self.frozen = False
        for channel in list(self._channels.values()):
            if not channel.busy:
                channel.go_on()
        if self.inbox:
            self._rouse()

    def _put(self, item: Received | Lost) -> None:
        self.inbox.append(item)
        if not self.frozen:
            self._rouse()

    def _rouse(self) -> None:
        if self._receiver is not None:
            self._receiver.wake()
        elif self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class _Receiver:
    """Takes what arrives at a node in turns, as a task would that waits for it.

    Attributes:
      failed: gets what ``take`` raises; nothing is taken after that, or when it is cancelled.
    """

    __slots__ = ("_awake", "_take", "_transport", "_turn", "failed")

    def __init__(self, transport: SimulatedTransport, take: Callable[[Received | Lost], None]):
        self._transport, self._take = transport, take
        self._awake, self._turn = False, Turn(self._take_all)
        self.failed: asyncio.Future[None] = transport.loop.create_future()

    def wake(self) -> None:
        """Has a turn soon, unless it has already."""
        if not self._awake:
            self._awake = True
            self._transport.loop.take_turn(self._turn)

    def _take_all(self) -> None:
        transport, take, failed = self._transport, self._take, self.failed
        inbox = transport.inbox
        try:
            while inbox and not transport.frozen and not failed.done():
                take(inbox.popleft())
        except Exception as error:  # noqa: BLE001 - whoever waits for it gets it
            failed.set_exception(error)
        self._awake = False


def _as_received(message: Message, payload: np.ndarray) -> Message:
    """A message as the other side sees it: its payload is read-only bytes, or nothing."""
    view = None
    if payload.size:
        view = payload.reshape(-1).view(np.uint8)
        view.flags.writeable = False
    # As dataclasses.replace, in a fifth of its time: this is done to every message.
    return Message(
        message.kind, message.group, message.epoch, message.policy, message.tree, message.round,
        message.chunk, message.codec, message.weight, message.contributors, message.steps,
        message.body, view,
    )  # fmt: skip
