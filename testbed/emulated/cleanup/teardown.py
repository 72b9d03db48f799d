"""Removes everything that a run made, by its record. Never by a name that others could use too.

How a run can end, and who removes what is left of it:

- normal exit, exception, SIGINT, SIGTERM: :meth:`EmulatedWan.stop` in the run's own process;
- SIGKILL, crash: the watchdog (:mod:`testbed.emulated.cleanup.watchdog`), within seconds;
- both gone: ``python -m testbed down``.

All three call :func:`tear_down`. Only the standard library; the watchdog runs this.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from testbed import pids as processes
from testbed.emulated.cleanup.state import RunState
from testbed.pids import Process

PATIENCE_S = 2.0  # between SIGTERM and SIGKILL


def tear_down(state: RunState, patience_s: float = PATIENCE_S) -> list[str]:
    """Ends the run's processes, with them its namespaces and interfaces, and forgets the record.

    A namespace belongs to the run if one of its recorded, still living processes is in it, so every
    process in there was started by the run or through it.

    Args:
      state: the run's record.
      patience_s: how long node processes may take to end after SIGTERM.

    Returns:
      What could not be removed, in words (the record then stays); empty if nothing is left.
    """
    shells = [shell for shell in state.shells if processes.alive(shell)]
    recorded = [process for process in state.others if processes.alive(process)]
    owned = _namespaces(state, [*shells, *recorded])
    guests = {*processes.members(owned), *recorded} - set(shells)
    left = processes.end(guests, patience_s)
    left += processes.end(set(processes.members(owned)) - set(shells), 0.0)  # started meanwhile
    left += processes.end(shells, 0.0)  # interactive shells ignore SIGTERM
    complaints = [f"process {process.pid} does not end" for process in left]
    complaints += _remove_interfaces(state.prefix)
    if not complaints:
        state.forget()
    return complaints


def _namespaces(state: RunState, living: Iterable[Process]) -> set[str]:
    """The run's network namespaces: those of its processes, but never one that was there before."""
    outside = {processes.namespace(pid) for pid in (1, os.getpid(), state.owner.pid)}
    found = {processes.namespace(process.pid) for process in living} - outside
    return {name for name in found if name is not None}


def _remove_interfaces(prefix: str) -> list[str]:
    """Removes the run's interfaces that were left outside its namespaces by a broken start."""
    complaints = []
    for interface in Path("/sys/class/net").glob(f"{prefix}-*"):
        done = subprocess.run(
            ["ip", "link", "del", interface.name], capture_output=True, text=True, check=False
        )
        if done.returncode and interface.exists():
            complaints.append(f"interface {interface.name}: {done.stderr.strip()}")
    return complaints
