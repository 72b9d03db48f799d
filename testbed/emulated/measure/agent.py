"""A measuring process in one center's namespace, told what to do by :mod:`.verify`.

Only the standard library. It serves a UDP echo and a TCP receiver on ports of its own choice,
prints them as one JSON line, and then answers each JSON line on standard input with one on
standard output::

    {"do": "echo", "host": H, "port": P, "count": 5,
     "wait_s": 2.0}                                             -> {"rtts": [s, ...],
                                                                    "delays": [s, ...]}
    {"do": "send", "host": H, "port": P, "congestion_control": C,
     "skip_s": 0.2, "measure_s": 0.3}                           -> {"rate": bit/s}

``delays`` are those one way, up to the instant at which the kernel took the packet: what a busy
machine adds until a process runs is left out. Echoes that are not back ``wait_s`` after the last
datagram are lost.

Of a transfer the receiver, not the sender, keeps the time: it lets ``skip_s`` pass, in which TCP
finds the link's rate, counts payload for ``measure_s``, and reports back over the same connection.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import threading
import time
from typing import Any

SO_TIMESTAMPNS = 35  # linux/asm-generic/socket.h
BLOCK = 1 << 16
PROBE_SPACING_S = 0.003
TRANSFER_TIMEOUT_S = 10.0  # beyond the time that the transfer itself may take


def serve_echo(server: socket.socket) -> None:
    """Sends every datagram back, with the time at which it came in."""
    server.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    while True:
        data, extra, _, sender = server.recvmsg(2048, 64)
        [stamp] = [value for _, kind, value in extra if kind == SO_TIMESTAMPNS]
        seconds, ns = struct.unpack("qq", stamp)
        server.sendto(data + struct.pack("!d", seconds + ns / 1e9), sender)


def serve_transfers(server: socket.socket) -> None:
    """Receives one transfer after another."""
    while True:
        connection, _ = server.accept()
        with connection:
            try:
                receive(connection)
            except (OSError, EOFError):
                continue  # the sender reports what went wrong


def receive(connection: socket.socket) -> None:
    """Measures the rate of one transfer and tells it to the sender."""
    connection.settimeout(TRANSFER_TIMEOUT_S)
    skip_s, measure_s = struct.unpack("!dd", exactly(connection, 16))
    block = memoryview(bytearray(BLOCK))
    begin = time.monotonic()
    started, counted = 0.0, 0
    while True:
        size = connection.recv_into(block)
        if not size:
            raise EOFError
        now = time.monotonic()
        if started:
            counted += size
            if now - started >= measure_s:
                break
        elif now - begin >= skip_s:
            started = now
    connection.sendall(struct.pack("!d", 8 * counted / (now - started)))
    while connection.recv_into(block):  # until the sender has the report and hangs up
        pass


def exactly(connection: socket.socket, size: int) -> bytes:
    """The next ``size`` bytes."""
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError("the other side hung up")
        data += part
    return data


def echo(order: dict[str, Any]) -> dict[str, Any]:
    """Round-trip times and one-way delays of small datagrams, sent some ms apart."""
    sent: list[tuple[float, float]] = []  # on the monotonic clock, and on the wall clock
    rtts: list[float] = []
    delays: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((order["host"], order["port"]))
        due = time.monotonic()
        deadline = due + PROBE_SPACING_S * order["count"] + order.get("wait_s", 2.0)
        while len(rtts) < order["count"] and (now := time.monotonic()) < deadline:
            if len(sent) < order["count"] and now >= due:
                sent.append((now, time.time()))
                probe.send(struct.pack("!I", len(sent) - 1))
                due = now + PROBE_SPACING_S if len(sent) < order["count"] else deadline
            elif select.select([probe], (), (), due - now)[0]:
                number, arrived = struct.unpack("!Id", probe.recv(16))
                rtts.append(time.monotonic() - sent[number][0])
                delays.append(arrived - sent[number][1])
    return {"rtts": rtts, "delays": delays}


def transfer(order: dict[str, Any]) -> dict[str, Any]:
    """Sends until the receiver says what it has measured."""
    timeout = TRANSFER_TIMEOUT_S + order["skip_s"] + order["measure_s"]
    with socket.socket() as connection:
        congestion_control = order["congestion_control"].encode()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion_control)
        connection.settimeout(timeout)
        connection.connect((order["host"], order["port"]))
        connection.sendall(struct.pack("!dd", order["skip_s"], order["measure_s"]))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sender = threading.Thread(target=_send_blocks, args=(connection,), daemon=True)
        sender.start()
        report = exactly(connection, 8)
        connection.shutdown(socket.SHUT_RDWR)
        sender.join()
    return {"rate": struct.unpack("!d", report)[0]}


def _send_blocks(connection: socket.socket) -> None:
    block = bytes(BLOCK)
    try:
        while True:
            connection.sendall(block)
    except OSError:
        return  # the receiver has what it wants


def main() -> None:
    """Serves and obeys until standard input ends."""
    echo_server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo_server.bind(("0.0.0.0", 0))
    transfer_server = socket.create_server(("0.0.0.0", 0))
    for target, server in ((serve_echo, echo_server), (serve_transfers, transfer_server)):
        threading.Thread(target=target, args=(server,), daemon=True).start()
    ports = {"echo": echo_server.getsockname()[1], "send": transfer_server.getsockname()[1]}
    print(json.dumps(ports), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = echo(order) if order["do"] == "echo" else transfer(order)
        except (OSError, EOFError) as error:
            answer = {"error": str(error) or type(error).__name__}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
