"""Work beside a run; its first error ends the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from geojax.errors import GeojaxError


class Background:
    """Work beside a run.

    Args:
      fail: called with the error of any task.
    """

    def __init__(self, fail: Callable[[BaseException], None]):
        self._fail = fail
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Does something beside the run."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._ended)

    def check(self, work: Callable[[], None]) -> None:
        """Does something at once, for a caller that can do nothing about an error."""
        try:
            work()
        except GeojaxError as error:
            self._fail(error)

    def stop(self) -> None:
        """Cancels all tasks."""
        for task in self._tasks:
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)
