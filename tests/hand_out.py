"""Hands out test files to the processes of pytest-xdist; one of them has all emulated WANs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

EMULATED = "emulated"  # tests that measure rates and times: one process, when the loud ones end
# Files whose tests compute in one thread, compile nothing and start no process: they leave the
# other processors to those. Together they last about as long.
QUIET_FOLDERS = ("tests/compression", "tests/overlay")
LOUD = {"tests/compression/test_compiled.py"}  # but of these folders
QUIET = {
    *(f"tests/hips/test_{name}.py" for name in ("asynchronous", "control_fuzz", "cut_markers")),
    *(f"tests/hips/test_{name}.py" for name in ("exchange", "exchange_membership")),
    *(f"tests/hips/test_{name}.py" for name in ("exchange_policies", "independent_members")),
    *(f"tests/hips/test_{name}.py" for name in ("kills", "late_payloads", "push_pull")),
    *(f"tests/hips/test_{name}.py" for name in ("schedules", "server_membership")),
    "tests/sync/test_broken_members.py",
    "tests/wire/test_frame.py",
}


class HandOut(LoadScopeScheduling):
    """One file at a time to each process, in turn of folders; the emulated tests to one.

    Emulated WANs never exist beside each other: their tests look for what was left behind.

    Args:
      config: pytest's.
      log: pytest-xdist's.
      read_emulated: reads the names of the emulated tests, once these are collected.
    """

    def __init__(
        self, config: pytest.Config, log: Any, read_emulated: Callable[[], Collection[str]]
    ):
        super().__init__(config, log)
        self._read_emulated = read_emulated
        self._emulated: frozenset[str] = frozenset()
        self._names: Collection[str] = ()

    def schedule(self) -> None:
        """Hands out the first files, or goes on after a process was replaced."""
        self._emulated = frozenset(self._read_emulated())
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return EMULATED if nodeid in self._emulated else nodeid.partition("::")[0]

    def _assign_work_unit(self, node: WorkerController) -> None:
        if self._names != self.workqueue.keys():  # new ones, perhaps again: a process was replaced
            for unit in in_turn(self.workqueue):
                self.workqueue.move_to_end(unit)
        super()._assign_work_unit(node)
        self._names = set(self.workqueue)


def in_turn(units: Iterable[str]) -> list[str]:
    """A file of each folder in turn, small folders end before large ones; then the emulated tests.

    So files that start processes and wait for them, neighbours in a folder, run beside others.
    What measures rates has a processor, which programs that compile beside it would take: beside it
    are quiet files only.
    """
    places: dict[str, tuple[int, int]] = {}
    count: Counter[str] = Counter()
    for unit in units:
        folder = unit.rpartition("/")[0]
        quiet = unit in QUIET or (folder in QUIET_FOLDERS and unit not in LOUD)
        places[unit] = (1 if unit == EMULATED else 2 * quiet, count[folder])
        count[folder] += 1
    return sorted(places, key=places.__getitem__)
