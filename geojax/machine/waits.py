"""Waiting: bounded, named, logged, and in a fixed order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from geojax.errors import WaitTimeout

T = TypeVar("T")
log = logging.getLogger("geojax.hips")


async def wait_for(
    what: Awaitable[T], *, describe: Callable[[], str], timeout: float, warn: float
) -> T:
    """Waits, and says what for.

    Args:
      what: what is awaited; it is cancelled when the time is over.
      describe: says at any moment what is awaited and from whom, e.g. ``"chunk 3 from c2"``.
      timeout: s after which ``WaitTimeout`` is raised.
      warn: s after which, and again every so often, the wait is logged.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    pending = asyncio.ensure_future(what)

    def complain() -> None:
        nonlocal timer
        log.warning("waiting for %s since %.1f s", describe(), loop.time() - started)
        timer = loop.call_later(warn, complain)

    timer = loop.call_later(warn, complain)
    try:
        async with asyncio.timeout(timeout):
            return await pending
    except TimeoutError:
        if pending.done() and not pending.cancelled():
            return pending.result()
        raise WaitTimeout(
            f"no {describe()} within {timeout:g} s; is the WAN cut, a node overloaded, or "
            f"the timeout (timeouts.*) too short?"
        ) from None
    finally:
        timer.cancel()
        pending.cancel()


async def first_failure(tasks: Sequence[asyncio.Future]) -> None:
    """Waits until all tasks are done, or until one fails: then the rest is cancelled, in order.

    ``asyncio.wait`` and ``TaskGroup`` go by memory address where they have a choice; this goes by
    the order of ``tasks``, so simulated runs stay reproducible.
    """
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    left = len(tasks)

    def done(task: asyncio.Future) -> None:
        nonlocal left
        left -= 1
        failed = not task.cancelled() and task.exception() is not None
        if (failed or left == 0) and not finished.done():
            finished.set_result(task if failed else None)

    for task in tasks:
        task.add_done_callback(done)
    try:
        failure = await finished if tasks else None
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
        for task in tasks:
            await asyncio.gather(task, return_exceptions=True)
    if failure is not None:
        raise failure.exception()
