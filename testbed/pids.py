"""Processes, told apart by number and start time: a number that was reused is never killed.

Only the standard library; the watchdog runs this too.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
POLL_S = 0.01


class Process(NamedTuple):
    """A process as ``/proc`` shows it; ``start`` in clock ticks since boot."""

    pid: int
    start: int


def identify(pid: int) -> Process | None:
    """The living process with this number; None if there is none (a zombie counts as dead)."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, start = fields[0], int(fields[19])  # fields 3 and 22 of proc(5)
    return None if state in "ZX" else Process(pid, start)


def alive(process: Process) -> bool:
    """Whether this very process still runs."""
    return identify(process.pid) == process


def namespace(pid: int) -> str | None:
    """The network namespace of a process, e.g. ``net:[4026532201]``; None if it is gone."""
    try:
        return os.readlink(PROC / str(pid) / "ns" / "net")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def members(namespaces: Collection[str]) -> list[Process]:
    """Every process that lives in one of these network namespaces."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit() and namespace(int(entry.name)) in namespaces:
            process = identify(int(entry.name))
            if process is not None:
                found.append(process)
    return found


def send(processes: Iterable[Process], number: signal.Signals) -> None:
    """Signals those that still run."""
    for process in processes:
        if alive(process):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue


def end(processes: Collection[Process], patience_s: float) -> list[Process]:
    """SIGTERM, a wait of at most ``patience_s``, SIGKILL, and another wait.

    Returns:
      Those that are alive even then: none, unless the kernel holds one in an uninterruptible wait.
    """
    remaining = list(processes)
    for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 2.0)):
        send(remaining, number)
        deadline = time.monotonic() + wait_s
        while remaining := [process for process in remaining if alive(process)]:
            if time.monotonic() >= deadline:
                break
            time.sleep(POLL_S)
    return remaining
