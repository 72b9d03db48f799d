"""The transport of a simulated node, and the network that joins all of them."""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from geojax.overlay.view import Edge
from geojax.wire.frame import wire_bytes
from geojax.wire.message import Kind, Message
from geojax.wire.transport import LinkCounters, Lost, Received
from testbed.simulated.fluid import Flow, FluidNetwork


@dataclass(frozen=True)
class Route:
    """How messages go from one node to another: the resources they share, and the delay in s."""

    resources: tuple[Hashable, ...]
    delay: float


class SimulatedNetwork:
    """All simulated nodes and the fluid network between them.

    Args:
      capacities: goodput of every resource, bit/s (link rate × TCP goodput factor).
      routes: the route of every ordered pair of nodes that may talk.
    """

    def __init__(self, capacities: Mapping[Hashable, float], routes: Mapping[Edge, Route]):
        self.fluid = FluidNetwork(capacities)
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
        loop = asyncio.get_running_loop()
        for peer in self.nodes.values():
            if name in peer.known:
                route = self.routes[name, peer.name]
                loop.call_later(route.delay, peer.lose, name, "connection reset")


class SimulatedTransport:
    """Moves messages over the fluid network; see :class:`geojax.wire.transport.Transport`.

    As over TCP, one message at a time is on its way into the network for each peer, and what waits
    behind it leaves by priority. A message arrives one propagation delay after its last bit left.
    """

    def __init__(self, name: str, network: SimulatedNetwork):
        self.name = name
        self.sent: dict[str, LinkCounters] = defaultdict(LinkCounters)
        self.received: dict[str, LinkCounters] = defaultdict(LinkCounters)
        self.observer: Callable[[str, Message, float, float], None] | None = None
        self.known: dict[str, None] = {}  # peers that a connection exists with
        self._network = network
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, list[tuple[int, int, Message]]] = defaultdict(list)
        self._flows: dict[str, Flow] = {}
        self._inbox: deque[Received | Lost] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._number = 0

    async def start(self) -> None:
        """There is nothing to open."""

    async def close(self) -> None:
        """Waits until what is queued has left, then leaves without being missed."""
        while self._flows:
            await asyncio.sleep(0.001)
        self._network.nodes.pop(self.name, None)

    def send(self, peer: str, message: Message, priority: int = 0) -> None:
        """Queues a message; a peer that does not exist (any more) is reported as lost."""
        if peer == self.name:
            raise ValueError(f"{self.name} sends to itself")
        if peer not in self._network.nodes:
            delay = 2 * self._network.routes[self.name, peer].delay
            self._loop.call_later(delay, self.lose, peer, "connection refused")
            return
        self.known[peer] = None
        self._network.nodes[peer].known[self.name] = None
        heapq.heappush(self._waiting[peer], (priority, self._number, message))
        self._number += 1
        if peer not in self._flows:
            self._next(peer)

    async def receive(self) -> Received | Lost:
        """The next message or loss, in order of arrival."""
        while not self._inbox:
            self._wake = self._loop.create_future()
            await self._wake
        return self._inbox.popleft()

    def lose(self, peer: str, reason: str) -> None:
        """Reports a peer as lost, once, and drops what was queued for it."""
        if peer not in self.known and peer in self._network.nodes:
            return
        self.known.pop(peer, None)
        self._waiting.pop(peer, None)
        flow = self._flows.pop(peer, None)
        if flow is not None:
            self._network.fluid.cancel(flow)
        self._put(Lost(peer, reason))

    def drop_all(self) -> None:
        """Ends everything at once, as the death of the process would."""
        for flow in self._flows.values():
            self._network.fluid.cancel(flow)
        self._flows.clear()
        self._waiting.clear()

    def _next(self, peer: str) -> None:
        _, _, message = heapq.heappop(self._waiting[peer])
        route = self._network.routes[self.name, peer]
        nbytes = wire_bytes(message)
        start = self._loop.time()

        def left() -> None:
            del self._flows[peer]
            end = self._loop.time()
            self.sent[peer].add(message.kind, nbytes, end - start)
            if self.observer is not None:
                self.observer(peer, message, start, end)
            receiver = self._network.nodes.get(peer)
            if receiver is not None:
                self._loop.call_later(route.delay, receiver._arrive, self.name, message, nbytes)
            if self._waiting.get(peer):
                self._next(peer)

        self._flows[peer] = self._network.fluid.start(route.resources, nbytes, left)

    def _arrive(self, peer: str, message: Message, nbytes: int) -> None:
        if self._network.nodes.get(self.name) is not self:
            return
        self.received[peer].add(message.kind, nbytes)
        if message.kind is not Kind.HELLO:
            self._put(Received(peer, message))

    def _put(self, item: Received | Lost) -> None:
        self._inbox.append(item)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
