"""What a node computes on: a real machine, or one that is charged to a virtual clock.

Protocol code never measures its own work. It hands work to a machine. *Compute* (steps on the
center's devices) is stretched to its emulated duration. *Host work* (encode, sum, outer step) takes
its real time on a real machine, and time from a table on a virtual one. A *plan* is made in a
process of its own on a real machine, and charged from the table on a virtual one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from geojax.machine.plan_process import PlanProcess

T = TypeVar("T")
OVERTAKEN_AT_MOST = 8  # plans that go before one that came earlier


class Machine(Protocol):
    """Where a node's work is done."""

    violations: int  # steps that took longer than their pace
    steps: int  # steps in all

    async def compute(
        self,
        work: Callable[[], T],
        seconds: float,
        *,
        follows: bool = False,
        ends: int = 1,
        cut: asyncio.Future[None] | None = None,
    ) -> T:
        """Runs a step of the devices, or a part of one or of several, so that it lasts ``seconds``.

        Args:
          work: what to run.
          seconds: of experiment time.
          follows: it is a part that starts right after the part before it, without a wait for
            others.
          ends: steps that end with it.
          cut: when this is done, the step lasts no longer than the devices need.
        """
        ...

    def after(self, kind: str, nbytes: int, then: Callable[[], None]) -> None:
        """Calls ``then`` when host work of this kind over ``nbytes`` would be done."""
        ...

    async def host(self, kind: str, nbytes: int, work: Callable[[], T]) -> T:
        """Does host work that is worth leaving the event loop for."""
        ...

    async def aside(self, work: Callable[[], T]) -> T:
        """Does work that costs no experiment time (writing a snapshot, evaluating)."""
        ...

    async def plan(self, work: Callable[..., T], *args: Any, urgent: bool = False) -> T:
        """Returns ``work(*args)``, computed in a process of its own; one plan at a time.

        Args:
          work: a function of a module, so that another process finds it.
          args: picklable, and so must be what it returns.
          urgent: it is made before all plans that wait and are not urgent.

        Raises:
          Exception: whatever ``work`` raised.
        """
        ...


class RealMachine:
    """Real time: steps run in a thread and are stretched to their pace, never shortened.

    A step in parts keeps its pace as a whole: after a part that ended late, the next one is
    stretched by less. So do several steps that are one program. (A part may be shorter than the
    call of the devices itself.)
    """

    def __init__(self) -> None:
        self.violations = 0
        self.steps = 0
        self._due = 0.0  # loop time at which the last part should have ended
        self._paced = False  # the step under way has a pace
        self._devices = ThreadPoolExecutor(1, "devices")
        self._aside = ThreadPoolExecutor(1, "aside")
        self._plans, self._planning = PlanProcess(), PriorityLock()

    async def compute(
        self,
        work: Callable[[], T],
        seconds: float,
        *,
        follows: bool = False,
        ends: int = 1,
        cut: asyncio.Future[None] | None = None,
    ) -> T:
        """See :meth:`Machine.compute`; a step slower than its pace is counted as a violation."""
        loop = asyncio.get_running_loop()
        self._due = (self._due if follows else loop.time()) + seconds
        self._paced |= seconds > 0
        result = await loop.run_in_executor(self._devices, work)
        left = self._due - loop.time()
        if left > 0:
            await sleep(left, cut)
        if ends:
            self.steps += ends
            self.violations += ends * (self._paced and left < 0)
            self._paced = False
        return result

    def after(self, kind: str, nbytes: int, then: Callable[[], None]) -> None:
        """The work is part of ``then`` and takes what it takes."""
        del kind, nbytes
        then()

    async def host(self, kind: str, nbytes: int, work: Callable[[], T]) -> T:
        """Runs in the devices' thread, so that the event loop goes on moving chunks."""
        del kind, nbytes
        return await asyncio.get_running_loop().run_in_executor(self._devices, work)

    async def aside(self, work: Callable[[], T]) -> T:
        """Runs in a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, work)

    async def plan(self, work: Callable[..., T], *args: Any, urgent: bool = False) -> T:
        """See :meth:`Machine.plan`; the process is started with the first plan."""
        async with self._planning.turn(urgent=urgent):
            return await self._plans.run(work, *args)

    def close(self) -> None:
        """Ends the threads and the process."""
        self._plans.close()
        self._devices.shutdown(cancel_futures=True)
        self._aside.shutdown(cancel_futures=True)


async def sleep(seconds: float, cut: asyncio.Future[None] | None) -> None:
    """Waits so long, or until ``cut`` is done."""
    if cut is None:
        await asyncio.sleep(seconds)
    elif not cut.done():
        loop = asyncio.get_running_loop()
        over = loop.create_future()

        def end(*_: object) -> None:
            if not over.done():
                over.set_result(None)

        timer = loop.call_later(seconds, end)
        cut.add_done_callback(end)
        try:
            await over
        finally:
            timer.cancel()
            cut.remove_done_callback(end)


class PriorityLock:
    """A lock that urgent waiters get before others, but not before one that has let enough pass.

    A waiter that is not urgent is overtaken by :data:`OVERTAKEN_AT_MOST` that came after it.
    """

    def __init__(self) -> None:
        self._taken = False
        self._waiting: list[_Waiter] = []  # in order of coming

    @asynccontextmanager
    async def turn(self, *, urgent: bool = False) -> AsyncIterator[None]:
        """Waits for a turn, which lasts as long as the ``async with``.

        Args:
          urgent: comes before all waiters that are not.
        """
        await self._take(urgent)
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self, urgent: bool) -> None:
        if not self._taken:
            self._taken = True
            return
        mine = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiter(urgent, mine))
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():  # it was its turn already
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        self._waiting = [waiter for waiter in self._waiting if not waiter.turn.done()]
        if not self._waiting:
            self._taken = False
            return
        following = min(self._waiting, key=lambda waiter: not waiter.first)
        at = self._waiting.index(following)
        for overtaken in self._waiting[:at]:
            overtaken.overtaken += 1
        del self._waiting[at]
        following.turn.set_result(None)


@dataclass(eq=False)
class _Waiter:
    urgent: bool
    turn: asyncio.Future[None]
    overtaken: int = 0  # by how many

    @property
    def first(self) -> bool:
        return self.urgent or self.overtaken >= OVERTAKEN_AT_MOST
