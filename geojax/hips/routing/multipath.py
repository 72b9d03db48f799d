"""Chooses the path by which each chunk leaves this node: its tree's link or an auxiliary route.

NetStorm's rule: a chunk for a neighbour in its tree takes the primary path, unless more than
``primary_busy`` messages wait for it and fewer than ``auxiliary_queue`` wait for the first hop of
some auxiliary route; then it takes the fastest such route.

What differs from the release (``Van::Sending``). There the rule is applied once, when a chunk is
pushed (here: ``overlay.auxiliary_rule=once``). In training that works, since the chunks of one
layer come after those of another. Here a member may make its whole offer at one instant. Then only
the first few chunks would find the primary path free, the next ones would fill the auxiliary
routes, and the others would queue for the primary path, even if a route gets free later. So a chunk
that finds the primary path busy and no route free waits here, and the rule is applied again
whenever a message has left: routes are chosen late. (NetStorm's nine centers, 20 draws of their
rates, chunks of 16,384 elements, mean of sync time ÷ bound: none 2.00, fastest 1.80, paced 1.65,
random 2.51; by ``python -m experiments.bench.overlays --seeds 20``.) Up to ``primary_busy`` + 1
messages stay in the transport's queue, so that the primary path is never idle. A message that is
leaving still counts as waiting; in the release it does not. Probes do not count: chunks go before
them.

On a *paced* route (``overlay.auxiliary=paced``, not NetStorm's), a chunk leaves only after the one
before has had the time to cross the route's slowest link.

Messages that share a queue with waiting chunks wait here too: relayed chunks, late parts,
aggregates, probes. So messages leave by priority (:mod:`geojax.wire.priority`), as they do without
this object. Messages to a peer without auxiliary routes go to the transport at once.
"""

from __future__ import annotations

import logging
from asyncio import get_running_loop
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from heapq import heappop
from math import inf

from geojax.hips.routing.source_routes import Hop, hop_at, is_routed, routed
from geojax.hips.routing.waiting import Unlinked, WaitingRoom
from geojax.overlay.routes.auxiliary import PathTable, Route
from geojax.telemetry.recorder import Recorder
from geojax.wire.frame import wire_bytes
from geojax.wire.message import ROUTED, Kind, Message
from geojax.wire.priority import chunk_priority
from geojax.wire.transport import Transport

log = logging.getLogger("geojax.hips")
_MOST_HOPS = 1 << 14  # that are remembered; there are fewer than members, senders and targets


class MultipathSender:
    """Sends for a member's exchange over the WAN, by the member's transport.

    Args:
      me: this member.
      transport: its transport.
      names: all centers of the run, in the order that routes count them by.
      primary_busy: messages waiting for a neighbour, above which other routes are looked at.
      auxiliary_queue: messages waiting for the first hop of a route, from which on it is full.
      asks_again: the rule is applied again whenever a message has left; else once to each chunk.
      linked: peers that this member has a link to. Chunks for others wait until an epoch's path
        table is there, since the way that packets take may be out. None: nothing waits.
      priorities: of each chunk, smaller first; by default its index.
      recorder: counts chunks that left by auxiliary routes, relayed ones, and refused ones.

    Attributes:
      on_refused: called with a peer and what is wrong with the route of a message of it; no honest
        member passes such a route on. Set by the membership.
    """

    def __init__(
        self,
        me: str,
        transport: Transport,
        names: Sequence[str],
        *,
        primary_busy: int,
        auxiliary_queue: int,
        asks_again: bool = True,
        linked: Collection[str] | None = None,
        priorities: Sequence[int] = (),
        recorder: Recorder,
    ):
        self.me, self.names = me, tuple(names)
        self.on_refused: Callable[[str, str], None] = lambda *_: None
        self._transport, self._recorder = transport, recorder
        self._busy, self._full, self._asks_again = primary_busy, auxiliary_queue, asks_again
        self._priorities = tuple(priorities)
        self._table: PathTable = {}  # auxiliary routes
        self._primary: dict[str, tuple[str, ...]] = {}  # over other members; else the network's
        self._unlinked, self._waits = Unlinked(linked), WaitingRoom()
        self._hops: dict[tuple[object, ...], Hop] = {}  # by kind of message, sender and route
        self._gone: set[str] = set()
        self._probes: Counter[str] = Counter()  # that wait in the transport's queues
        self._passed: dict[tuple[str, ...], float] = {}  # when the last chunk has, on a paced route
        transport.observers.append(self._on_left)

    # ---- for the exchange

    def send(self, peer: str, message: Message, priority: int = 0) -> None:
        """Sends a message to a neighbour in a tree, or a probe: at once, or when a path is free."""
        if self._unlinked.takes(peer, message, priority):
            return
        if peer not in self._table or message.kind is Kind.STATE:
            self._send(peer, message, priority)
            return
        if self._asks_again:
            self._hold(peer, message, priority, free=message.kind in ROUTED)
        else:
            self._send_once(peer, message, priority)

    def send_datagram(self, peer: str, message: Message, priority: int = 0) -> None:
        """Passes a datagram on; it leaves when nothing waits."""
        self._transport.send_datagram(peer, message, priority)

    def withdraw(self, unwanted: Callable[[Message], bool]) -> int:
        """Drops chunks that wait, relayed ones among them; returns how many."""
        dropped = self._waits.withdraw(unwanted) + self._unlinked.withdraw(unwanted)
        dropped += self._transport.withdraw(unwanted)
        self._ask()
        return dropped

    # ---- for the membership

    def take(self, peer: str, message: Message) -> tuple[str, Message] | None:
        """Takes a message that came from ``peer``, and passes it on if it is for another member.

        It is relayed as it is, whatever round or policy it is of.

        Returns:
          Who made the message, and the message, if it is for this member; None if it was relayed,
          or refused, because its route is malformed or leads over a peer that is lost.
        """
        if not is_routed(message):
            return peer, message
        hop = self._hop(peer, message)
        if isinstance(hop, str):
            self._recorder.add("refused_routes")
            log.warning("%s: refused a routed chunk from %s: %s", self.me, peer, hop)
            self.on_refused(peer, f"a routed chunk: {hop}")
            return None
        if hop.onward is None:
            return hop.origin, message
        if hop.onward in self._gone:
            self._recorder.add("dropped_relays")
            log.warning(
                "%s: dropped chunk %d of round %d from %s: %s, the next on its route, is lost",
                self.me, message.chunk, message.round, hop.origin, hop.onward,
            )  # fmt: skip
            return None
        self._recorder.add("relayed_chunks")
        priority = self._priority(message.round, message.chunk)
        if hop.onward in self._table and self._asks_again:
            self._hold(hop.onward, message, priority, free=False)
        else:
            self._transport.send(hop.onward, message, priority)
        return None

    def _hop(self, peer: str, message: Message) -> Hop | str:
        """As :func:`hop_at`, for routes of which many messages come."""
        assert message.body is not None
        route = message.body["route"]
        if type(route) is not list or {*map(type, route)} != {int}:
            return hop_at(self.me, peer, message, self.names)
        key = (message.kind, peer, *route)
        hop = self._hops.get(key)
        if hop is None:
            hop = hop_at(self.me, peer, message, self.names)
            if not isinstance(hop, str) and len(self._hops) < _MOST_HOPS:
                self._hops[key] = hop
        return hop

    def route_by(self, table: PathTable) -> None:
        """Takes a new path table; what has left already keeps the route that it carries."""
        self._use(table)
        for peer, message, priority in self._unlinked.release():
            self.send(peer, message, priority)

    def _use(self, table: PathTable) -> None:
        self._primary = {peer: found[0].hops for peer, found in table.items() if found[0].primary}
        auxiliary = {p: tuple(r for r in found if not r.primary) for p, found in table.items()}
        self._table = {peer: found for peer, found in auxiliary.items() if found}
        for peer in [peer for peer in self._waits if peer not in self._table]:
            self._pass_on(peer)
        self._ask()

    def change(self, epoch: int) -> None:
        """Begins an epoch: chunks of older ones that wait are dropped, and there are no routes.

        Offers are sent again in the new epoch, and results follow from them. Late parts are not:
        they leave at once.
        """
        self._waits.withdraw(lambda held: held.epoch < epoch and held.kind is not Kind.LATE)
        self._unlinked.change(epoch)
        self._gone.clear()
        self._hops.clear()
        self._passed.clear()
        self._use({})

    def lose(self, peer: str) -> None:
        """Notes that the connection to a peer ended, until the next epoch; drops what waits for it.

        The transport drops its queue, too. The change of the membership that follows makes the
        sender repeat these messages.
        """
        self._gone.add(peer)
        self._waits.pop(peer)
        self._unlinked.lose(peer)
        del self._probes[peer]
        self._ask()

    # ---- the rule

    def _on_left(self, peer: str, message: Message, *_: float) -> None:
        if message.kind is Kind.PROBE and self._probes[peer]:
            self._probes[peer] -= 1
        if self._waits:
            self._ask()

    def _ask(self) -> None:
        """Applies the rule to the first chunk of each peer, until none finds a free path."""
        again = True
        while again:
            again = any(map(self._let_go, self._waits.by_turn()))

    def _let_go(self, peer: str) -> bool:
        """Sends the first message that finds a free path; returns whether there was one."""
        queues = self._waits[peer]
        if self._waiting(self._first(peer)) <= self._busy:
            priority, _, message = heappop(queues.first)
            self._send(peer, message, priority)
        else:
            route = self._free_route(peer) if queues.free else None
            if route is None:
                return False
            priority, _, message = heappop(queues.free)
            self._divert(route, message, priority)
        if not queues:
            self._waits.pop(peer)
        return True

    def _send_once(self, peer: str, message: Message, priority: int) -> None:
        """Applies the rule to a chunk once and for all."""
        busy = message.kind in ROUTED and self._waiting(self._first(peer)) > self._busy
        route = self._free_route(peer) if busy else None
        if route is None:
            self._send(peer, message, priority)
        else:
            self._divert(route, message, priority)

    def _divert(self, route: Route, message: Message, priority: int) -> None:
        """Sends a chunk by an auxiliary route."""
        self._recorder.add("auxiliary_chunks")
        self._recorder.chunk_event(
            "auxiliary", round=message.round, chunk=message.chunk, kind=message.kind.name,
            route=list(route.hops),
        )  # fmt: skip
        message = routed(message, route.hops, self.names)
        self._pace(route, message)
        self._transport.send(route.hops[1], message, priority)

    def _free_route(self, peer: str) -> Route | None:
        """The fastest auxiliary route whose first hop has room."""
        for route in self._table[peer]:
            first = route.hops[1]
            room = first not in self._gone and self._waiting(first) < self._full
            if room and self._has_passed(route):
                return route
        return None

    def _has_passed(self, route: Route) -> bool:
        passed = self._passed.get(route.hops)
        return passed is None or get_running_loop().time() >= passed

    def _pace(self, route: Route, message: Message) -> None:
        if route.rate < inf:
            seconds = 8 * wire_bytes(message) / route.rate
            self._passed[route.hops] = get_running_loop().time() + seconds

    def _hold(self, peer: str, message: Message, priority: int, *, free: bool) -> None:
        self._waits.push(peer, message, priority, free=free)
        self._ask()

    def _pass_on(self, peer: str) -> None:
        """Sends everything that waits for a peer by the primary path."""
        queues = self._waits.pop(peer)
        while queues:
            priority, _, message = heappop(queues.first)
            self._send(peer, message, priority)

    def _send(self, peer: str, message: Message, priority: int) -> None:
        """Sends by the primary path."""
        kind = message.kind
        if peer in self._primary and kind in ROUTED and not is_routed(message):
            first = self._first(peer)
            if first != peer and first not in self._gone:
                self._recorder.add("primary_relayed")
                message, peer = routed(message, self._primary[peer], self.names), first
        if kind is not Kind.PROBE:
            self._transport.send(peer, message, priority)
            return
        before = self._transport.waiting(peer)
        self._transport.send(peer, message, priority)
        self._probes[peer] += self._transport.waiting(peer) > before  # a dead peer gets none

    def _first(self, peer: str) -> str:
        """Where the primary path to a peer leads first."""
        return self._primary[peer][1] if peer in self._primary else peer

    def _waiting(self, peer: str) -> int:
        """Messages for a peer in the transport's queue that a chunk would have to wait for."""
        return self._transport.waiting(peer) - self._probes[peer]

    def _priority(self, number: int, chunk: int) -> int:
        known = 0 <= chunk < len(self._priorities)
        return chunk_priority(number, self._priorities[chunk] if known else chunk)
