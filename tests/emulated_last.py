"""Hands out test files to the processes of pytest-xdist; the emulated WAN has the machine alone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

EMULATED = "emulated"


class EmulatedLast(LoadScopeScheduling):
    """One file at a time to each process; then all emulated tests to one, when the others rest.

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
            self.workqueue.move_to_end(EMULATED)
        if next(iter(self.workqueue)) != EMULATED or not self._others_busy(node):
            super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        if list(self.workqueue) != [EMULATED]:
            super()._reschedule(node)
            return
        # A process keeps its last test until it is told what follows, or that nothing does.
        first, *others = [each for each in self.nodes if not each.shutting_down] or [node]
        for other in others:
            other.shutdown()
        if not self._others_busy(first):
            super()._reschedule(first)

    def _others_busy(self, node: WorkerController) -> bool:
        work = self.assigned_work
        return any(self._pending_of(work[each]) for each in work if each is not node)
