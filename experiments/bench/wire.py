"""How fast the TCP transport is on this machine: ``python -m experiments.bench.wire``.

Two processes (spawned) talk over loopback. Bandwidth: 64 MiB messages one way. Frames: messages
of one full 256 KiB frame. Small messages: one way in a stream, and there and back one by one. CPU
time, of both processes together, says more than elapsed time where the machine is busy.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.bench import report
from geojax.wire.checksum import crc32
from geojax.wire.frame import wire_bytes
from geojax.wire.message import FRAGMENT_BYTES, Kind, Message
from geojax.wire.tcp import TcpTransport
from geojax.wire.transport import Lost

LARGE_BYTES = 64 << 20
CONNECT_TIMEOUT_S = 30.0


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


async def _one_way(transport: TcpTransport, message: Message, count: int, repeats: int = 1) -> Cost:
    """The median cost of a message among ``count`` sent in a row."""
    costs = []
    for _ in range(repeats):
        cpu = await _ask(transport)
        start = time.perf_counter()
        for _ in range(count):
            transport.send("echo", message)
        cpu = await _ask(transport) - cpu
        costs.append(Cost((time.perf_counter() - start) / count, cpu / count))
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
        of_large = await _one_way(transport, large, 4, repeats)
        of_frame = await _one_way(transport, frame, 500, repeats)
        of_small = await _one_way(transport, small, 5000, repeats)
        trip_s = await _round_trip(transport, 1000)
        transport.send("echo", Message(Kind.CONTROL, body={"end": True}))
    finally:
        await transport.close()
        await asyncio.to_thread(process.join, CONNECT_TIMEOUT_S)
    checksum_s = _checksum_seconds()

    title = "TCP transport on loopback, two processes"
    table = report.empty_table(title, ("what", "median", "CPU, both sides"))
    gigabits = wire_bytes(large) * 8 / 1e9
    rows = (
        (
            "64 MiB messages",
            f"{gigabits / of_large.wall:.1f} Gbit/s",
            f"{of_large.cpu / gigabits:.2f} s/Gbit",
        ),
        ("256 KiB frame", f"{of_frame.wall * 1e6:.0f} µs", f"{of_frame.cpu * 1e6:.0f} µs"),
        ("  its checksums", "", f"{2 * checksum_s * 1e6:.0f} µs"),
        (
            "small message, in a stream",
            f"{of_small.wall * 1e6:.1f} µs",
            f"{of_small.cpu * 1e6:.1f} µs",
        ),
        ("small message, there and back", f"{trip_s * 1e6:.0f} µs", ""),
    )
    for row in rows:
        table.add_row(*row)
    return table


def main() -> None:
    """Measures and prints a table."""
    parser = report.parser("wire", __doc__)
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each; the median")
    arguments = parser.parse_args()
    Console().print(asyncio.run(_bench(arguments.repeats)))


if __name__ == "__main__":
    main()
