"""Hands out test files to the processes of pytest-xdist; one of them has all emulated WANs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

EMULATED = "emulated"  # tests that mostly wait: one process, from the start, beside the others


class HandOut(LoadScopeScheduling):
    """One file at a time to each process, the emulated tests to one.

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

    def schedule(self) -> None:
        """Hands out the first files, or goes on after a process was replaced."""
        self._emulated = frozenset(self._read_emulated())
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return EMULATED if nodeid in self._emulated else nodeid.partition("::")[0]

    def _assign_work_unit(self, node: WorkerController) -> None:
        if EMULATED in self.workqueue:
            self.workqueue.move_to_end(EMULATED, last=False)
        super()._assign_work_unit(node)
