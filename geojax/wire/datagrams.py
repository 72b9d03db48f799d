"""Datagrams: messages of one frame that may get lost, beside the TCP connections.

Every node has one UDP socket, bound to the port number of its TCP listener. A datagram is one frame
of the same format (header, checksum) and of kind LATE: no merge waits for one. The frame's
``tag`` is a checksum over the run, the sender's name and the receiver's, and the datagram must
come from that sender's address. All other datagrams are counted and dropped.

A datagram leaves when no message waits for its peer, from the thread that sends the messages too.
It goes through a small socket buffer. So the queue of the node's own link holds the sender back,
and a message that comes meanwhile waits behind a few datagrams at most. Losses further on are
final.
"""

from __future__ import annotations

import heapq
import logging
import select
import socket
import threading
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache

from geojax.errors import ConfigError, FrameError
from geojax.wire.frame import Assembler, frames_of, parse_header, wire_bytes
from geojax.wire.message import HEADER_BYTES, Kind, Message
from geojax.wire.priority import outdated
from geojax.wire.queue import Outbound
from geojax.wire.sockets import Address, Wakeup

log = logging.getLogger("geojax.wire")

MAX_DATAGRAM_BYTES = 65_507  # of UDP over IPv4
MAX_WAITING_BYTES = 64 << 20  # of one peer's queue
# The kernel doubles it. The fragments of one datagram of 32 KiB still fit behind what it holds.
SEND_BUFFER_BYTES = 32 * 1024
RECEIVE_BUFFER_BYTES = 4 << 20
SEND_TIMEOUT_S = 1.0  # for room in the buffer; then the datagram is lost


def check_datagram(message: Message) -> int:
    """Bytes of a message as a datagram.

    Raises:
      ValueError: it is of another kind than LATE.
      FrameError: it is too large.
    """
    if message.kind is not Kind.LATE:
        raise ValueError(f"a datagram may get lost: send {message.kind.name} as a message")
    nbytes = wire_bytes(message)
    if nbytes > MAX_DATAGRAM_BYTES:
        raise FrameError(f"datagram: expected at most {MAX_DATAGRAM_BYTES} bytes, came {nbytes}")
    return nbytes


class DatagramQueue:
    """The datagrams that wait for one peer; may be used from any thread.

    The oldest round leaves first, and within a round the smaller priority. Those of round r are
    dropped when one of round r + 2 is queued: their round is merged, and so is the next. The first
    to leave are dropped when too many bytes wait.

    Attributes:
      dropped: how many were.
    """

    def __init__(self, max_bytes: int = MAX_WAITING_BYTES):
        self.dropped = 0
        self._max_bytes, self._bytes = max_bytes, 0
        self._waiting: list[tuple[int, int, int, int, Message]] = []  # see push
        self._came = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, message: Message, nbytes: int, priority: int = 0) -> None:
        """Queues a message of so many bytes."""
        with self._lock:
            entry = (message.round, priority, self._came, nbytes, message)
            heapq.heappush(self._waiting, entry)
            self._came += 1
            self._bytes += nbytes
            while self._waiting and (
                outdated(self._waiting[0][-1], message) or self._bytes > self._max_bytes
            ):
                self._pop()
                self.dropped += 1

    def take(self) -> Message | None:
        """The message that leaves next."""
        with self._lock:
            if not self._waiting:
                return None
            return self._pop()

    def _pop(self) -> Message:
        *_, nbytes, message = heapq.heappop(self._waiting)
        self._bytes -= nbytes
        return message

    def clear(self) -> None:
        """Drops all."""
        with self._lock:
            self.dropped += len(self._waiting)
            self._waiting.clear()
            self._bytes = 0


class DatagramSocket:
    """A node's UDP socket and the thread that receives from it.

    Args:
      name: this node.
      run_id: of the run.
      peers: where the others listen, by name.
      deliver: takes the peer, the message and the bytes of each valid datagram.
      refuse: takes the source and the reason of each other one.
      ended: called by the thread when it is about to end.
    """

    def __init__(
        self,
        name: str,
        run_id: str,
        peers: Mapping[str, Address],
        *,
        deliver: Callable[[str, Message, int], None],
        refuse: Callable[[str, str], None],
        ended: Callable[[], None],
    ):
        self._name, self._run_id, self._peers = name, run_id, peers
        self._deliver, self._refuse, self._ended = deliver, refuse, ended
        self._tokens = {peer: self._token(peer, name) for peer in peers if peer != name}
        self._socket: socket.socket | None = None
        self._stop = Wakeup()
        self.thread = threading.Thread(
            target=self._receive_all, name=f"geojax-datagrams-{name}", daemon=True
        )

    def bind(self, address: Address) -> None:
        """Binds the socket.

        Raises:
          ConfigError: the address is taken.
        """
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            sock.settimeout(SEND_TIMEOUT_S)
            sock.bind(address)
        except OSError as error:
            sock.close()
            self._stop.close()
            host, port = address
            raise ConfigError(
                "listen address", f"{host}:{port}",
                f"its UDP port is not free ({error.strerror}); stop the program that uses it "
                f"(`ss -lunp 'sport = :{port}'` names it) or choose another port",
            ) from error  # fmt: skip
        self._socket = sock

    def frame(self, peer: str, message: Message) -> Outbound:
        """A message to a peer as the one frame of a datagram."""
        head, payload = next(frames_of(message, tag=self._token(self._name, peer)))
        return Outbound(message, 0, True, True, False, head, payload)

    def send(self, peer: str, frame: Outbound) -> None:
        """Hands a frame to the kernel, and waits for room there; errors lose it."""
        with suppress(OSError):
            if self._socket is not None:
                buffers = (frame.head, frame.payload)
                self._socket.sendmsg(buffers, (), 0, self._peers[peer])

    def stop(self) -> None:
        """Ends the thread, which closes the socket."""
        self._stop.wake()

    def _token(self, sender: str, receiver: str) -> int:
        return zlib.crc32(f"{self._run_id}\0{sender}\0{receiver}".encode())

    def _receive_all(self) -> None:
        sock = self._socket
        assert sock is not None
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        poller.register(self._stop, select.POLLIN)
        buffer = bytearray(MAX_DATAGRAM_BYTES)
        view = memoryview(buffer)
        while all(descriptor != self._stop.fileno() for descriptor, _ in poller.poll()):
            try:
                nbytes, source = sock.recvfrom_into(buffer, 0, socket.MSG_DONTWAIT)
            except OSError:
                continue  # a damaged one, which the kernel dropped when it was read
            try:
                peer, message = self._message(view[:nbytes], source)
            except FrameError as error:
                self._refuse(f"{source[0]}:{source[1]}", f"datagram: {error}")
                continue
            self._deliver(peer, message, nbytes)
        sock.close()
        self._stop.close()
        self._ended()

    def _message(self, datagram: memoryview, source: Address) -> tuple[str, Message]:
        """The sender and the message of a datagram; raises ``FrameError``."""
        raw = datagram[:HEADER_BYTES]
        header = parse_header(raw)
        if header.kind is not Kind.LATE:
            raise FrameError(f"kind: expected LATE, came {header.kind.name}")
        if not header.last or header.offset or header.frame_bytes != len(datagram):
            raise FrameError(f"length: expected one whole frame, came {len(datagram)} bytes")
        peer = self._sender(header.tag, source)
        content = HEADER_BYTES + header.body_bytes
        assembler = Assembler(MAX_DATAGRAM_BYTES)
        assembler.begin(header)[:] = datagram[content:]
        message = assembler.finish(header, raw, datagram[HEADER_BYTES:content])
        assert message is not None
        return peer, message

    def _sender(self, token: int, source: Address) -> str:
        for peer, expected in self._tokens.items():
            if token == expected:
                host, port = self._peers[peer]
                if (_resolved(host), port) == source:
                    return peer
        raise FrameError("sender: expected a peer of this run at its address")


@lru_cache
def _resolved(host: str) -> str:
    try:
        return socket.gethostbyname(host)
    except OSError:
        return host
