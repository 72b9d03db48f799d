"""TCP sockets as the experiments need them: options set and read back, and exact transfers."""

from __future__ import annotations

import errno
import resource
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from geojax.errors import ConfigError, FrameError
from geojax.wire.frame import Assembler, Header, WholeFrame, check_sum, parse_header
from geojax.wire.message import FRAGMENT_BYTES, HEADER_BYTES, Message

Address = tuple[str, int]  # host, port

NOTSENT_LOWAT_BYTES = 128 * 1024  # unsent bytes in the kernel: what a new priority waits behind
LEAST_LOWAT_BYTES = 32 * 1024  # the same of each of many connections
KEEPALIVE_IDLE_S = 60  # a half-open connection is found after IDLE + COUNT * INTERVAL seconds
KEEPALIVE_INTERVAL_S = 10
KEEPALIVE_COUNT = 6
BACKLOG = 1024  # several connections of many peers may come at once

_FILES_EACH = 4  # of a connection there (with the pair that wakes its thread), and of one back
_OTHER_FILES = 512  # of a process
_TCP = socket.IPPROTO_TCP
# Fields of ``struct tcp_info`` (linux/tcp.h): segments sent and not acknowledged, milliseconds
# since the last acknowledgement.
_INFO_FIELD = struct.Struct("=I")
_UNACKED_AT, _LAST_ACK_AT, _INFO_BYTES = 24, 56, 60
_PROC = Path("/proc/sys/net/ipv4")


def configure(
    sock: socket.socket, congestion_control: str | None, connections: int = 1
) -> dict[str, int | str]:
    """Sets the options of every connection and reads back what the kernel made of them.

    Args:
      sock: a TCP socket, not yet connected.
      congestion_control: name of the algorithm; empty or None leaves the kernel's default.
      connections: how many are used together with this one.

    Returns:
      Options by name, e.g. ``{"TCP_CONGESTION": "cubic", "TCP_NODELAY": 1, ...}``. Options that
      this platform does not have are absent.

    Raises:
      ConfigError: the kernel does not have, or this user may not use, the congestion control.
    """
    _set_congestion_control(sock, congestion_control)
    wanted = {
        "TCP_NODELAY": 1,
        "TCP_NOTSENT_LOWAT": max(LEAST_LOWAT_BYTES, NOTSENT_LOWAT_BYTES // connections),
        "TCP_KEEPIDLE": KEEPALIVE_IDLE_S,
        "TCP_KEEPINTVL": KEEPALIVE_INTERVAL_S,
        "TCP_KEEPCNT": KEEPALIVE_COUNT,
    }
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options: dict[str, int | str] = {}
    for name, value in wanted.items():
        number = getattr(socket, name, None)
        if number is not None:
            sock.setsockopt(_TCP, number, value)
            options[name] = sock.getsockopt(_TCP, number)
    for name in ("SO_KEEPALIVE", "SO_SNDBUF", "SO_RCVBUF"):
        options[name] = sock.getsockopt(socket.SOL_SOCKET, getattr(socket, name))
    if hasattr(socket, "TCP_CONGESTION"):
        raw = sock.getsockopt(_TCP, socket.TCP_CONGESTION, 16)
        options["TCP_CONGESTION"] = raw.rstrip(b"\0").decode()
    return options


def _set_congestion_control(sock: socket.socket, name: str | None) -> None:
    if not name:
        return
    key = "testbed.congestion_control"
    if not hasattr(socket, "TCP_CONGESTION"):
        raise ConfigError(key, name, "this platform offers no choice; leave it empty")
    try:
        sock.setsockopt(_TCP, socket.TCP_CONGESTION, name.encode())
    except OSError as error:
        if error.errno == errno.EPERM:
            which, why = "tcp_allowed_congestion_control", "only root may use it here; allowed"
        else:
            which, why = "tcp_available_congestion_control", "not in this kernel; available"
        names = ", ".join(sorted((_PROC / which).read_text().split()))
        raise ConfigError(key, name, f"{why}: {names}") from error


def listen(address: Address, congestion_control: str | None) -> socket.socket:
    """Opens a listening socket.

    Raises:
      ConfigError: the address is taken, or is none of this host's.
    """
    host, port = address
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        configure(listener, congestion_control)
        listener.bind(address)
        listener.listen(BACKLOG)
    except ConfigError:
        listener.close()
        raise
    except OSError as error:
        listener.close()
        fixes = {
            errno.EADDRINUSE: "the port is in use; stop the program that listens there "
            f"(`ss -ltnp 'sport = :{port}'` names it) or choose another port",
            errno.EADDRNOTAVAIL: "no address of this host; choose one that `ip addr` shows",
            errno.EACCES: "this user may not listen there; choose a port above 1023",
        }
        fix = fixes.get(error.errno or 0, f"cannot listen there: {error}")
        raise ConfigError("listen address", f"{host}:{port}", fix) from error
    return listener


def outstanding(sock: socket.socket) -> tuple[bool, float]:
    """Whether anything is on its way, and seconds since the peer's kernel acknowledged anything.

    Data that waits in this kernel does not count. While some is in flight, the acknowledgements
    tell enough. While none is, the peer has no room: its process has stopped reading, and its link
    may be fine. (TCP then asks at ever longer intervals, so the last acknowledgement may be old.)
    Only Linux tells; elsewhere nothing ever is.

    Raises:
      OSError: the socket is closed.
    """
    number = getattr(socket, "TCP_INFO", None)
    if number is None:
        return False, 0.0
    info = sock.getsockopt(_TCP, number, _INFO_BYTES)
    (unacknowledged,) = _INFO_FIELD.unpack_from(info, _UNACKED_AT)
    (age_ms,) = _INFO_FIELD.unpack_from(info, _LAST_ACK_AT)
    return unacknowledged > 0, age_ms / 1000


def send_all(sock: socket.socket, buffers: Sequence[bytes | memoryview]) -> None:
    """Sends buffers one after the other, without joining them; goes on after a partial send."""
    sent = sock.sendmsg(buffers)
    if sent == sum(map(len, buffers)):
        return
    for buffer in buffers:
        if sent < len(buffer):
            sock.sendall(memoryview(buffer)[sent:])
        sent = max(0, sent - len(buffer))


def allow_connections(count: int) -> None:
    """Lets this process open so many connections, and as many to it, beside what else it needs.

    Raises:
      ConfigError: they are more than the system allows.
    """
    needed = _OTHER_FILES + count * _FILES_EACH
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or needed <= soft:
        return
    if most != unlimited and needed > most:
        raise ConfigError(
            "wan.connections", count,
            f"so many connections in all need {needed} open files, and a process may have {most}; "
            "take fewer, or raise the limit (`ulimit -Hn`)",
        )  # fmt: skip
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


class Wakeup:
    """Wakes a thread that waits in ``poll`` on this object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # never writes to a descriptor that was closed and reused
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)

    def fileno(self) -> int:
        """The descriptor that becomes readable."""
        return self._receiver.fileno()

    def wake(self) -> None:
        """Makes it readable; harmless when it already is, or when it is closed."""
        with self._lock, suppress(OSError):
            self._sender.send(b"\0")

    def wait(self, timeout: float) -> None:
        """Waits until it is readable, for at most ``timeout`` seconds."""
        poller = select.poll()
        poller.register(self, select.POLLIN)
        poller.poll(int(timeout * 1000))

    def clear(self) -> None:
        """Makes it unreadable again."""
        with suppress(BlockingIOError):
            while self._receiver.recv(4096):
                pass

    def close(self) -> None:
        """Frees both ends."""
        with self._lock:
            self._receiver.close()
            self._sender.close()


class FrameReader:
    """Reads the frames of one connection straight into the buffers of their messages.

    Args:
      sock: a connected socket, blocking or with a timeout.
      max_payload_bytes: largest payload of one message.

    Attributes:
      fragment: payload bytes of every frame but the last of a message.
      at: when the last byte of the last frame was read, on the monotonic clock, s.
    """

    def __init__(self, sock: socket.socket, max_payload_bytes: int):
        self.at, self.fragment = 0.0, FRAGMENT_BYTES
        self.assembler = Assembler(max_payload_bytes)
        self._sock = sock
        self._raw = memoryview(bytearray(HEADER_BYTES))

    def read(self) -> tuple[Header, Message | None] | None:
        """One frame: its header, and the message if that is whole with it.

        Returns:
          None when the connection ended between two frames.

        Raises:
          FrameError: bytes that are no valid frame, or an end in the middle of one.
          OSError: the connection broke.
        """
        header = self._header()
        if header is None:
            return None
        payload = self.assembler.begin(header)
        body = self._rest(header, payload)
        return header, self.assembler.finish(header, self._raw, body)

    def read_apart(self) -> WholeFrame | None:
        """One frame that is not the next one of this connection's messages; as :meth:`read`."""
        header = self._header()
        if header is None:
            return None
        payload = memoryview(bytearray(header.payload_bytes))
        body = self._rest(header, payload)
        check_sum(header, self._raw, body, payload)
        return WholeFrame(header, body, payload)

    def _header(self) -> Header | None:
        got = self._receive(self._raw)
        if got == 0:
            return None
        if got < HEADER_BYTES:
            raise FrameError(f"header: expected {HEADER_BYTES} bytes, came {got} and the end")
        return parse_header(self._raw, self.fragment)

    def _rest(self, header: Header, payload: memoryview) -> memoryview:
        """Receives the payload, and returns the body."""
        body = memoryview(bytearray(header.body_bytes))
        for part, what in ((body, "body"), (payload, "payload")):
            got = self._receive(part)
            if got < len(part):
                raise FrameError(f"{what}: expected {len(part)} bytes, came {got} and the end")
        self.at = time.monotonic()
        return body

    def _receive(self, view: memoryview) -> int:
        """Fills ``view``; returns how much came before the connection ended."""
        size = len(view)
        got = 0
        while got < size:
            count = self._sock.recv_into(view[got:], size - got, socket.MSG_WAITALL)
            if count == 0:
                break
            got += count
        return got
