"""How fast the TCP transport is on this machine: ``python -m experiments.bench.wire``.

Two processes (spawned) talk over loopback. Bandwidth: 64 MiB messages one way. Frames: messages
of one full 256 KiB frame. Small messages: one way in a stream, and there and back one by one. CPU
time, of both processes together, says more than elapsed time where the machine is busy. Where
iperf3 is installed, one stream of it with blocks of that size is measured in turn with ours.
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.bench import report
from experiments.bench.peers import iperf3
from geojax.wire.checksum import crc32
from geojax.wire.frame import wire_bytes
from geojax.wire.message import FRAGMENT_BYTES, Kind, Message
from geojax.wire.tcp import TcpTransport
from geojax.wire.transport import Lost

LARGE_BYTES = 64 << 20
CONNECT_TIMEOUT_S = 30.0
PR_SET_THP_DISABLE = 41  # linux/prctl.h


async def _receive(transport: TcpTransport) -> Message:
    item = await transport.receive()
    if isinstance(item, Lost):
        raise SystemExit(f"lost {item.peer}: {item.reason}")
    return item.message


async def _echo(address: tuple[str, int], pipe: Connection) -> None:
    """The other process: takes everything, answers each message that asks for it."""
    transport = TcpTransport(
        "echo",
        ("127.0.0.1", 0),
        {"bench": address},
        run_id="bench",
        connect_timeout=CONNECT_TIMEOUT_S,
    )
    await transport.start()
    pipe.send(transport.address)
    while True:
        body = (await _receive(transport)).body or {}
        if body.get("answer"):
            answer = {"type": "answer", "cpu_s": time.process_time()}
            transport.send("bench", Message(Kind.CONTROL, body=answer))
        if body.get("end"):
            break
    await transport.close()


def _echo_process(address: tuple[str, int], pipe: Connection) -> None:
    asyncio.run(_echo(address, pipe))


class Cost(NamedTuple):
    """What one message takes, in seconds."""

    wall: float
    cpu: float  # of both processes together


async def _ask(transport: TcpTransport) -> float:
    """Waits until the other process has taken everything; returns the CPU time of both, s."""
    transport.send("echo", Message(Kind.CONTROL, body={"answer": True}))
    answer = await _receive(transport)
    return time.process_time() + (answer.body or {})["cpu_s"]


async def _one_way(transport: TcpTransport, message: Message, count: int) -> Cost:
    """The cost of a message among ``count`` sent in a row."""
    cpu = await _ask(transport)
    start = time.perf_counter()
    for _ in range(count):
        transport.send("echo", message)
    cpu = await _ask(transport) - cpu
    return Cost((time.perf_counter() - start) / count, cpu / count)


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))


async def _round_trip(transport: TcpTransport, count: int) -> float:
    """Seconds there and back, median."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        await _ask(transport)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _checksum_seconds() -> float:
    payload = np.ones(FRAGMENT_BYTES, np.uint8)
    times = []
    for _ in range(200):
        start = time.perf_counter()
        crc32(payload.data)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


async def _bench(repeats: int) -> Table:
    peers: dict[str, tuple[str, int]] = {"echo": ("127.0.0.1", 0)}
    transport = TcpTransport(
        "bench", ("127.0.0.1", 0), peers, run_id="bench", connect_timeout=CONNECT_TIMEOUT_S
    )
    await transport.start()
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_echo_process, args=(transport.address, theirs))
    process.start()
    try:
        peers["echo"] = await asyncio.to_thread(ours.recv)
        large = Message(Kind.OFFER, payload=np.ones(LARGE_BYTES, np.uint8))
        frame = Message(Kind.OFFER, payload=np.ones(FRAGMENT_BYTES, np.uint8))
        small = Message(Kind.CONTROL, body={"type": "beat"})
        await _one_way(transport, large, 1)  # connections and buffers are warm after it
        costs: dict[str, list[Cost]] = {}
        for _ in range(repeats):
            for name, message, count in (
                ("large", large, 4),
                ("frame", frame, 500),
                ("small", small, 5000),
            ):
                costs.setdefault(name, []).append(await _one_way(transport, message, count))
            if iperf3.installed():
                rate, cpu_s = await asyncio.to_thread(iperf3.one_stream, FRAGMENT_BYTES)
                costs.setdefault("peer", []).append(Cost(1 / rate, cpu_s))
        trip_s = await _round_trip(transport, 1000)
        transport.send("echo", Message(Kind.CONTROL, body={"end": True}))
    finally:
        await transport.close()
        await asyncio.to_thread(process.join, CONNECT_TIMEOUT_S)
    checksum_s = _checksum_seconds()

    of = {name: _median(measured) for name, measured in costs.items()}
    table = report.empty_table(
        "TCP transport on loopback, two processes", ("what", "median", "CPU, both sides")
    )
    bits = wire_bytes(large) * 8

    def stream(name: str, wall: float, cpu: float) -> None:
        table.add_row(name, f"{1e-9 / wall:.1f} Gbit/s", f"{cpu * 1e9:.3f} s/Gbit")

    def single(name: str, wall: float | None, cpu: float | None) -> None:
        words = ("" if seconds is None else f"{seconds * 1e6:.1f} µs" for seconds in (wall, cpu))
        table.add_row(name, *words)

    stream("64 MiB messages", of["large"].wall / bits, of["large"].cpu / bits)
    if "peer" in of:
        stream("one stream of iperf3", *of["peer"])
        share = bits * of["peer"].wall / of["large"].wall
        table.add_row("  messages ÷ iperf3", f"{share:.2f}", "")
    single("256 KiB frame", *of["frame"])
    single("  its checksums", None, 2 * checksum_s)
    if "peer" in of:
        share = wire_bytes(frame) * 8 * of["peer"].wall / of["frame"].wall
        table.add_row("  frames ÷ iperf3", f"{share:.2f}", "")
        carried = of["peer"].cpu * FRAGMENT_BYTES * 8
        single("  as many bytes with iperf3", None, carried)
        single("  what is left", None, of["frame"].cpu - carried - 2 * checksum_s)
    single("small message, in a stream", *of["small"])
    single("small message, there and back", trip_s, None)
    return table


def _refuse_huge_pages() -> None:
    """Has this process and all that it starts get small pages only, as where memory is in pieces.

    Raises:
      SystemExit: this platform has no such switch.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None or prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0):
        raise SystemExit("--small-pages: only Linux can refuse huge pages to a process")


def main() -> None:
    """Measures and prints a table."""
    parser = report.parser("wire", __doc__)
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each; the median")
    parser.add_argument("--small-pages", action="store_true", help="refuse huge pages (Linux)")
    arguments = parser.parse_args()
    if arguments.small_pages:
        _refuse_huge_pages()
    Console().print(asyncio.run(_bench(arguments.repeats)))


if __name__ == "__main__":
    main()
