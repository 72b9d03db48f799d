"""The connections from a peer, one or several, and the messages that come over them."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from geojax.errors import FrameError
from geojax.wire.connection import Connection, Owner, RefusalError, describe, notice
from geojax.wire.frame import Assembler, Header, WholeFrame
from geojax.wire.frame_order import FrameOrder
from geojax.wire.message import Kind, Message, fragment_bytes
from geojax.wire.sockets import FrameReader
from geojax.wire.transport import Received

log = logging.getLogger("geojax.wire")


class Incoming:
    """All that comes from one peer.

    A single connection's messages are put together by itself. Frames of several are put in order
    first, and nothing is delivered before all connections are there. If one of them breaks, all are
    ended, after what has arrived already.

    Args:
      owner: the transport.
      peer: who sends.
      count: how many connections there are.
      together: the word that their HELLOs share; None: there is one.

    Attributes:
      cut_reason: why they were ended from this side, if they were.
    """

    def __init__(self, owner: Owner, peer: str, count: int = 1, together: str | None = None):
        self.owner, self.peer, self.together = owner, peer, together
        self.cut_reason: str | None = None
        self._count = count
        self._order = (
            FrameOrder(count, self._put_together, owner.connect_timeout) if count > 1 else None
        )
        self._assembler = Assembler(owner.max_payload_bytes, owner.receive_memory)  # of several
        self._told, self._came = 0, 0  # bytes up to the last whole message, and until now
        self._follows = True  # all frames since that message did
        self._lock = threading.Lock()  # of what follows
        self._leaving = False  # goodbye was said to the dialer
        self._joined: dict[int, Accepted] = {}
        self._living: dict[Accepted, None] = {}
        self._reason: str | None = None

    def join(self, accepted: Accepted, number: object) -> None:
        """Takes one of the connections.

        Raises:
          RefusalError: there is no such number, or it is here already.
        """
        with self._lock:
            free = [each for each in range(self._count) if each not in self._joined]
            if not isinstance(number, int) or number not in free:
                raise RefusalError(f"connection: expected one of {free}, came {number!r:.100}")
            self._joined[number] = accepted
            self._living[accepted] = None

    @property
    def complete(self) -> bool:
        """Whether all connections have come."""
        return len(self._joined) == self._count

    @property
    def source(self) -> str:
        """Where the first connection came from."""
        return next(iter(self._joined.values())).source

    @property
    def living(self) -> bool:
        """Whether any connection is there."""
        return bool(self._living)

    def receive(self, reader: FrameReader) -> str | None:
        """Receives what comes over one of the connections; why it ended, None after a goodbye."""
        order, reader.fragment = self._order, fragment_bytes(self._count)
        if order is None:
            reader.assembler = Assembler(self.owner.max_payload_bytes, self.owner.receive_memory)
            while (frame := reader.read()) is not None:
                if self._is_goodbye(*frame):
                    return None
                self._came += frame[0].frame_bytes
                self._take(*frame, reader.at)
        else:
            if self.complete:
                order.open()
            while (apart := reader.read_apart()) is not None:
                if apart.header.kind is Kind.HELLO:
                    self._is_goodbye(apart.header, Assembler(0).add(apart))
                    return None
                if not order.put(apart):
                    break
        return "closed the connection without a goodbye"

    def _is_goodbye(self, header: Header, message: Message | None) -> bool:
        """Whether a frame is the last one; raises ``FrameError`` for another HELLO."""
        if header.kind is not Kind.HELLO:
            return False
        if message is None or not (message.body or {}).get("bye"):
            raise FrameError("HELLO: expected one, and then a goodbye; came a second")
        self.owner.count_received(self.peer, header.kind, header.frame_bytes, 1)
        return True

    def _put_together(self, frame: WholeFrame) -> None:
        """Takes the frame that is next of several connections.

        What came meanwhile and waits counts for the message that comes first: a rate is of all that
        was read between two instants.
        """
        assert self._order is not None
        message = self._assembler.add(frame)
        self._came = self._order.came
        self._take(frame.header, message, time.monotonic())

    def _take(self, header: Header, message: Message | None, at: float) -> None:
        """Counts the frame that is next, and delivers the message that is whole with it."""
        messages = int(header.offset == 0)
        self.owner.count_received(self.peer, header.kind, header.frame_bytes, messages)
        self._follows &= header.follows
        if message is not None:
            nbytes, self._told = self._came - self._told, self._came
            self.owner.deliver(Received(self.peer, message, nbytes, at, self._follows))
            self._follows = True

    def cut(self, reason: str) -> None:
        """Ends them after what has already arrived; ``reason`` is reported as their end."""
        self.cut_reason = self.cut_reason or reason
        for connection in self._connections():
            connection.cut()
        if self._order is not None:
            self._order.close()

    def say_goodbye(self) -> None:
        """Tells the dialer that nothing more is read; it closes the connections then."""
        self._leaving = True
        if self._order is not None and not self.complete:
            self._order.close()  # no more are admitted
        self.write_back({"bye": True})

    def write_back(self, body: Mapping[str, Any]) -> None:
        """Tells the dialer something, and nothing after that."""
        for connection in self._connections():
            connection.write_back(body)

    def abort(self) -> None:
        """Ends them without a goodbye, whatever they are doing."""
        for connection in self._connections():
            connection.abort()
        if self._order is not None:
            self._order.close()

    def _connections(self) -> list[Accepted]:
        with self._lock:
            return list(self._living)

    def ended(self, accepted: Accepted, reason: str | None) -> None:
        """A connection is over; ``reason`` is None after a goodbye."""
        with self._lock:
            del self._living[accepted]
            if reason is not None:
                self._reason = self._reason or self.cut_reason or reason
            reason, left = self._reason, len(self._living)
        if self._order is not None:
            self._order.ended()
        if left and reason is not None and not self._leaving:
            self.cut(reason)
        if not left and (self.complete or reason is not None):
            self.owner.ended(self, reason)


class Accepted(Connection):
    """A connection that a peer dialed.

    Args:
      owner: the transport.
      sock: the accepted socket.
      source: its remote address, for the log.
    """

    def __init__(self, owner: Owner, sock: socket.socket, source: str):
        super().__init__(owner, f"geojax-receive-{owner.name}-{source}")
        self.source = source
        self._incoming: Incoming | None = None  # known once its HELLO was admitted
        self._adopt(sock)

    def cut(self) -> None:
        """Ends it after what has already arrived."""
        self._end(socket.SHUT_RD)

    def write_back(self, body: Mapping[str, Any]) -> None:
        """Sends the one frame that goes to the dialer."""
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
            reason = self._refused(str(error))
        except OSError as error:
            reason = describe(error)
        finally:
            # Ended before closed: when the peer sees the end, it may dial again.
            if self._incoming is None:
                self.owner.forget(self)
            else:
                self._incoming.ended(self, reason)
            self._close_socket()

    def _refused(self, reason: str) -> str:
        """Refuses what came, unless it was ended before; returns why it ends."""
        incoming = self._incoming
        if self._aborted.is_set():
            return "aborted"
        if incoming is None or incoming.cut_reason is None:
            self.owner.refuse(self.source if incoming is None else incoming.peer, reason)
            (incoming or self).write_back({"refused": reason})
        return reason

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
        incoming = self._incoming = self.owner.admit(self, message.body or {})
        self.owner.count_received(incoming.peer, Kind.HELLO, header.frame_bytes, 1)
        sock.settimeout(None)
        return incoming.receive(reader)
