"""The delaying switch: a process that holds every frame until its release time.

Run by :mod:`testbed.emulated.switch.switches` inside the switch's namespace, with nothing but the
standard library. It reads one JSON line from standard input::

    {"ports": ["g12ab-s0", ...], "paths": [{"from": "g12ab-s0", "mac": "02:67:00:00:00:02",
     "to": "g12ab-s1", "delay": 0.01, "jitter": 0, "normal": false, "loss": 0, "seed": ""}]}

(times in s), answers with one line about itself when it forwards, and ends when standard input
ends, i.e. when its parent dies. Each later line is an order, answered with one JSON line::

    {"do": "count"}                                      -> counters
    {"do": "hold", "paths": [["g12ab-s0", MAC, LIMIT]]}  -> {}   an outage; LIMIT bytes may wait
    {"do": "release", "paths": [["g12ab-s0", MAC]]}      -> {}   its end
    {"do": "impair", "on": false}                        -> {}   no jitter and loss for now

Frames are taken from and given to AF_PACKET sockets with a virtio-net header, so a TCP
super-packet (GSO, up to 64 KiB) stays one frame throughout and the checksum offload survives:
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
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from testbed.emulated.switch.paths import Impairment, Path, Send

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
BUSY_FRAMES = 32  # with so many in flight, waking for each one costs more than its forwarding
REST_NS = 200_000  # a busy forwarder wakes so seldom, and serves all that has come or is due
LATE_NS = 1_000_000  # a frame released more than 1 ms late is counted
NS = 1e9  # ns in one s


class Flight:
    """Frames in flight, in order of release; frames of equal time in order of arrival.

    >>> flight = Flight()
    >>> flight.depart(20, print, b"later")
    >>> flight.depart(10, print, b"sooner")
    >>> [frame for _, _, frame in flight.land(15)], flight.next_landing()
    ([b'sooner'], 20)
    """

    __slots__ = ("_count", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Send, bytes]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._heap)

    def depart(self, release: int, send: Send, frame: bytes) -> None:
        """Takes a frame that is to be sent at ``release`` (ns)."""
        self._count += 1
        heapq.heappush(self._heap, (release, self._count, send, frame))

    def land(self, now: int) -> Iterator[tuple[int, Send, bytes]]:
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
        paths: Mapping[socket.socket, Mapping[bytes, Path]],
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
            elif path.plain:
                depart(clock() + path.delay, path.send, bytes(view[:size]))
            else:
                path.admit(clock(), bytes(view[:size]), depart)

    def busy(self) -> bool:
        """Whether there is so much to do that it is better done in bunches."""
        return len(self.flight) >= BUSY_FRAMES

    def give(self, lead: int = 0) -> int:
        """Sends every frame that is due now or within ``lead`` ns; returns how many these are."""
        now, count = self.clock(), 0
        for release, send, frame in self.flight.land(now + lead):
            count += 1
            try:
                send(frame)
            except OSError:  # ENOBUFS: the ingress cap's queue is full
                self.dropped += 1
                continue
            self.forwarded += 1
            self.bytes += len(frame) - VNET_HEADER
            self.late += now - release > LATE_NS
        return count

    def wait_s(self) -> float:
        """How long there is nothing to give, s."""
        landing = self.flight.next_landing()
        if landing is None:
            return ORPHAN_CHECK_S
        return min(ORPHAN_CHECK_S, max(0, landing - self.clock()) / NS)

    def counters(self) -> dict[str, int]:
        """What happened so far, in frames but for ``bytes``.

        ``unknown``: no such link; ``dropped``: by an ingress cap; ``lost``: by a link's loss;
        ``overflowed``: beyond what may wait in an outage; ``late``: released more than 1 ms late;
        ``overrun``: dropped by the kernel before we read them.
        """
        for port in self.paths:
            statistics = port.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
            self.overrun += struct.unpack("II", statistics)[1]  # reading resets it
        paths = [path for found in self.paths.values() for path in found.values()]
        return {
            "forwarded": self.forwarded,
            "bytes": self.bytes,
            "unknown": self.unknown,
            "dropped": self.dropped,
            "lost": sum(path.lost for path in paths),
            "overflowed": sum(path.overflowed for path in paths),
            "late": self.late,
            "overrun": self.overrun,
            "in_flight": len(self.flight),
            "held": sum(map(len, paths)),
        }


class Control:
    """Obeys orders that come in on a pipe.

    Args:
      forwarder: who is ordered.
      links: its paths by source port and MAC address.
    """

    def __init__(self, forwarder: Forwarder, links: Mapping[tuple[str, str], Path]):
        self._forwarder, self._links = forwarder, links
        self._text = b""

    def read(self, text: bytes) -> list[dict[str, Any]]:
        """Obeys every order that ``text`` completes; the answers, one each."""
        *orders, self._text = (self._text + text).split(b"\n")
        return [self.obey(json.loads(order)) for order in orders]

    def obey(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Does what an order says, and answers."""
        flight, clock = self._forwarder.flight, self._forwarder.clock
        match order["do"]:
            case "count":
                return dict(self._forwarder.counters())
            case "hold":
                for port, mac, limit in order["paths"]:
                    self._links[port, mac].hold(limit)
            case "release":
                for port, mac in order["paths"]:
                    self._links[port, mac].release(clock(), flight.depart)
            case "impair":
                for path in self._links.values():
                    path.impair(order["on"])
            case other:
                raise ValueError(f"no such order: {other!r}")
        return {}


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


def run(forwarder: Forwarder, control: Control) -> None:
    """Forwards until standard input ends or the parent is gone."""
    parent = os.getppid()
    orders = sys.stdin.fileno()
    waiting_on = [*forwarder.paths, orders]
    worked = False
    while True:
        wait_s, lead = forwarder.wait_s(), 0
        if worked and forwarder.busy():
            time.sleep(REST_NS / NS)
            wait_s, lead = 0.0, REST_NS  # the lead makes up for what frames wait at both ends
        # select: its timeout has microseconds, epoll's only milliseconds
        ready, _, _ = select.select(waiting_on, (), (), wait_s)
        for port in ready:
            if port is not orders:
                forwarder.take(port)
                continue
            text = os.read(orders, 1 << 16)
            if not text:
                return
            for answer in control.read(text):
                print(json.dumps(answer), flush=True)
        worked = forwarder.give(lead) > 0 or bool(ready)
        if not worked and os.getppid() != parent:
            return


def read_path(entry: Mapping[str, Any], send: Send) -> Path:
    """A path from its part of the configuration."""
    impairment = Impairment(round(entry["jitter"] * NS), entry["normal"], entry["loss"])
    plain = impairment == Impairment()
    return Path(round(entry["delay"] * NS), send, None if plain else impairment, entry["seed"])


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
    links: dict[tuple[str, str], Path] = {}
    for entry in config["paths"]:
        path = read_path(entry, ports[entry["to"]].send)
        paths[ports[entry["from"]]][bytes.fromhex(entry["mac"].replace(":", ""))] = path
        links[entry["from"], entry["mac"]] = path
    print(json.dumps({"scheduling": be_prompt()}), flush=True)
    forwarder = Forwarder(paths)
    run(forwarder, Control(forwarder, links))


if __name__ == "__main__":
    main()
