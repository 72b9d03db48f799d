"""One run of real processes over this machine's loopback: ``testbed=local``."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

from geojax.assemble import Setup
from testbed.faults import Fault
from testbed.local.processes import Processes, Reports, Sink, Spans
from testbed.wan.build import Wan


class Loopback:
    """Every node on 127.0.0.1, unshaped; needs no root."""

    def address(self, node: str) -> str:
        """Always the loopback address."""
        del node
        return "127.0.0.1"

    def popen(self, node: str, argv: list[str], **options: Any) -> subprocess.Popen:
        """An ordinary process."""
        del node
        return subprocess.Popen(argv, **options)

    def change(self, rates: Mapping[tuple[str, str], float]) -> None:
        """Loopback has no links to change."""

    def check_alive(self) -> None:
        """Loopback does not end."""


def run_processes(
    setup: Setup,
    wan: Wan,
    faults: tuple[Fault, ...],
    run_dir: Path,
    sink: Sink,
    say: Callable[[str], None],
) -> tuple[Reports, Spans, dict[str, Any]]:
    """Runs every node over loopback; the WAN is not shaped.

    Returns:
      The reports of the nodes that lived to write one, the spans of these, and figures of this
      testbed alone.

    Raises:
      GeojaxError: a CPU limit cannot be set, or a node failed.
    """
    processes = Processes(setup, wan, faults, run_dir, Loopback(), sink, _free_ports())
    reports, spans = processes.run(say)
    return reports, spans, processes.figures()


def _free_ports() -> Generator[int, None, None]:
    """Ports of a host that we share, free for TCP and UDP; held until the generator is closed.

    A socket that is bound and does not listen keeps others off its port; whoever says
    ``SO_REUSEADDR`` and asks for this very port, as a node does, may bind and listen beside it.
    """
    with contextlib.ExitStack() as held:
        while True:
            holder = held.enter_context(socket.socket())
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            try:
                with socket.socket(type=socket.SOCK_DGRAM) as probe:
                    probe.bind(holder.getsockname())
            except OSError:
                continue
            yield holder.getsockname()[1]
