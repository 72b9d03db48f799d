"""An asyncio event loop whose clock jumps.

When every task waits, the clock moves to the next scheduled callback; callbacks of equal time run
in the order in which they were scheduled. Whatever could make two runs differ, or wait for the
real world (threads, sockets, subprocesses, signals), is refused, and an error in a callback, which
asyncio would only log, ends the simulation.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from heapq import heapify, heappop, heappush
from typing import Any, NoReturn, TypeVar

from geojax.errors import GeojaxError

T = TypeVar("T")
_FEW = 1000  # cancelled timers that are not worth clearing away

Entry = list[Any]
"""What is due at a time: the time, its number in order of scheduling, callback and argument.

Without a callback it is cancelled, or has been called.
"""


class NothingLeft(GeojaxError):
    """Every task of a simulation waits, and nothing is scheduled that could wake one."""


class Event:
    """A scheduled call that can be cancelled, as :class:`asyncio.TimerHandle` but lighter."""

    __slots__ = ("_entry", "_loop")

    def __init__(self, loop: VirtualLoop, entry: Entry):
        self._loop, self._entry = loop, entry

    def cancel(self) -> None:
        """Does not call; does nothing if it has called already."""
        self._loop.cancel(self._entry)


class _Soon(asyncio.Handle):
    """A handle without what only debugging needs."""

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ):
        self._callback, self._args = callback, args  # type: ignore[assignment]
        self._context = copy_context() if context is None else context  # type: ignore[misc]
        self._cancelled = False

    def cancel(self) -> None:
        """Does not call."""
        self._cancelled = True

    def _run(self) -> None:
        self._context.run(self._callback, *self._args)  # type: ignore[attr-defined]


class _Timer(asyncio.TimerHandle):
    """The same for a time to come."""

    __slots__ = ("_entry",)

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...],
        loop: VirtualLoop, context: Context | None,
    ):  # fmt: skip
        self._when, self._loop = when, loop  # type: ignore[misc]
        self._callback, self._args = callback, args  # type: ignore[assignment]
        self._context = copy_context() if context is None else context  # type: ignore[misc]
        self._cancelled = False
        self._entry: Entry = loop.at(when, _Timer._run, self)

    def cancel(self) -> None:
        """Does not call; does nothing if it has called already."""
        self._cancelled = True
        self._loop.cancel(self._entry)  # type: ignore[attr-defined]
        self._entry = []

    def _run(self) -> None:
        self._entry = []
        self._context.run(self._callback, *self._args)  # type: ignore[attr-defined]


class Turn:
    """A callback that :meth:`VirtualLoop.take_turn` schedules again and again."""

    __slots__ = ("_cancelled", "_run")

    def __init__(self, callback: Callable[[], None]):
        self._cancelled, self._run = False, callback


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop on virtual time, starting at 0 s."""

    _ready: Any  # asyncio's queue of handles that run next
    _stopping: bool
    _closed: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._number = 0
        self._cancelled = 0
        self._timers: list[Entry] = []
        self._endings: list[Callable[[], None]] = []
        self._error: BaseException | None = None

    def __del__(self) -> None:
        """Nothing to close: it has no sockets and no threads, and may be half made when it ends."""

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Schedules a callback for this instant, behind all that are scheduled for it."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        handle = _Soon(callback, args, context)
        self._ready.append(handle)
        return handle

    def take_turn(self, turn: Turn) -> None:
        """As :meth:`call_soon`, but makes nothing; the turn must be over before its next one."""
        self._ready.append(turn)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedules a callback; one whose time is past runs at once, in its turn."""
        return _Timer(when, callback, args, self, context)

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedules a callback in so many seconds."""
        return _Timer(self._now + delay, callback, args, self, context)

    def schedule(self, when: float, callback: Callable[..., object], *args: Any) -> Event:
        """As :meth:`call_at`, for the simulation itself; the callback runs in no context."""
        return Event(self, self.at(when, _call, (callback, args)))

    def at(self, when: float, callback: Callable[[Any], object], argument: Any) -> Entry:
        """The same for a callback of one argument, millions of which are scheduled.

        Returns:
          What :meth:`cancel` takes.
        """
        if when < self._now:
            when = self._now
        self._number += 1
        entry = [when, self._number, callback, argument]
        heappush(self._timers, entry)
        return entry

    def cancel(self, entry: Entry) -> None:
        """Does not call what :meth:`at` scheduled; does nothing if it is called already.

        Cancelled entries are dropped when their time comes, or when they are the majority.
        """
        if not entry or entry[2] is None:
            return
        entry[2] = entry[3] = None
        self._cancelled += 1
        if self._cancelled > _FEW and 2 * self._cancelled > len(self._timers):
            timers = self._timers
            timers[:] = [entry for entry in timers if entry[2] is not None]
            heapify(timers)
            self._cancelled = 0

    def call_at_instant_end(self, callback: Callable[[], None]) -> None:
        """Schedules a callback for when nothing else is left to do at this instant.

        What it schedules for the same instant still runs before the clock moves.
        """
        self._endings.append(callback)

    def _run_once(self) -> None:
        """Runs until the loop is told to stop, where asyncio's loops take one step.

        An error of a callback ends the loop when all has run that was due with it.
        """
        ready, timers = self._ready, self._timers
        while not self._stopping:
            if ready:
                self._run_ready()
            elif self._endings and not (timers and timers[0][0] == self._now):
                endings, self._endings = self._endings, []
                for ending in endings:
                    ending()
            elif timers:
                self._run_due()
            else:
                raise NothingLeft(f"at {self._now:.6f} s: {self._waiting()}")
            if self._error is not None:
                error, self._error = self._error, None
                raise error

    def _run_ready(self) -> None:
        """Runs what is ready now, and not what becomes ready by it."""
        ready = self._ready
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            try:
                handle._run()
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - it ends the loop
                self._error = self._error or error

    def _run_due(self) -> None:
        """Moves the clock to the next time at which anything is due, and runs that."""
        timers = self._timers
        entry = heappop(timers)
        if entry[2] is None:
            self._cancelled -= 1
            return
        self._now = when = entry[0]
        due = [entry]
        if timers and timers[0][0] == when:
            due = self._due_with(entry)
        for entry in due:
            callback, entry[2] = entry[2], None
            if callback is None:  # cancelled by one that was due with it
                self._cancelled -= 1
                continue
            try:
                callback(entry[3])
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - it ends the loop
                self._error = self._error or error

    def _due_with(self, first: Entry) -> list[Entry]:
        """All that is due at an instant, in order; ``first`` has been taken out already."""
        timers, due = self._timers, [first]
        while timers and timers[0][0] == first[0]:
            due.append(heappop(timers))
        return due

    def _waiting(self) -> str:
        tasks = sorted(task.get_name() for task in asyncio.all_tasks(self))
        return "all tasks wait for each other: " + ", ".join(tasks)

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


def _call(what: tuple[Callable[..., object], tuple[Any, ...]]) -> None:
    callback, args = what
    callback(*args)


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
