"""The TCP transport: blocking transfers in threads behind an asyncio face.

Threads carry the bytes because blocking ``sendmsg`` and ``recv_into`` move several times as many
per second as asyncio's streams do, and release the interpreter meanwhile. One thread accepts, one
sends to each peer (started by the first message to it) and one receives from each peer; or several
do so, where there are several connections. What came in waits in a deque; the loop is woken once
for everything that has gathered. Datagrams go over UDP beside the connections, see
:mod:`geojax.wire.datagrams`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from geojax.errors import ConfigError, WireError
from geojax.wire.acceptor import Acceptor
from geojax.wire.connection import RefusalError
from geojax.wire.datagrams import DatagramSocket, check_datagram
from geojax.wire.frame import MAX_PAYLOAD_BYTES, PROTOCOL_VERSION, wire_bytes
from geojax.wire.incoming import Accepted, Incoming
from geojax.wire.loop_inbox import LoopInbox
from geojax.wire.message import Kind, Message, fragment_bytes
from geojax.wire.outgoing import Outgoing
from geojax.wire.queue import Outbound
from geojax.wire.receive_memory import ReceiveMemory
from geojax.wire.sockets import Address, configure, listen
from geojax.wire.transport import LinkCounters, Lost, Observer, Received

log = logging.getLogger("geojax.wire")

JOIN_TIMEOUT_S = 1.0  # for a thread whose socket was shut down


@dataclass
class _Peer:
    """What is known of one peer; guarded by the transport's lock."""

    outgoing: Outgoing | None = None
    incoming: Incoming | None = None
    lost: bool = False  # reported, and not come back since
    departed: bool = False  # said goodbye, and not come back since
    goodbye: bool = False  # the same, also where it was too soon for messages to it


class TcpTransport:
    """Moves messages between named nodes over TCP; see ``geojax.wire.transport.Transport``.

    Args:
      name: this node.
      listen: host and port to listen on; port 0 lets the kernel choose, see ``address``.
      peers: where the other nodes listen, by name. The names are fixed, an address is read when
        the peer is dialed.
      run_id: of the run; peers of another run are refused.
      connect_timeout: seconds for a peer to answer (its listener may come up later than this
        node), for its HELLO, and for :meth:`close`.
      congestion_control: TCP's, for every connection; None leaves the kernel's default.
      max_payload_bytes: largest payload that is accepted in one message.
      connections: how many carry what goes from one node to another; both must agree.

    Attributes:
      sent: counters per peer. A frame counts when it is handed to the kernel; ``seconds`` is the
        time spent in handing over, of all connections together.
      received: counters per peer. A frame counts when it is whole and valid.
      refused: connections closed for what came over them.
      refused_datagrams: those that were dropped as invalid, or from nobody that is known.
      socket_options: options of the last socket, as read back from the kernel.
      observers: called on the loop with (peer, message, nbytes, start, end) when the kernel has
        taken a whole message; times are the loop's.
    """

    def __init__(
        self,
        name: str,
        listen: Address,
        peers: Mapping[str, Address],
        *,
        run_id: str,
        connect_timeout: float,
        congestion_control: str | None = "cubic",
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        connections: Callable[[str, str], int] = lambda _source, _target: 1,
    ):
        self.name = name
        self.run_id = run_id
        self.connect_timeout = connect_timeout
        self.congestion_control = congestion_control
        self.max_payload_bytes = max_payload_bytes
        self.receive_memory = ReceiveMemory()
        self.address = listen
        others = [peer for peer in peers if peer != name]
        self.sent = {peer: LinkCounters() for peer in others}
        self.received = {peer: LinkCounters() for peer in others}
        self.refused = self.refused_datagrams = 0
        self.socket_options: dict[str, int | str] = {}
        self.observers: list[Observer] = []
        self._addresses, self._count = peers, connections
        self._peers = {peer: _Peer() for peer in others}
        self._changed = threading.Condition()  # its lock guards all below and every _Peer
        self._threads: set[threading.Thread] = set()
        self._strangers: set[Accepted] = set()  # accepted, HELLO not yet admitted
        self._closing = False
        self._counting = threading.Lock()
        self._acceptor: Acceptor | None = None
        self._datagrams: DatagramSocket | None = None
        self._inbox = LoopInbox(name)
        self._all_ended = asyncio.Event()

    async def start(self) -> None:
        """Listens and starts to accept.

        Raises:
          ConfigError: the address is taken, or the congestion control not available.
        """
        listener = listen(self.address, self.congestion_control)
        datagrams = DatagramSocket(
            self.name, self.run_id, self._addresses, deliver=self._deliver_datagram,
            refuse=self._refuse_datagram, ended=self.thread_ended,
        )  # fmt: skip
        try:
            datagrams.bind(listener.getsockname())
        except ConfigError:
            listener.close()
            raise
        self._inbox.loop, self._datagrams = asyncio.get_running_loop(), datagrams
        self.address = listener.getsockname()
        self.socket_options = configure(listener, self.congestion_control)
        self._acceptor = Acceptor(self.name, listener, self._take, self.thread_ended)
        with self._changed:
            self._start_thread(self._acceptor.thread)
            self._start_thread(datagrams.thread)

    def send(self, peer: str, message: Message, priority: int = 0) -> None:
        """Queues a message for ``peer``; may be called from any thread.

        Raises:
          ValueError: ``peer`` is this node, or not among the peers; the kind is HELLO.
          FrameError: the message fits no frame.
          WireError: the transport is closed, or was never started.
        """
        if message.kind is Kind.HELLO:
            raise ValueError("HELLO is the transport's own; send a CONTROL message")
        with self._changed:
            # Under the lock: what is pushed before ``ended`` is missed there, if it did not leave.
            self._outgoing(peer).push(message, priority)

    def withdraw(self, unwanted: Callable[[Message], bool]) -> int:
        """Drops messages, for any peer, of which nothing has left; returns how many."""
        with self._changed:
            queues = [peer.outgoing for peer in self._peers.values() if peer.outgoing is not None]
            return sum(outgoing.withdraw(unwanted) for outgoing in queues)

    def waiting(self, peer: str) -> int:
        """How many messages for ``peer`` the kernel has not taken, or not all of them."""
        outgoing = self._peers[peer].outgoing
        return 0 if outgoing is None else outgoing.waiting

    def send_datagram(self, peer: str, message: Message, priority: int = 0) -> None:
        """Queues a message that leaves as a datagram; may be called from any thread.

        Raises:
          ValueError: ``peer`` is this node, or not among the peers; the kind is not LATE.
          FrameError: the message fits no datagram.
          WireError: the transport is closed, or was never started.
        """
        nbytes = check_datagram(message)
        with self._changed:
            self._outgoing(peer).push_datagram(message, nbytes, priority)

    def _outgoing(self, peer: str) -> Outgoing:
        """The connections to a peer, dialed if there are none; the lock is held."""
        if peer not in self._peers:
            what = "this node itself" if peer == self.name else "no peer of it"
            raise ValueError(f"{self.name} cannot send to {peer!r}, which is {what}")
        if self._closing or self._inbox.loop is None:
            raise WireError(f"{self.name} cannot send to {peer}: its transport is not open")
        state = self._peers[peer]
        if state.outgoing is None:
            count = self._count(self.name, peer)
            state.outgoing = Outgoing(self, peer, self._addresses[peer], count)
            for connection in state.outgoing.connections:
                self._start_thread(connection.thread)
        return state.outgoing

    def stalled(self, peer: str) -> float:
        """Seconds for which nothing has moved towards ``peer`` although something is being sent.

        What counts as moving is that the peer's kernel acknowledges; only Linux tells.
        """
        with self._changed:
            outgoing = self._peers[peer].outgoing
        return 0.0 if outgoing is None else outgoing.stalled()

    async def receive(self) -> Received | Lost:
        """The next message from any peer, or the news that a peer is gone.

        Raises:
          WireError: the transport is closed.
        """
        return await self._inbox.take()

    async def close(self) -> None:
        """Sends what is queued and a goodbye, for at most ``connect_timeout``; frees everything."""
        with self._changed:
            threads = list(self._threads)
            if not self._closing:
                self._closing = True
                for state in self._peers.values():
                    if state.outgoing is not None:
                        state.outgoing.queue.finish()
                    elif state.incoming is not None:
                        state.incoming.say_goodbye()
                for stranger in self._strangers:
                    stranger.abort()
            self._changed.notify_all()
            self._close_listener()
        try:
            if threads:
                async with asyncio.timeout(self.connect_timeout):
                    await self._all_ended.wait()
        except TimeoutError:
            log.warning("%s: closed with connections that did not end in order", self.name)
        finally:
            self._abort_connections()
            for thread in threads:
                thread.join(JOIN_TIMEOUT_S)
        self._inbox.close()
        self.receive_memory.close()

    def abort(self) -> None:
        """Ends every connection without a goodbye, as a crash would; :meth:`close` it after."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._close_listener()
        self._abort_connections()

    def _abort_connections(self) -> None:
        with self._changed:
            states = self._peers.values()
            connections: list[Outgoing | Incoming | Accepted] = list(self._strangers)
            connections += [state.outgoing for state in states if state.outgoing is not None]
            connections += [state.incoming for state in states if state.incoming is not None]
            for connection in connections:
                connection.abort()

    def _close_listener(self) -> None:
        if self._acceptor is not None:
            self._acceptor.stop()
        if self._datagrams is not None:
            self._datagrams.stop()

    # The threads' side: what an ``Owner`` offers to its connections.

    def admit(self, accepted: Accepted, hello: Mapping[str, Any]) -> Incoming:
        """What a connection that said ``hello`` belongs to; raises :class:`RefusalError`."""
        for field, expected in (
            ("protocol", PROTOCOL_VERSION),
            ("run_id", self.run_id),
            ("to", self.name),
        ):
            _compare(field, expected, hello.get(field))
        peer = hello.get("name")
        if not isinstance(peer, str) or peer not in self._peers:
            names = ", ".join(sorted(self._peers))
            raise RefusalError(f"name: expected one of {names}; came {peer!r:.100}")
        count, together = self._count(peer, self.name), hello.get("together")
        _compare("connections", count, hello.get("connections", 1))
        with self._changed:
            state = self._peers[peer]
            incoming = self._joined(state, peer, together)
            if incoming is None:
                incoming = Incoming(self, peer, count, together)
            incoming.join(accepted, hello.get("connection", 0))
            state.incoming = incoming
            self._strangers.discard(accepted)
            if incoming.complete:
                state.lost = state.departed = state.goodbye = False
        return incoming

    def _joined(self, state: _Peer, peer: str, together: object) -> Incoming | None:
        """The connections that one more belongs to; None: it is the first one. The lock is held."""

        def of_others() -> Incoming | None:
            found = state.incoming
            same = found is not None and together is not None and found.together == together
            return None if same else found

        # A peer that comes back may be here before all of its former connections were read.
        self._changed.wait_for(lambda: of_others() is None or self._closing, self.connect_timeout)
        if self._closing:
            raise RefusalError(f"{self.name} is closing")
        others = of_others()
        if others is None:
            return state.incoming
        if others.living:
            raise RefusalError(f"name: {peer} is already connected from {others.source}")
        return None  # of those that left before all had come

    def established(self, outgoing: Outgoing, options: Mapping[str, int | str]) -> None:
        """All connections to a peer stand and have said their HELLO."""
        with self._changed:
            self.socket_options = dict(options)
            state = self._peers[outgoing.peer]
            if state.outgoing is outgoing:
                state.lost = state.departed = state.goodbye = False

    def has_departed(self, peer: str) -> bool:
        """Whether the peer has said goodbye."""
        with self._changed:
            return self._peers[peer].departed

    def sending(self, peer: str, frame: Outbound) -> None:
        """A frame is about to be handed to the kernel."""
        kind, messages = frame.message.kind, int(frame.first)
        with self._counting:
            self.sent[peer].add(kind, frame.nbytes, messages=messages)

    def was_sent(
        self, peer: str, frame: Outbound, since: float | None, start: float, end: float
    ) -> None:
        """The kernel took a frame from ``start`` to ``end``, and its message from ``since``, s."""
        with self._counting:
            self.sent[peer].seconds += end - start
        if self.observers and since is not None and frame.message.kind is not Kind.HELLO:
            self._inbox.call(partial(self._observe, peer, frame.message, since, end))

    def _observe(self, peer: str, message: Message, since: float, end: float) -> None:
        nbytes = wire_bytes(message, fragment_bytes(self._count(self.name, peer)))
        for observer in self.observers:
            observer(peer, message, nbytes, since, end)

    def send_as_datagram(self, peer: str, message: Message) -> None:
        """Hands a message to the kernel as a datagram, and waits for room there."""
        datagrams, start = self._datagrams, time.monotonic()
        assert datagrams is not None
        frame = datagrams.frame(peer, message)
        self.sending(peer, frame)
        datagrams.send(peer, frame)
        self.was_sent(peer, frame, start, start, time.monotonic())

    def _deliver_datagram(self, peer: str, message: Message, nbytes: int) -> None:
        self.count_received(peer, message.kind, nbytes, 1)
        self.deliver(Received(peer, message, nbytes))

    def _refuse_datagram(self, source: str, reason: str) -> None:
        with self._counting:
            self.refused_datagrams += 1
        log.debug("%s: dropped what came from %s: %s", self.name, source, reason)

    def count_received(self, peer: str, kind: Kind, nbytes: int, messages: int) -> None:
        """A whole frame has come in."""
        with self._counting:
            self.received[peer].add(kind, nbytes, messages=messages)

    def deliver(self, item: Received) -> None:
        """A whole message has come in."""
        self._inbox.post(item)

    def refuse(self, source: str, reason: str) -> None:
        """A connection is closed for what came over it."""
        with self._counting:
            self.refused += 1
        log.warning("%s: refused what came from %s: %s", self.name, source, reason)

    def forget(self, accepted: Accepted) -> None:
        """A connection that was never admitted is over."""
        with self._changed:
            self._strangers.discard(accepted)

    def ended(self, connections: Outgoing | Incoming, reason: str | None) -> None:
        """One direction is over: the peer is lost, unless it said goodbye or was given up before.

        A peer of whose connections some never came was not there.
        """
        with self._changed:
            state = self._peers[connections.peer]
            was_there = isinstance(connections, Outgoing) or connections.complete
            if was_there:
                state.goodbye |= reason is None
                reason = self._loss(connections, state, reason)
            if connections is state.outgoing:
                state.outgoing = None
                if self._closing and state.incoming is not None:
                    # Not before all has left: who hears it, and sends something, dials anew in
                    # vain, and takes what is still on its way for lost.
                    state.incoming.say_goodbye()
            elif connections is state.incoming:
                state.incoming = None
                self._changed.notify_all()
            else:
                return
            if not was_there:
                log.info("%s: %s was not there: %s", self.name, connections.peer, reason)
            elif reason is None:
                state.departed = True
            elif not self._closing:
                self._give_up(connections.peer, state, reason)

    def _loss(
        self, connections: Outgoing | Incoming, state: _Peer, reason: str | None
    ) -> str | None:
        """Why the end of a direction is a loss, or None when it is none.

        After a goodbye no end is a loss, unless messages were left that it came too soon for.
        """
        if reason is not None and not state.departed:
            return reason
        if isinstance(connections, Incoming):
            return None
        if not connections.established:
            return reason
        unsent = connections.queue.unsent
        return f"said goodbye before {unsent} messages to it had left" if unsent else None

    def _give_up(self, peer: str, state: _Peer, reason: str) -> None:
        """Ends the peer's other direction too and reports the loss; the lock is held."""
        if state.incoming is not None and state.incoming.complete:
            state.incoming.cut(reason)  # first what has arrived already, then its end reports it
            return
        if state.incoming is not None:
            state.incoming.abort()
        if state.outgoing is not None:
            state.outgoing.abort()
            state.outgoing = None
        if not state.lost:
            state.lost = True
            log.info("%s: lost %s: %s", self.name, peer, reason)
            self._inbox.post(Lost(peer, reason, state.goodbye))

    def thread_ended(self) -> None:
        """The calling thread has freed what it held and is about to end."""
        with self._changed:
            self._threads.discard(threading.current_thread())
            if self._closing and not self._threads:
                self._inbox.call(self._all_ended.set)

    def _start_thread(self, thread: threading.Thread) -> None:
        """Starts a thread that will call :meth:`thread_ended`; the lock is held."""
        self._threads.add(thread)
        thread.start()

    def _take(self, sock: socket.socket, source: str) -> bool:
        """Takes an accepted connection, whose peer has to say who it is; false when closing."""
        with self._changed:
            if not self._closing:
                accepted = Accepted(self, sock, source)
                self._strangers.add(accepted)
                self._start_thread(accepted.thread)
            return not self._closing


def _compare(field: str, expected: object, came: object) -> None:
    """Compares a field of a HELLO; raises :class:`RefusalError`."""
    if came != expected:
        raise RefusalError(f"{field}: expected {expected!r}, came {came!r:.100}")
