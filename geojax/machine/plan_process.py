"""A process of its own for plans: they may take seconds, and the event loop must not wait.

The process is spawned, never forked, and ends with its parent, however that ends. Its pipe carries
Python objects of one program on one machine; bytes of other nodes or hosts never enter it.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from multiprocessing import connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

from geojax.errors import GeojaxError

T = TypeVar("T")
ORPHANED = 5  # exit code


class PlanProcess:
    """Runs one plan after another in a process that is started with the first of them."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._waiter = ThreadPoolExecutor(1, "plan")  # one plan at a time
        self._guard = threading.Lock()  # over starting the process and ending it
        self._process: Any = None
        self._closed = False

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Returns ``work(*args)``, computed after all plans that were asked for before.

        Args:
          work: a function of a module.
          args: picklable, and so must be what it returns.

        Raises:
          GeojaxError: the process ended before it had an answer; the next plan gets a new one.
          Exception: whatever ``work`` raised, with its traceback there as a note.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._waiter, self._ask, work, *args
        )

    def close(self) -> None:
        """Ends the process, with the plan that is under way."""
        with self._guard:
            self._closed = True
            if self._process is not None:
                self._process.kill()
                self._process.join()
        self._waiter.shutdown(cancel_futures=True)

    def _ask(self, work: Callable[..., T], *args: Any) -> T:
        self._start()
        try:
            self._pipe.send((work, args))
            worked, result = self._pipe.recv()
        except (EOFError, ConnectionError):
            with self._guard:
                self._process.join()
                code, self._process = self._process.exitcode, None
            raise GeojaxError(
                f"the process that plans ended with code {code} and no plan (negative: a signal; "
                "-9 is often a lack of memory)"
            ) from None
        if worked:
            return result
        raise result

    def _start(self) -> None:
        with self._guard:
            if self._closed:
                raise GeojaxError("the process that plans is closed")
            if self._process is not None:
                return
            self._pipe, theirs = self._context.Pipe()
            self._process = self._context.Process(
                target=_serve, args=(theirs,), name="plan", daemon=True
            )
            self._process.start()
            theirs.close()


def _serve(pipe: connection.Connection) -> None:
    """The process: answers what it is asked until its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    while _answer(pipe):
        pass


def _answer(pipe: connection.Connection) -> bool:
    """Answers one question; returns whether there was one."""
    work = None
    try:
        work, args = pipe.recv()
        pipe.send((True, work(*args)))  # what cannot travel fails before a byte is sent
    except Exception as error:  # noqa: BLE001 - it is raised where the plan was asked for
        if work is None and isinstance(error, EOFError | ConnectionError):
            return False
        error.add_note("in the process that plans:\n" + traceback.format_exc())
        pipe.send((False, _able_to_travel(error)))
    return True


def _able_to_travel(error: Exception) -> Exception:
    try:
        ForkingPickler.dumps(error)
        copy(error)  # rebuilds it, as the other side will
    except Exception:  # noqa: BLE001 - its text can travel
        return GeojaxError("".join(traceback.format_exception(error)))
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(ORPHANED)
