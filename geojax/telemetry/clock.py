"""Experiment time: seconds since every node was ready."""

from __future__ import annotations

import asyncio


class Clock:
    """Reads the event loop's clock, from the instant that the scheduler named as time 0.

    Attributes:
      started: set when time 0 is known (it may still lie ahead).
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = self._begins = self._loop.time()
        self.started = asyncio.Event()

    def __call__(self) -> float:
        """Experiment time now, s; negative before the start."""
        return self._loop.time() - self._start

    def at(self, loop_time: float) -> float:
        """Experiment time at an instant of the loop's clock, s."""
        return loop_time - self._start

    def start_at(self, start: float, time: float = 0.0) -> None:
        """Says that at loop time ``start`` the experiment time is ``time``."""
        self._start, self._begins = start - time, start
        self.started.set()

    async def until_start(self) -> None:
        """Waits for the instant that :meth:`start_at` named."""
        await asyncio.sleep(max(0.0, self._begins - self._loop.time()))
