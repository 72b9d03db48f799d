"""The two kinds of TCP connection of a node, each moved by a thread of its own.

Connections carry messages in one direction: the sender dials. The first frame is a HELLO with the
sender's name, the receiver's, the run and the protocol; the last frame of an orderly end is a HELLO
with the body ``{"bye": true}``. The receiver writes back at most one frame, also a HELLO: its own
goodbye, or ``{"refused": reason}`` before it closes a connection that it does not want.
"""

from __future__ import annotations

import logging
import select
import socket
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from geojax.errors import FrameError, WireError
from geojax.wire.datagrams import DatagramQueue
from geojax.wire.frame import PROTOCOL_VERSION, frames_of
from geojax.wire.message import Kind, Message
from geojax.wire.queue import Outbound, SendQueue
from geojax.wire.sockets import (
    Address,
    FrameReader,
    Wakeup,
    configure,
    outstanding,
    send_all,
)
from geojax.wire.transport import Received

log = logging.getLogger("geojax.wire")

FIRST_BACKOFF_S = 0.02  # between two attempts to dial; grows by half each time
LAST_BACKOFF_S = 0.25
ANSWER_TIMEOUT_S = 1.0  # for the one small frame that a receiver writes back
_RESET = struct.pack("ii", 1, 0)  # ``struct linger``: on, for 0 s


class RefusalError(WireError):
    """A connection that the receiver does not want; the reason is told to the dialer."""


class Owner(Protocol):
    """What a connection needs from its transport. Every method may be called from any thread."""

    name: str
    run_id: str
    connect_timeout: float
    congestion_control: str | None
    max_payload_bytes: int

    def admit(self, incoming: Incoming, hello: Mapping[str, Any]) -> str:
        """The name of the peer that said ``hello``; raises :class:`RefusalError`."""
        ...

    def established(self, outgoing: Outgoing, options: Mapping[str, int | str]) -> None:
        """An outgoing connection stands and has said its HELLO."""
        ...

    def has_departed(self, peer: str) -> bool:
        """Whether the peer has said goodbye: then dialing it is not worth a second attempt."""
        ...

    def sending(self, peer: str, frame: Outbound) -> None:
        """A frame is about to be handed to the kernel."""
        ...

    def was_sent(self, peer: str, frame: Outbound, since: float, start: float, end: float) -> None:
        """The kernel took a frame from ``start`` to ``end``, and its message from ``since``, s."""
        ...

    def send_as_datagram(self, peer: str, message: Message) -> None:
        """Hands a message to the kernel as a datagram, and waits for room there."""
        ...

    def count_received(self, peer: str, kind: Kind, nbytes: int, messages: int) -> None:
        """A whole frame has come in."""
        ...

    def deliver(self, item: Received) -> None:
        """A whole message has come in."""
        ...

    def refuse(self, source: str, reason: str) -> None:
        """A connection is closed for what came over it."""
        ...

    def ended(self, connection: Outgoing | Incoming, reason: str | None) -> None:
        """A connection is over; ``reason`` is None after a goodbye."""
        ...

    def thread_ended(self) -> None:
        """The calling thread has freed what it held and is about to end."""
        ...


def notice(body: Mapping[str, Any]) -> bytes:
    """A HELLO frame with ``body``, for the answer."""
    head, _ = next(frames_of(Message(Kind.HELLO, body=body)))
    return head


def _single(message: Message) -> Outbound:
    """A message that is one frame."""
    return Outbound(message, 0, True, True, False, *next(frames_of(message)))


def describe(error: OSError) -> str:
    """An error of a socket in words."""
    return error.strerror or str(error) or type(error).__name__


class Connection(ABC):
    """A socket, the thread that owns it, and how others may end it."""

    def __init__(self, owner: Owner, thread_name: str):
        self.owner = owner
        self.thread = threading.Thread(target=self._main, name=thread_name, daemon=True)
        self._lock = threading.Lock()  # of _socket: never ends a descriptor that was reused
        self._socket: socket.socket | None = None
        self._aborted = threading.Event()

    def _main(self) -> None:
        try:
            self._run()
        finally:
            self.owner.thread_ended()

    @abstractmethod
    def _run(self) -> None:
        """Moves bytes until the connection ends; frees everything."""

    def _adopt(self, sock: socket.socket) -> socket.socket:
        with self._lock:
            if self._aborted.is_set():
                sock.close()
                raise ConnectionAbortedError("aborted")
            self._socket = sock
        return sock

    def _close_socket(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _end(self, how: int) -> None:
        """Shuts it down such that the close that follows resets it.

        After an orderly close the kernel tells of no more room, so a peer that waits for room would
        wait until its kernel gives up, for a minute or longer.
        """
        with self._lock, suppress(OSError):
            if self._socket is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._socket.shutdown(how)

    def abort(self) -> None:
        """Ends it without a goodbye, whatever it is doing."""
        self._aborted.set()
        self._end(socket.SHUT_RDWR)


class Outgoing(Connection):
    """Dials a peer and sends what is pushed to its ``queue``; datagrams while that is empty.

    Args:
      owner: the transport.
      peer: the node to dial.
      address: where the peer listens.
    """

    def __init__(self, owner: Owner, peer: str, address: Address):
        super().__init__(owner, f"geojax-send-{owner.name}-{peer}")
        self.peer = peer
        self._address = address
        self.established = False  # connected, HELLO said
        self._options: dict[str, int | str] = {}
        self._starts: dict[int, float] = {}  # when the first frame left, of unfinished messages
        self._resumed = time.monotonic()  # when there was something to send after a pause, s
        self._wakeup = Wakeup()
        self.queue = SendQueue(self._wakeup.wake)
        self._pushed = self._left = 0  # messages; each is written by one side alone
        self.datagrams = DatagramQueue()

    def push(self, message: Message, priority: int) -> None:
        """Queues a message; one caller at a time. Raises ``FrameError`` if it fits no frame."""
        self._pushed += 1  # before it can leave
        try:
            self._pushed -= self.queue.push(message, priority)
        except FrameError:
            self._pushed -= 1
            raise

    @property
    def waiting(self) -> int:
        """Messages pushed and not dropped that the kernel has not taken, or not all of them."""
        return self._pushed - self._left

    def push_datagram(self, message: Message, nbytes: int, priority: int) -> None:
        """Queues a message of so many bytes that leaves as a datagram; see there for its bounds."""
        self.datagrams.push(message, nbytes, priority)
        self._wakeup.wake()

    def stalled(self) -> float:
        """Seconds for which nothing has moved although something is to be sent.

        A connection that does not stand yet has not moved anything since it was dialed.
        """
        since_resumed = time.monotonic() - self._resumed
        if not self.established:
            return since_resumed
        waiting = self._outstanding()
        return 0.0 if waiting is None else min(waiting, since_resumed)

    def _outstanding(self) -> float | None:
        with self._lock, suppress(OSError):
            if self._socket is not None:
                return outstanding(self._socket)
        return None

    def abort(self) -> None:
        """Ends it without a goodbye; what is queued is dropped."""
        super().abort()
        self._wakeup.wake()

    def _run(self) -> None:
        reason: str | None
        try:
            sock = self._dial()
            self._say_hello(sock)
            self.established = True
            self.owner.established(self, self._options)
            reason = self._pump(sock)
        except OSError as error:
            reason = self._last_word(error)
        except FrameError as error:
            reason = f"answered with no valid frame: {error}"
        finally:
            self._close_socket()
            self._wakeup.close()
        self.owner.ended(self, reason)

    def _dial(self) -> socket.socket:
        timeout = self.owner.connect_timeout
        deadline = time.monotonic() + timeout
        backoff = FIRST_BACKOFF_S
        while True:
            sock = self._adopt(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            try:
                self._options = configure(sock, self.owner.congestion_control)
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
            if time.monotonic() + backoff >= deadline or self.owner.has_departed(self.peer):
                raise ConnectionError(f"no connection to {host}:{port} within {timeout} s: {why}")
            self._aborted.wait(backoff)
            backoff = min(1.5 * backoff, LAST_BACKOFF_S)

    def _say_hello(self, sock: socket.socket) -> None:
        hello = {
            "name": self.owner.name,
            "to": self.peer,
            "run_id": self.owner.run_id,
            "protocol": PROTOCOL_VERSION,
        }
        self._send(sock, _single(Message(Kind.HELLO, body=hello)))

    def _send(self, sock: socket.socket, frame: Outbound, *, queued: bool = False) -> None:
        start = time.monotonic()
        if not frame.follows and self._outstanding() is None:
            self._resumed = start
        self.owner.sending(self.peer, frame)
        send_all(sock, (frame.head, frame.payload))
        end = time.monotonic()
        if frame.first:
            self._starts[frame.sequence] = start
        since = self._starts.pop(frame.sequence) if frame.last else start
        self._left += queued and frame.last
        self.owner.was_sent(self.peer, frame, since, start, end)

    def _pump(self, sock: socket.socket) -> str | None:
        """Sends until one side ends it; returns why, or None after a goodbye."""
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        poller.register(self._wakeup, select.POLLIN)
        wait_ms: int | None = 0
        while True:
            for descriptor, _ in poller.poll(wait_ms):
                if descriptor == sock.fileno():
                    return self._listen(sock)
                self._wakeup.clear()
            if self._aborted.is_set():
                return "aborted"
            finished = self.queue.finished  # read before the last look into the queue
            frame = self.queue.take()
            if frame is not None:
                self._send(sock, frame, queued=True)
                wait_ms = 0
            elif finished:
                return self._say_goodbye(sock)
            elif (datagram := self.datagrams.take()) is not None:
                self.owner.send_as_datagram(self.peer, datagram)
                wait_ms = 0
            else:
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


class Incoming(Connection):
    """Receives the messages of a peer over a connection that the peer dialed.

    Args:
      owner: the transport.
      sock: the accepted socket.
      source: its remote address, for the log.
    """

    def __init__(self, owner: Owner, sock: socket.socket, source: str):
        super().__init__(owner, f"geojax-receive-{owner.name}-{source}")
        self.peer: str | None = None  # known once its HELLO was admitted
        self.source = source
        self._adopt(sock)
        self._cut_reason: str | None = None

    def cut(self, reason: str) -> None:
        """Ends it after what has already arrived; ``reason`` is reported as its end."""
        self._cut_reason = reason
        self._end(socket.SHUT_RD)

    def say_goodbye(self) -> None:
        """Tells the dialer that nothing more is read; it closes the connection then."""
        self._write_back({"bye": True})

    def _write_back(self, body: Mapping[str, Any]) -> None:
        with self._lock, suppress(OSError):
            if self._socket is not None:
                self._socket.send(notice(body), socket.MSG_DONTWAIT)
                self._socket.shutdown(socket.SHUT_WR)

    def _run(self) -> None:
        with self._lock:
            sock = self._socket
        reason: str | None = "aborted"
        try:
            if sock is not None:
                reason = self._receive_all(sock)
        except (FrameError, RefusalError) as error:
            reason = self._cut_reason
            if self._aborted.is_set():
                reason = "aborted"
            elif reason is None:
                reason = str(error)
                self.owner.refuse(self.peer or self.source, reason)
                self._write_back({"refused": reason})
        except OSError as error:
            reason = self._cut_reason or describe(error)
        finally:
            # Ended before closed: when the peer sees the end, it may dial again.
            self.owner.ended(self, reason)
            self._close_socket()

    def _receive_all(self, sock: socket.socket) -> str | None:
        """Receives until the connection ends; returns why, or None after a goodbye."""
        sock.settimeout(self.owner.connect_timeout)
        reader = FrameReader(sock, 0)  # a stranger reserves no memory
        frame = reader.read()
        if frame is None:
            log.debug("%s: %s connected and left without a HELLO", self.owner.name, self.source)
            return None
        header, message = frame
        if header.kind is not Kind.HELLO or message is None:
            raise FrameError(f"first frame: expected HELLO, came {header.kind.name}")
        peer = self.peer = self.owner.admit(self, message.body or {})
        self.owner.count_received(peer, Kind.HELLO, header.frame_bytes, 1)
        sock.settimeout(None)
        reader.assembler.max_payload_bytes = self.owner.max_payload_bytes
        gathered, follows = 0, True  # of the frames since the last whole message
        while (frame := reader.read()) is not None:
            header, message = frame
            goodbye = header.kind is Kind.HELLO
            messages = int(header.offset == 0)
            self.owner.count_received(peer, header.kind, header.frame_bytes, messages)
            if goodbye:
                if message is None or not (message.body or {}).get("bye"):
                    raise FrameError("HELLO: expected one, and then a goodbye; came a second")
                return None
            gathered += header.frame_bytes
            follows &= header.follows
            if message is not None:
                self.owner.deliver(Received(peer, message, gathered, reader.at, follows))
                gathered, follows = 0, True
        return self._cut_reason or "closed the connection without a goodbye"
