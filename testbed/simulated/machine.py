"""A machine on virtual time: work costs what a table says, and may be done in another thread.

The event loop never waits for a thread but where virtual time needs what it computes, and it learns
nothing of when that was done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

from geojax.config import PaceConfig
from geojax.machine.machine import PriorityLock, sleep
from testbed.simulated.cores import Inline
from testbed.simulated.loop import virtual_loop

T = TypeVar("T")


class VirtualMachine:
    """One node's machine; see :class:`geojax.machine.machine.Machine`.

    Steps last their pace. Host work is done by one core after another: a piece of work starts when
    the one before it is done. No measured duration is ever charged.

    Args:
      pace: the table of host work.
      core: computes the steps; None: the caller's thread.
    """

    def __init__(self, pace: PaceConfig, core: Executor | None = None):
        self.violations = 0
        self.steps = 0
        self._pace, self._core = pace, core or Inline()
        self._loop = virtual_loop()
        gbps = {"encode": pace.encode_gbps, "sum": pace.sum_gbps, "outer": pace.outer_gbps}
        self._bytes_per_s = {kind: rate * 1e9 for kind, rate in gbps.items()}
        self._free_at = 0.0
        self._frozen_s = 0.0
        self._stopped = False
        self._planning = PriorityLock()

    async def compute(
        self,
        work: Callable[[], T],
        seconds: float,
        *,
        follows: bool = False,
        ends: int = 1,
        cut: asyncio.Future[None] | None = None,
    ) -> T:
        """Lets the pace of the step, or of a part of one, pass, while it is computed.

        It is not computed any more if its node dies before.

        Raises:
          Exception: whatever ``work`` raised, at the end of the step.
        """
        del follows  # nothing is ever late here
        computed = self._core.submit(work)
        try:
            await self._last(seconds, cut)
        except asyncio.CancelledError:
            computed.cancel()  # if it runs already, nobody will look at what it changes
            raise
        result = computed.result()
        self.steps += ends
        return result

    async def _last(self, seconds: float, cut: asyncio.Future[None] | None = None) -> None:
        done = self._frozen_s + seconds
        end = self._loop.time() + seconds
        while self._loop.time() < end and not (cut is not None and cut.done()):
            await sleep(end - self._loop.time(), cut)
            end += self._frozen_s + seconds - done
            done = self._frozen_s + seconds

    def freeze(self, seconds: float) -> None:
        """Does nothing from now on for so long: what is under way lasts longer by that."""
        self._frozen_s += seconds
        self._free_at = max(self._free_at, self._loop.time()) + seconds

    def stop(self) -> None:
        """Does nothing any more, as its node is dead: host work under way never ends."""
        self._stopped = True

    def after(self, kind: str, nbytes: int, then: Callable[[], None]) -> None:
        """Calls ``then`` when the host core has done all work before and this."""
        if self._stopped:
            return
        cost = nbytes / self._bytes_per_s[kind]
        now = self._loop.time()
        if cost == 0 and self._free_at <= now:
            then()
            return
        self._free_at = max(self._free_at, now) + cost
        self._loop.at(self._free_at, self._end, then)

    def _end(self, then: Callable[[], None]) -> None:
        if not self._stopped:
            then()

    async def host(self, kind: str, nbytes: int, work: Callable[[], T]) -> T:
        """Does the work now and lets its cost pass."""
        result = work()
        done = self._loop.create_future()

        def finish() -> None:
            if not done.cancelled():
                done.set_result(None)

        self.after(kind, nbytes, finish)
        await done
        return result

    async def aside(self, work: Callable[[], T]) -> T:
        """Costs nothing."""
        return work()

    async def plan(self, work: Callable[..., T], *args: Any, urgent: bool = False) -> T:
        """Plans now and lets the cost of a plan pass, beside all other work of the host.

        Plans wait for each other as they do for a real machine's only process.
        """
        result = work(*args)
        async with self._planning.turn(urgent=urgent):
            await self._last(self._pace.plan_s)
        return result
