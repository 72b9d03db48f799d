"""Hands out test files to the processes of pytest-xdist; what measures has the machine alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

EMULATED = "emulated"  # tests that mostly wait: one process, from the start, beside the others
ALONE = "alone"  # tests that measure: one process at the end, when the others rest
MARKS = (ALONE, EMULATED)  # the first of them that a test has decides


class HandOut(LoadScopeScheduling):
    """One file at a time to each process, the emulated tests to one, then ``alone`` ones to one.

    Emulated WANs never exist beside each other: their tests look for what was left behind.

    Args:
      config: pytest's.
      log: pytest-xdist's.
      read_marks: reads, by the name of a test, which of ``MARKS`` it has, once these are collected.
    """

    def __init__(
        self, config: pytest.Config, log: Any, read_marks: Callable[[], Mapping[str, str]]
    ):
        super().__init__(config, log)
        self._read_marks = read_marks
        self._marks: Mapping[str, str] = {}

    def schedule(self) -> None:
        """Hands out the first files, or goes on after a process was replaced."""
        self._marks = self._read_marks()
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return self._marks.get(nodeid) or nodeid.partition("::")[0]

    def _assign_work_unit(self, node: WorkerController) -> None:
        if EMULATED in self.workqueue:
            self.workqueue.move_to_end(EMULATED, last=False)
        if ALONE in self.workqueue:
            self.workqueue.move_to_end(ALONE)
        if next(iter(self.workqueue)) != ALONE or not self._others_busy(node):
            super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        if list(self.workqueue) != [ALONE]:
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
