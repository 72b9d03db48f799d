"""One TCP stream of iperf3 on loopback: what the kernel carries where nobody looks at the bytes."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time

SECONDS = 2
START_S = 10.0  # until its server listens


def installed() -> bool:
    """Whether iperf3 is on the path."""
    return shutil.which("iperf3") is not None


def one_stream(block_bytes: int) -> tuple[float, float]:
    """Sends for two seconds in blocks of so many bytes.

    Returns:
      Bit/s that were received, and the CPU seconds per bit of both sides together.

    Raises:
      RuntimeError: iperf3 failed; what it said.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    server = subprocess.Popen(
        ["iperf3", "--server", "--one-off", "--bind", "127.0.0.1", "--port", port],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        told = _client(port, block_bytes)
    finally:
        server.kill()
        server.wait()
    received = told["sum_received"]
    usage = told["cpu_utilization_percent"]
    cpu_s = (usage["host_total"] + usage["remote_total"]) / 100 * received["seconds"]
    return received["bits_per_second"], cpu_s / (8 * received["bytes"])


def _client(port: str, block_bytes: int) -> dict:
    command = ["iperf3", "--client", "127.0.0.1", "--port", port, "--json"]
    command += ["--time", str(SECONDS), "--length", str(block_bytes)]
    deadline = time.monotonic() + START_S
    while True:
        told = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)
        if "error" not in told:
            return told["end"]
        if "refused" not in told["error"] or time.monotonic() > deadline:
            raise RuntimeError(f"iperf3: {told['error']}")
        time.sleep(0.05)
