"""A TCP connection that a thread of its own moves bytes over, and what it needs of its transport.

Connections carry messages in one direction: the sender dials. The first frame is a HELLO with the
sender's name, the receiver's, the run and the protocol; the last frame of an orderly end is a HELLO
with the body ``{"bye": true}``. The receiver writes back at most one frame, also a HELLO: its own
goodbye, or ``{"refused": reason}`` before it closes a connection that it does not want.

Several connections may carry what goes to one peer. Then each HELLO says ``connections``, how many
there are, ``connection``, which one this is, and ``together``, a word that they share; frames have
numbers (:mod:`geojax.wire.frame_order`), but not HELLOs and goodbyes, which each connection has.
"""

from __future__ import annotations

import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from geojax.errors import WireError
from geojax.wire.frame import frames_of
from geojax.wire.message import Kind, Message
from geojax.wire.queue import Outbound
from geojax.wire.receive_memory import ReceiveMemory
from geojax.wire.transport import Received

if TYPE_CHECKING:
    from geojax.wire.incoming import Accepted, Incoming
    from geojax.wire.outgoing import Outgoing

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
    receive_memory: ReceiveMemory

    def admit(self, accepted: Accepted, hello: Mapping[str, Any]) -> Incoming:
        """What a connection that said ``hello`` belongs to; raises :class:`RefusalError`."""
        ...

    def established(self, outgoing: Outgoing, options: Mapping[str, int | str]) -> None:
        """All connections to a peer stand and have said their HELLO."""
        ...

    def has_departed(self, peer: str) -> bool:
        """Whether the peer has said goodbye: then dialing it is not worth a second attempt."""
        ...

    def sending(self, peer: str, frame: Outbound) -> None:
        """A frame is about to be handed to the kernel."""
        ...

    def was_sent(
        self, peer: str, frame: Outbound, since: float | None, start: float, end: float
    ) -> None:
        """The kernel took a frame from ``start`` to ``end``, s.

        ``since``: when it began with the frame's message, which has left now; None: it has not.
        """
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

    def forget(self, accepted: Accepted) -> None:
        """A connection that was never admitted is over."""
        ...

    def ended(self, connections: Outgoing | Incoming, reason: str | None) -> None:
        """All connections in one direction are over; ``reason`` is None after a goodbye."""
        ...

    def thread_ended(self) -> None:
        """The calling thread has freed what it held and is about to end."""
        ...


def notice(body: Mapping[str, Any]) -> bytes:
    """A HELLO frame with ``body``, for the answer."""
    head, _ = next(frames_of(Message(Kind.HELLO, body=body)))
    return head


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
