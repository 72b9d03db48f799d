"""The transport of a simulated node, and the network that joins all of them."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from geojax.wire.frame import wire_bytes
from geojax.wire.message import Kind, Message
from geojax.wire.transport import LinkCounters, Lost, Received
from testbed.simulated.fluid import FluidNetwork
from testbed.simulated.loop import VirtualLoop
from testbed.simulated.tcp import Connection


@dataclass(frozen=True)
class Route:
    """How messages go from one node to another: the resources they share, and the delay in s."""

    resources: tuple[Hashable, ...]
    delay: float


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
    """

    def __init__(self, capacities: Mapping[Hashable, float], routes: Routes, loop: VirtualLoop):
        self.loop = loop
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
            if name in peer.known:
                delay = self.routes[name, peer.name].delay
                self.loop.call_later(delay, peer.lose, name, "connection reset")


@dataclass(slots=True)
class _Outgoing:
    """The way to one peer: its connection, and the messages that wait for it."""

    peer: str
    delay: float
    connection: Connection
    counters: LinkCounters
    waiting: list[tuple[int, int, int, Message]]  # priority, number, bytes, message
    busy: bool = False


class SimulatedTransport:
    """Moves messages over the fluid network; see :class:`geojax.wire.transport.Transport`.

    One message at a time is on its way into the network for each peer, and what waits behind it
    leaves by priority. (Over TCP a message of more than one frame can also be overtaken between
    two frames.) A message arrives one propagation delay after its last bit left.

    Attributes:
      known: peers that a connection exists with, in either direction.
    """

    def __init__(self, name: str, network: SimulatedNetwork):
        self.name = name
        self.sent: dict[str, LinkCounters] = {}
        self.received: dict[str, LinkCounters] = {}
        self.observer: Callable[[str, Message, float, float], None] | None = None
        self.known: dict[str, None] = {}
        self._network, self._loop = network, network.loop
        self._outgoing: dict[str, _Outgoing] = {}
        self._lost: dict[str, None] = {}  # reported, and not come back since
        self._inbox: deque[Received | Lost] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._number = 0
        self._frozen = False

    async def start(self) -> None:
        """There is nothing to open."""

    async def close(self) -> None:
        """Waits until what is queued has left, then leaves without being missed."""
        while any(way.busy for way in self._outgoing.values()):
            self._drained = self._loop.create_future()
            await self._drained
        if self._network.nodes.get(self.name) is self:
            del self._network.nodes[self.name]

    def send(self, peer: str, message: Message, priority: int = 0) -> None:
        """Queues a message; a peer that does not exist (any more) is reported as lost."""
        way = self._outgoing.get(peer)
        if way is None or peer not in self._network.nodes:
            way = self._way_to(peer)
            if way is None:
                return
        heapq.heappush(way.waiting, (priority, self._number, wire_bytes(message), message))
        self._number += 1
        if not way.busy and not self._frozen:
            way.busy = True
            self._next(way)

    def freeze(self, seconds: float) -> None:
        """Sends and delivers nothing for a while; what is in the network goes on."""
        self._frozen = True
        self._loop.call_later(seconds, self._thaw)

    def _thaw(self) -> None:
        self._frozen = False
        for way in list(self._outgoing.values()):
            if way.waiting and not way.busy:
                way.busy = True
                self._next(way)
        if self._inbox:
            self._rouse()

    async def receive(self) -> Received | Lost:
        """The next message or loss, in order of arrival."""
        while not self._inbox or self._frozen:
            self._wake = self._loop.create_future()
            await self._wake
        return self._inbox.popleft()

    def lose(self, peer: str, reason: str) -> None:
        """Reports a peer as lost, once, and drops what was queued for it."""
        if peer in self._lost or peer in self._network.nodes:
            return
        self._lost[peer] = None
        self._forget(peer)
        self._put(Lost(peer, reason))

    def drop_all(self) -> None:
        """Ends everything at once, as the death of the process would."""
        for peer in list(self._outgoing):
            self._forget(peer)

    def _forget(self, peer: str) -> None:
        self.known.pop(peer, None)
        way = self._outgoing.pop(peer, None)
        if way is not None:
            way.connection.abort()
            way.waiting.clear()
            way.busy = False
            self._check_drained()

    def _way_to(self, peer: str) -> _Outgoing | None:
        """Connects to a peer that is there; what is not there refuses, after a round trip."""
        if peer == self.name:
            raise ValueError(f"{self.name} sends to itself")
        routes = self._network.routes
        try:
            there, back = routes[self.name, peer], routes[peer, self.name]
        except KeyError:
            raise ValueError(f"{self.name} knows no peer {peer!r}") from None
        other = self._network.nodes.get(peer)
        if other is None:
            self._loop.call_later(there.delay + back.delay, self.lose, peer, "connection refused")
            return None
        self.known[peer] = other.known[self.name] = None
        self._lost.pop(peer, None)
        other._lost.pop(self.name, None)
        round_trip = there.delay + back.delay
        connection = Connection(self._network.fluid, there.resources, round_trip, self._loop)
        counters = self.sent.setdefault(peer, LinkCounters())
        way = _Outgoing(peer, there.delay, connection, counters, [])
        self._outgoing[peer] = way
        return way

    def _next(self, way: _Outgoing) -> None:
        """Sends the message that comes first."""
        _, _, nbytes, message = heapq.heappop(way.waiting)
        start = self._loop._now

        def left() -> None:
            end = self._loop._now
            way.counters.add(message.kind, nbytes, end - start)
            if self.observer is not None:
                self.observer(way.peer, message, start, end)
            receiver = self._network.nodes.get(way.peer)
            if receiver is not None:
                self._loop.call_at(end + way.delay, receiver._arrive, self.name, message, nbytes)
            if way.waiting and not self._frozen:
                self._next(way)
            else:
                way.busy = False
                self._check_drained()

        way.connection.send(nbytes, left, urgent=message.kind is Kind.CONTROL)

    def _check_drained(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _arrive(self, peer: str, message: Message, nbytes: int) -> None:
        if self._network.nodes.get(self.name) is not self:
            return
        counters = self.received.get(peer)
        if counters is None:
            counters = self.received[peer] = LinkCounters()
        counters.add(message.kind, nbytes)
        if isinstance(message.payload, np.ndarray):
            message = replace(message, payload=_as_received(message.payload))
        self._put(Received(peer, message))

    def _put(self, item: Received | Lost) -> None:
        self._inbox.append(item)
        if not self._frozen:
            self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def _as_received(payload: np.ndarray) -> np.ndarray | None:
    """A payload as the other side sees it: read-only bytes, or nothing."""
    if payload.size == 0:
        return None
    view = payload.reshape(-1).view(np.uint8)
    view.flags.writeable = False
    return view
