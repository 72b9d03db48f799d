"""Sees to it that a run is torn down however its process ends."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from testbed.emulated.cleanup.state import RunState
from testbed.emulated.launch import python_module

WATCHDOG_END_S = 5.0


class Guard:
    """Ways to the end: SIGTERM, interpreter exit, and a watchdog for SIGKILL.

    SIGINT needs nothing: KeyboardInterrupt unwinds through the context manager. A SIGTERM or
    SIGHUP that would have killed the process outright now unwinds it too (``SystemExit``);
    handlers that the program has set itself stay in place.

    Args:
      state: the run's record, already saved.
      stop: tears the run down; may be called several times.
    """

    def __init__(self, state: RunState, stop: Callable[[], object]):
        self._stop = stop
        self._owner = os.getpid()
        self._previous: dict[signal.Signals, Any] = {}
        argv, environment = python_module("testbed.emulated.cleanup.watchdog", str(state.path))
        self._watchdog = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        atexit.register(self._at_exit)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:
                    self._previous[number] = signal.signal(number, _unwind)

    def release(self) -> None:
        """The run is torn down: the watchdog finds no record, and ends."""
        atexit.unregister(self._at_exit)
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._previous.items():
                signal.signal(number, handler)
        self._previous.clear()
        assert self._watchdog.stdin
        self._watchdog.stdin.close()
        try:
            self._watchdog.wait(WATCHDOG_END_S)
        except subprocess.TimeoutExpired:
            self._watchdog.kill()
            self._watchdog.wait()

    def _at_exit(self) -> None:
        if os.getpid() == self._owner:  # not in a forked child
            self._stop()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Puts off SIGINT, SIGTERM and SIGHUP until the block is done (some seconds at most).

    Handlers are replaced, not signals blocked: another thread would still take a blocked one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    put_off: list[int] = []
    previous = {
        number: signal.signal(number, lambda number, _frame: put_off.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for number in put_off:
            signal.raise_signal(number)


def _unwind(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
