"""The delaying switch: a process that holds every frame until its release time.

Run by :mod:`testbed.emulated.switches` inside the switch's namespace, with nothing but the
standard library. It reads one JSON line from standard input::

    {"ports": ["g12ab-s0", ...], "paths": [["g12ab-s0", "02:67:00:00:00:02", "g12ab-s1", 0.01]]}

(source port, destination MAC, target port, delay in s), answers with one line about itself when it
forwards, and ends when standard input ends, i.e. when its parent dies. Each later line that it
reads is answered with one JSON line of counters.

Frames are taken from and given to AF_PACKET sockets with a virtio-net header, so a TCP
super-packet (GSO, up to 64 KiB) stays one frame all the way and the checksum offload survives:
that is what makes Python fast enough. The kernel constants are from ``linux/if_packet.h``.
"""

from __future__ import annotations

import ctypes
import heapq
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
ETH_P_ALL = 3
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
PR_SET_TIMERSLACK = 29

VNET_HEADER = 10  # bytes before the Ethernet header
TARGET_MAC = slice(VNET_HEADER, VNET_HEADER + 6)
LARGEST_FRAME = 1 << 17
SOCKET_BUFFER = 32 << 20
TURN = 64  # frames taken from one port before the next is served
ORPHAN_CHECK_S = 1.0
LATE_NS = 1_000_000  # a frame released more than 1 ms late is counted


class Path(NamedTuple):
    """What happens to frames of one port for one MAC address."""

    delay: int  # ns
    send: Callable[[bytes], object]


class Flight:
    """Frames on their way, in order of release; frames of equal time in order of arrival.

    >>> flight = Flight()
    >>> flight.depart(20, print, b"later")
    >>> flight.depart(10, print, b"sooner")
    >>> [frame for _, _, frame in flight.land(15)], flight.next_landing()
    ([b'sooner'], 20)
    """

    __slots__ = ("_count", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Callable[[bytes], object], bytes]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._heap)

    def depart(self, release: int, send: Callable[[bytes], object], frame: bytes) -> None:
        """Takes a frame that is to be sent at ``release`` (ns)."""
        self._count += 1
        heapq.heappush(self._heap, (release, self._count, send, frame))

    def land(self, now: int) -> Iterator[tuple[int, Callable[[bytes], object], bytes]]:
        """Gives out, in order, every frame whose time has come: (release, send, frame)."""
        while self._heap and self._heap[0][0] <= now:
            release, _, send, frame = heapq.heappop(self._heap)
            yield release, send, frame

    def next_landing(self) -> int | None:
        """The time (ns) of the next release."""
        return self._heap[0][0] if self._heap else None


class Forwarder:
    """Moves frames between ports.

    Args:
      paths: for each source port's socket, what happens to frames by destination MAC.
      clock: the time, ns.
    """

    def __init__(
        self,
        paths: dict[socket.socket, dict[bytes, Path]],
        clock: Callable[[], int] = time.monotonic_ns,
    ):
        self.paths = paths
        self.clock = clock
        self.flight = Flight()
        self.forwarded = self.bytes = self.unknown = self.dropped = self.late = self.overrun = 0
        self._view = memoryview(bytearray(LARGEST_FRAME))

    def take(self, port: socket.socket) -> None:
        """Reads what waits at a port, up to one turn's worth."""
        paths, view, clock, depart = self.paths[port], self._view, self.clock, self.flight.depart
        for _ in range(TURN):
            try:
                size = port.recv_into(view)
            except BlockingIOError:
                return
            path = paths.get(bytes(view[TARGET_MAC]))
            if path is None:  # no such link: broadcast, multicast, a center that is no neighbour
                self.unknown += 1
                continue
            depart(clock() + path.delay, path.send, bytes(view[:size]))

    def give(self) -> None:
        """Sends every frame whose time has come."""
        now = self.clock()
        for release, send, frame in self.flight.land(now):
            try:
                send(frame)
            except OSError:  # ENOBUFS: the ingress cap's queue is full
                self.dropped += 1
                continue
            self.forwarded += 1
            self.bytes += len(frame) - VNET_HEADER
            self.late += now - release > LATE_NS

    def wait_s(self) -> float:
        """How long there is nothing to give, s."""
        landing = self.flight.next_landing()
        if landing is None:
            return ORPHAN_CHECK_S
        return min(ORPHAN_CHECK_S, max(0, landing - self.clock()) / 1e9)

    def counters(self) -> dict[str, int]:
        """What happened so far. ``overrun``: frames that the kernel dropped before we read them."""
        for port in self.paths:
            statistics = port.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
            self.overrun += struct.unpack("II", statistics)[1]  # reading resets it
        return {
            "forwarded": self.forwarded,
            "bytes": self.bytes,
            "unknown": self.unknown,
            "dropped": self.dropped,
            "late": self.late,
            "overrun": self.overrun,
            "in_flight": len(self.flight),
        }


def open_port(interface: str) -> socket.socket:
    """A raw socket on one interface that sees whole super-packets, and only incoming ones."""
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # 0: deaf until bound
    port.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    port.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    port.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER)
    port.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BUFFER)
    port.setblocking(False)
    port.bind((interface, ETH_P_ALL))
    return port


def be_prompt() -> str:
    """Asks to be woken exactly on time, before ordinary processes; returns what was granted."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        try:
            os.nice(-20)
        except OSError:
            return "normal"
        return "nice"
    return "fifo"


def run(forwarder: Forwarder) -> None:
    """Forwards until standard input ends or the parent is gone."""
    parent = os.getppid()
    control = sys.stdin.fileno()
    waiting_on = [*forwarder.paths, control]
    while True:
        # select: its timeout has microseconds, epoll's only milliseconds
        ready, _, _ = select.select(waiting_on, (), (), forwarder.wait_s())
        for port in ready:
            if port is control:
                if not os.read(control, 1):
                    return
                print(json.dumps(forwarder.counters()), flush=True)
            else:
                forwarder.take(port)
        forwarder.give()
        if not ready and os.getppid() != parent:
            return


def main() -> None:
    """Reads the configuration, opens the ports and forwards."""
    line = b""
    while not line.endswith(b"\n"):  # unbuffered: what follows belongs to `run`
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            return
        line += byte
    config = json.loads(line)
    ports = {name: open_port(name) for name in config["ports"]}
    paths: dict[socket.socket, dict[bytes, Path]] = {port: {} for port in ports.values()}
    for source, mac, target, delay in config["paths"]:
        address = bytes.fromhex(mac.replace(":", ""))
        paths[ports[source]][address] = Path(round(delay * 1e9), ports[target].send)
    print(json.dumps({"scheduling": be_prompt()}), flush=True)
    run(Forwarder(paths))


if __name__ == "__main__":
    main()
