"""Hands out test files to the processes of pytest-xdist; one of them has all emulated WANs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

EMULATED = "emulated"  # tests that measure rates and times: one process, when the loud ones end
# Folders whose tests compute in their process's one thread and start no other: emulated WANs, whose
# tests go before them (tests/conftest.py), find a processor beside one or two of these.
QUIET_FOLDERS = (
    "tests/compression",
    "tests/federated",
    "tests/hips",
    "tests/models",
    "tests/overlay",
    "tests/selection",
    "tests/sync",
)
LOUD = {  # but of these folders
    "tests/compression/test_compiled.py",
    "tests/hips/test_auxiliary_runs.py",
    "tests/hips/test_global_server.py",
    "tests/hips/test_stop_at_target.py",
    "tests/selection/test_gbp_cs.py",
    "tests/sync/test_diloco.py",
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
    What measures rates has a processor, which processes that start beside it would take: beside it
    are quiet files only.
    """
    places: dict[str, tuple[int, int]] = {}
    count: Counter[str] = Counter()
    for unit in units:
        folder = unit.rpartition("/")[0]
        quiet = folder in QUIET_FOLDERS and unit not in LOUD
        places[unit] = (1 if unit == EMULATED else 2 * quiet, count[folder])
        count[folder] += 1
    return sorted(places, key=places.__getitem__)
