"""Where a member starts, as the scheduler tells it; again, if it comes back and that changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, TypeVar

from geojax.config import TimeoutsConfig
from geojax.errors import SchedulerLost, WaitTimeout
from geojax.machine.waits import wait_for

T = TypeVar("T")


class Start(NamedTuple):
    """How a member begins.

    Attributes:
      at: loop time at which it starts.
      time: experiment time then.
      last: for a member that comes back, the last round that is done; None: the run begins.
      initial_from: who sends the initial vector, if this member's is not the one that counts.
      initial_to: the members that this one sends it to.
      steps: local steps that a member which comes back is known to have taken.
    """

    at: float
    time: float
    last: int | None
    initial_from: str | None = None
    initial_to: tuple[str, ...] = ()
    steps: int | None = None


class StartInbox:
    """What a member is told of its start.

    Args:
      me: the member.
      timeouts: bound the wait.
    """

    def __init__(self, me: str, timeouts: TimeoutsConfig):
        self._me, self._timeouts = me, timeouts
        loop = asyncio.get_running_loop()
        self._first: asyncio.Future[Start] = loop.create_future()
        self._back: Start | None = None  # the last one that this member, which is back, was told
        self._told_again: asyncio.Future[None] = loop.create_future()

    @property
    def came(self) -> bool:
        """Whether it was told."""
        return self._first.done()

    def begin(self, start: Start) -> None:
        """The run begins."""
        if not self.came:
            self._first.set_result(start)

    def come_back(self, start: Start) -> None:
        """This member comes back; or goes on elsewhere, before it had what it was told of."""
        self._back = start
        if not self.came:
            self._first.set_result(start)
        else:
            _wake(self._told_again)

    async def receive(self) -> Start:
        """Waits for the first start.

        Raises:
          SchedulerLost: it has not come in time.
        """
        timeouts = self._timeouts
        try:
            return await wait_for(
                self._first,
                describe=lambda: "start of the run from the scheduler",
                timeout=timeouts.start + timeouts.dead,
                warn=timeouts.warn,
            )
        except WaitTimeout as error:
            raise SchedulerLost(f"{self._me}: {error}") from error

    async def caught_up(self, whole: Callable[[int], Awaitable[T]]) -> tuple[Start, T]:
        """How this member, which is back, begins at last, and what there is after that round.

        Args:
          whole: waits for what there is after a round. If those that held the round die, the
            member is told of another one.
        """
        while True:
            assert self._back is not None
            start, woken = self._back, asyncio.get_running_loop().create_future()
            assert start.last is not None
            self._told_again = woken
            came = asyncio.ensure_future(whole(start.last))
            came.add_done_callback(partial(_wake, woken))
            try:
                await woken
                if came.done():
                    return start, came.result()
            finally:
                came.cancel()


def _wake(waiting: asyncio.Future[None], _: object = None) -> None:
    if not waiting.done():
        waiting.set_result(None)
