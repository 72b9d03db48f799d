"""The connections to a peer, one or several, and what waits for them."""

from __future__ import annotations

import math
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from geojax.errors import FrameError
from geojax.wire.connection import Connection, Owner, describe
from geojax.wire.datagrams import DatagramQueue
from geojax.wire.frame import PROTOCOL_VERSION, frame_count, frames_of
from geojax.wire.message import Kind, Message, fragment_bytes
from geojax.wire.queue import Outbound, SendQueue
from geojax.wire.sockets import Address, FrameReader, Wakeup, configure, outstanding, send_all

FIRST_BACKOFF_S = 0.02  # between two attempts to dial; grows by half each time
LAST_BACKOFF_S = 0.25
ANSWER_TIMEOUT_S = 1.0  # for the one small frame that a receiver writes back


class Outgoing:
    """All that goes to one peer: a queue, and the connections that empty it.

    Each connection takes the frame that is next as soon as its kernel has room. If one breaks, all
    are ended.

    Args:
      owner: the transport.
      peer: the node to dial.
      address: where the peer listens.
      count: how many connections there are.

    Attributes:
      established: all are connected and have said HELLO.
      queue: messages that have not left.
      datagrams: what leaves while the queue is empty.
      connections: their threads are to be started by the owner.
    """

    def __init__(self, owner: Owner, peer: str, address: Address, count: int = 1):
        self.owner, self.peer = owner, peer
        self.established = False
        self.connections = [Dialed(self, address, number) for number in range(count)]
        self.queue = SendQueue(*(connection.wakeup.wake for connection in self.connections))
        self.datagrams = DatagramQueue()
        self.together = uuid.uuid4().hex
        self._resumed = time.monotonic()  # when there was something to send after a pause, s
        self._pushed = self._left = 0  # messages; each is written by one side alone
        self._lock = threading.Lock()  # of what follows, and of _left
        self._parted: dict[int, tuple[float, int]] = {}  # messages of which a part has left
        self._standing, self._living, self._over = 0, count, False

    def push(self, message: Message, priority: int) -> None:
        """Queues a message; one caller at a time. Raises ``FrameError`` if it fits no frame."""
        self._pushed += 1  # before it can leave
        try:
            self._pushed -= self.queue.push(message, priority)
        except FrameError:
            self._pushed -= 1
            raise

    def withdraw(self, unwanted: Callable[[Message], bool]) -> int:
        """Drops queued messages of which nothing has left; returns how many."""
        dropped = self.queue.withdraw(unwanted)
        self._pushed -= dropped
        return dropped

    @property
    def waiting(self) -> int:
        """Messages pushed and not dropped that the kernel has not taken, or not all of them."""
        return self._pushed - self._left

    def push_datagram(self, message: Message, nbytes: int, priority: int) -> None:
        """Queues a message of so many bytes that leaves as a datagram; see there for its bounds."""
        self.datagrams.push(message, nbytes, priority)
        self.connections[0].wakeup.wake()

    def stalled(self) -> float:
        """Seconds for which nothing has moved although something is to be sent.

        Connections that do not stand yet have not moved anything since they were dialed.
        """
        since_resumed = time.monotonic() - self._resumed
        if not self.established:
            return since_resumed
        waiting = self._outstanding()
        return 0.0 if waiting is None else min(waiting, since_resumed)

    def _outstanding(self) -> float | None:
        """Seconds since anything was acknowledged; None: nothing is on its way.

        By any connection: one that has had nothing to send for long was acknowledged long ago.
        """
        found = [connection.outstanding() for connection in self.connections]
        on_its_way = any(waiting for waiting, _ in found)
        return min(age for _, age in found) if on_its_way else None

    def abort(self) -> None:
        """Ends all without a goodbye; what is queued is dropped."""
        for connection in self.connections:
            connection.abort()

    # What the connections tell.

    def stands(self, options: Mapping[str, int | str]) -> None:
        """A connection stands and has said its HELLO."""
        with self._lock:
            self._standing += 1
            if self._standing < len(self.connections):
                return
        self.established = True
        self.owner.established(self, options)

    def begins(self, frame: Outbound, start: float) -> None:
        """A frame is about to be handed to the kernel."""
        if not frame.follows and self._outstanding() is None:
            self._resumed = start
        self.owner.sending(self.peer, frame)

    def has_left(self, frame: Outbound, start: float, end: float, *, queued: bool) -> None:
        """The kernel took a frame from ``start`` to ``end``."""
        since = self._begun(frame, start, queued=queued)
        self.owner.was_sent(self.peer, frame, since, start, end)

    def _begun(self, frame: Outbound, start: float, *, queued: bool) -> float | None:
        """When the first frame of a message left, if all of them have now."""
        with self._lock:
            left = 1
            if not (frame.first and frame.last):
                frames = frame_count(frame.message, fragment_bytes(len(self.connections)))
                begun, left = self._parted.pop(frame.sequence, (start, frames))
                start = min(begun, start)
            if left > 1:
                self._parted[frame.sequence] = start, left - 1
                return None
            self._left += queued
            return start

    def ended(self, reason: str | None) -> None:
        """A connection is over; ``reason`` is None after a goodbye."""
        with self._lock:
            self._living -= 1
            if self._over or (reason is None and self._living):
                return
            self._over = True
        if self._living:
            self.abort()
        self.owner.ended(self, reason)


class Dialed(Connection):
    """One of the connections to a peer.

    Args:
      outgoing: all of them.
      address: where the peer listens.
      number: of this one.

    Attributes:
      wakeup: wakes its thread when there is something to send.
    """

    def __init__(self, outgoing: Outgoing, address: Address, number: int):
        which = f"-{number}" if number else ""
        super().__init__(
            outgoing.owner, f"geojax-send-{outgoing.owner.name}-{outgoing.peer}{which}"
        )
        self.wakeup = Wakeup()
        self._outgoing, self._address, self._number = outgoing, address, number
        self._options: dict[str, int | str] = {}

    def outstanding(self) -> tuple[bool, float]:
        """As that of its socket; without one nothing is on its way, nor was acknowledged."""
        with self._lock, suppress(OSError):
            if self._socket is not None:
                return outstanding(self._socket)
        return False, math.inf

    def abort(self) -> None:
        """Ends it without a goodbye."""
        super().abort()
        self.wakeup.wake()

    def _run(self) -> None:
        reason: str | None
        try:
            sock = self._dial()
            self._say_hello(sock)
            self._outgoing.stands(self._options)
            reason = self._pump(sock)
        except OSError as error:
            reason = self._last_word(error)
        except FrameError as error:
            reason = f"answered with no valid frame: {error}"
        finally:
            self._close_socket()
            self.wakeup.close()
        self._outgoing.ended(reason)

    def _dial(self) -> socket.socket:
        timeout = self.owner.connect_timeout
        deadline = time.monotonic() + timeout
        backoff = FIRST_BACKOFF_S
        while True:
            sock = self._adopt(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            try:
                several = len(self._outgoing.connections)
                self._options = configure(sock, self.owner.congestion_control, several)
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                sock.connect(self._address)
                if sock.getsockname() != sock.getpeername():
                    sock.settimeout(None)
                    return sock
                why = "nobody listens"  # a port of the ephemeral range connected to itself
            except OSError as error:
                why = describe(error)
            self._close_socket()
            host, port = self._address
            departed = self.owner.has_departed(self._outgoing.peer)
            if time.monotonic() + backoff >= deadline or departed:
                raise ConnectionError(f"no connection to {host}:{port} within {timeout} s: {why}")
            self._aborted.wait(backoff)
            backoff = min(1.5 * backoff, LAST_BACKOFF_S)

    def _say_hello(self, sock: socket.socket) -> None:
        hello: dict[str, Any] = {
            "name": self.owner.name,
            "to": self._outgoing.peer,
            "run_id": self.owner.run_id,
            "protocol": PROTOCOL_VERSION,
        }
        if self._several:
            hello["connections"] = len(self._outgoing.connections)
            hello["connection"] = self._number
            hello["together"] = self._outgoing.together
        self._send(sock, _single(Message(Kind.HELLO, body=hello)))

    @property
    def _several(self) -> bool:
        return len(self._outgoing.connections) > 1

    def _send(self, sock: socket.socket, frame: Outbound, *, queued: bool = False) -> None:
        start = time.monotonic()
        self._outgoing.begins(frame, start)
        send_all(sock, (frame.head, frame.payload))
        self._outgoing.has_left(frame, start, time.monotonic(), queued=queued)

    def _pump(self, sock: socket.socket) -> str | None:
        """Sends until one side ends it; returns why, or None after a goodbye.

        One of several takes a frame only when its kernel has room, as another one may have it
        sooner.
        """
        queue, datagrams = self._outgoing.queue, self._outgoing.datagrams
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        poller.register(self.wakeup, select.POLLIN)
        wait_ms: int | None = 0
        room = True
        while True:
            for descriptor, found in poller.poll(wait_ms):
                if descriptor != sock.fileno():
                    self.wakeup.clear()
                elif found & ~select.POLLOUT:
                    return self._listen(sock)
                else:
                    room = True
            if self._aborted.is_set():
                return "aborted"
            if not room:
                continue
            finished = queue.finished  # read before the last look into the queue
            frame = queue.take(self._number)
            if frame is not None:
                self._send(sock, frame, queued=True)
                wait_ms = 0
                if self._several:
                    poller.modify(sock, select.POLLIN | select.POLLOUT)
                    wait_ms, room = None, False
            elif finished:
                return self._say_goodbye(sock)
            elif not self._number and (datagram := datagrams.take()) is not None:
                self.owner.send_as_datagram(self._outgoing.peer, datagram)
                wait_ms = 0
            else:
                poller.modify(sock, select.POLLIN)
                wait_ms = None

    def _listen(self, sock: socket.socket) -> str | None:
        """What the receiver wrote back: None for its goodbye, else why it closed."""
        sock.settimeout(ANSWER_TIMEOUT_S)
        frame = FrameReader(sock, 0).read()
        if frame is None:
            return "closed the connection"
        header, message = frame
        body = message.body if header.kind is Kind.HELLO and message is not None else None
        if body and body.get("bye"):
            return None
        if body and "refused" in body:
            return f"refused the connection: {body['refused']}"
        raise FrameError(f"expected a goodbye or a refusal, came {header}")

    def _last_word(self, error: OSError) -> str | None:
        """Why sending failed: what the receiver wrote back before, or else the error itself."""
        with self._lock:
            sock = self._socket
        if sock is not None:
            with suppress(OSError, FrameError):
                return self._listen(sock)
        return describe(error)

    def _say_goodbye(self, sock: socket.socket) -> None:
        """Says that all is sent, and waits until the receiver has read it and closes."""
        self._send(sock, _single(Message(Kind.HELLO, body={"bye": True})))
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass


def _single(message: Message) -> Outbound:
    """A message that is one frame."""
    return Outbound(message, 0, True, True, False, *next(frames_of(message)))
