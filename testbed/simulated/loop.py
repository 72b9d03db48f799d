"""An asyncio event loop whose clock jumps.

When every task waits, the clock moves to the next scheduled callback; callbacks of equal time run
in the order in which they were scheduled. Whatever could make two runs differ, or wait for the
real world (threads, sockets, subprocesses, signals), is refused.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from geojax.errors import GeojaxError

T = TypeVar("T")


class NothingLeft(GeojaxError):
    """Every task of a simulation waits, and nothing is scheduled that could wake one."""


class _Timer(asyncio.TimerHandle):
    """A timer that is ordered by time, then by when it was scheduled."""

    __slots__ = ("number",)
    number: int

    def __lt__(self, other: Any) -> bool:
        return (self._when, self.number) < (other._when, other.number)  # type: ignore[attr-defined]


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop on virtual time, starting at 0 s."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._number = 0

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def call_at(self, when: float, callback: Callable, *args: Any, context: Any = None) -> _Timer:
        """Schedules a callback; one whose time is past runs at once, in its turn."""
        self._check_closed()  # type: ignore[attr-defined]
        timer = _Timer(max(when, self._now), callback, args, self, context)
        timer.number = self._number
        self._number += 1
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        if not ready:
            while scheduled and scheduled[0]._cancelled:
                heapq.heappop(scheduled)._scheduled = False
            if scheduled:
                self._now = scheduled[0]._when
                while scheduled and scheduled[0]._when == self._now:
                    timer = heapq.heappop(scheduled)
                    timer._scheduled = False
                    ready.append(timer)
            elif not self._stopping:  # type: ignore[attr-defined]
                raise NothingLeft(f"at {self._now:.6f} s: {self._waiting()}")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _waiting(self) -> str:
        tasks = sorted(task.get_name() for task in asyncio.all_tasks(self))
        return "all tasks wait for each other: " + ", ".join(tasks)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when their time comes."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in this loop, so nobody needs waking."""

    def _process_events(self, event_list: Any) -> None:
        """There are no file events here."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError("a simulation may not use threads, sockets, signals or subprocesses")

    run_in_executor = _refuse  # type: ignore[assignment]
    call_soon_threadsafe = _refuse  # type: ignore[assignment]
    create_connection = _refuse  # type: ignore[assignment]
    create_server = _refuse  # type: ignore[assignment]
    create_datagram_endpoint = _refuse  # type: ignore[assignment]
    subprocess_exec = _refuse  # type: ignore[assignment]
    subprocess_shell = _refuse  # type: ignore[assignment]
    add_reader = _refuse
    add_writer = _refuse
    add_signal_handler = _refuse


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end on a fresh virtual clock; left-over tasks are cancelled."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        try:
            left = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
