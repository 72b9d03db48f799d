"""The end of a run, as a member waits for it."""

from __future__ import annotations

import asyncio

from geojax.config import TimeoutsConfig
from geojax.errors import WaitTimeout
from geojax.machine.waits import wait_for


class RunEnd:
    """Whether the run is over for a member.

    Args:
      timeouts: bound the wait.

    Attributes:
      said_done: the member has said that it is done.
      progress: of all members, where they make rounds of their own.
    """

    def __init__(self, timeouts: TimeoutsConfig):
        self._timeouts = timeouts
        self._come: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.said_done, self.progress = False, 0

    @property
    def over(self) -> bool:
        """Whether the scheduler has said so."""
        return self._come.done()

    def come(self) -> None:
        """The run is over."""
        if not self.over:
            self._come.set_result(None)

    async def wait(self) -> None:
        """Waits for the end, or until this task is cancelled."""
        await self._come

    async def wait_for_others(self) -> None:
        """Waits for the end as long as slower members make progress.

        Raises:
          WaitTimeout: there was none in ``timeouts.round``.
        """
        while not self.over:
            before = self.progress
            try:
                await wait_for(
                    asyncio.shield(self._come),
                    describe=lambda: "end of the run from the scheduler",
                    timeout=self._timeouts.round,
                    warn=self._timeouts.warn,
                )
            except WaitTimeout:
                if self.progress == before:  # else slower members are still at work
                    raise
