"""An asyncio event loop whose clock jumps.

When every task waits, the clock moves to the next scheduled callback; callbacks of equal time run
in the order in which they were scheduled. Whatever could make two runs differ, or wait for the
real world (threads, sockets, subprocesses, signals), is refused, and an error in a callback, which
asyncio would only log, ends the simulation.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, NoReturn, TypeVar

from geojax.errors import GeojaxError

T = TypeVar("T")
_FEW = 1000  # cancelled timers that are not worth clearing away


class NothingLeft(GeojaxError):
    """Every task of a simulation waits, and nothing is scheduled that could wake one."""


class Event:
    """A scheduled call, as :class:`asyncio.TimerHandle` but lighter: it runs in no context."""

    __slots__ = ("_args", "_callback", "_cancelled", "_loop", "_scheduled")

    def __init__(self, loop: VirtualLoop, callback: Callable[..., object], args: tuple[Any, ...]):
        self._loop, self._callback, self._args = loop, callback, args
        self._cancelled = False
        self._scheduled = True

    def cancel(self) -> None:
        """Does not call; does nothing if it has called already."""
        if not self._cancelled:
            self._cancelled = True
            self._loop._timer_handle_cancelled(self)

    def _run(self) -> None:
        self._callback(*self._args)


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop on virtual time, starting at 0 s."""

    _ready: Any  # asyncio's queue of handles that run next
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._number = 0
        self._cancelled = 0
        self._timers: list[tuple[float, int, Any]] = []  # time, number, timer or event
        self._endings: list[Callable[[], None]] = []
        self._error: BaseException | None = None

    def __del__(self) -> None:
        """Nothing to close: it has no sockets and no threads, and may be half made when it ends."""

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedules a callback; one whose time is past runs at once, in its turn."""
        if when < self._now:
            when = self._now
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, timer))
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def schedule(self, when: float, callback: Callable[..., object], *args: Any) -> Event:
        """As :meth:`call_at`, for the simulation itself, which schedules millions of calls."""
        event = Event(self, callback, args)
        if when < self._now:
            when = self._now
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, event))
        return event

    def call_at_instant_end(self, callback: Callable[[], None]) -> None:
        """Schedules a callback for when nothing else is left to do at this instant.

        What it schedules for the same instant still runs before the clock moves.
        """
        self._endings.append(callback)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keeps the error of a callback, with which the loop then ends; reports others."""
        if "handle" in context and self._error is None:
            self._error = context.get("exception")
        else:
            super().call_exception_handler(context)

    def _run_once(self) -> None:
        """Runs until the loop is told to stop, where asyncio's loops take one step."""
        ready = self._ready
        while not self._stopping:
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if not ready and not self._stopping:
                self._advance()

    def _advance(self) -> None:
        """Ends this instant or, when it has ended, makes the next timers ready."""
        timers = self._timers
        if self._endings and not (timers and timers[0][0] == self._now):
            endings, self._endings = self._endings, []
            for ending in endings:
                ending()
            return
        if not timers:
            raise NothingLeft(f"at {self._now:.6f} s: {self._waiting()}")
        when, _, timer = heapq.heappop(timers)
        if not timer._scheduled:
            self._cancelled -= 1
            return
        self._now = when
        while True:
            timer._scheduled = False
            self._ready.append(timer)
            while timers and not timers[0][2]._scheduled:
                heapq.heappop(timers)
                self._cancelled -= 1
            if not timers or timers[0][0] != when:
                return
            timer = heapq.heappop(timers)[2]

    def _waiting(self) -> str:
        tasks = sorted(task.get_name() for task in asyncio.all_tasks(self))
        return "all tasks wait for each other: " + ", ".join(tasks)

    def _timer_handle_cancelled(self, handle: Any) -> None:
        """Cancelled timers are dropped when their time comes, or when they are the majority.

        Those still to come are marked as scheduled.
        """
        if not handle._scheduled:
            return
        handle._scheduled = False
        self._cancelled += 1
        if self._cancelled > _FEW and 2 * self._cancelled > len(self._timers):
            timers = self._timers
            timers[:] = [entry for entry in timers if entry[2]._scheduled]
            heapq.heapify(timers)
            self._cancelled = 0

    def _write_to_self(self) -> None:
        """Nobody sleeps in this loop, so nobody needs waking."""

    def _process_events(self, event_list: Any) -> None:
        """There are no file events here."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        del args, kwargs
        raise RuntimeError("a simulation may not use threads, sockets, signals or subprocesses")

    run_in_executor = _refuse  # type: ignore[assignment]
    call_soon_threadsafe = _refuse  # type: ignore[assignment]
    create_connection = _refuse  # type: ignore[assignment]
    create_server = _refuse  # type: ignore[assignment]
    create_datagram_endpoint = _refuse  # type: ignore[assignment]
    subprocess_exec = _refuse  # type: ignore[assignment]
    subprocess_shell = _refuse  # type: ignore[assignment]
    add_reader = _refuse  # type: ignore[assignment]
    add_writer = _refuse  # type: ignore[assignment]
    add_signal_handler = _refuse  # type: ignore[assignment]


def virtual_loop() -> VirtualLoop:
    """The loop that runs the caller, which must be a simulation's."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise RuntimeError("this needs a simulation's event loop: see run_virtual")
    return loop


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end on a fresh virtual clock; left-over tasks are cancelled.

    Raises:
      KeyboardInterrupt: at whatever line it came, and whatever state the loop was left in.
    """
    loop = VirtualLoop()
    try:
        result = loop.run_until_complete(main)
        _end(loop)
    except KeyboardInterrupt:  # tasks that were cut off in the middle may never end
        loop.set_exception_handler(lambda *_: None)
        asyncio._set_running_loop(None)
        with contextlib.suppress(Exception):
            _end(loop)
        raise
    except BaseException:
        if not loop.is_closed():
            _end(loop)
        raise
    return result


def _end(loop: VirtualLoop) -> None:
    """Cancels the tasks that are left, in the order of their names, and closes the loop."""
    try:
        left = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
