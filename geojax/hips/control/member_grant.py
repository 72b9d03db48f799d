"""The rounds that a member may begin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from geojax.config import TimeoutsConfig
from geojax.machine.waits import wait_for


class MemberGrant:
    """What a member has been granted.

    Args:
      timeouts: bounds on the wait for more.
      held: the last round that the member holds.
      ask: asks the scheduler for more.
    """

    def __init__(self, timeouts: TimeoutsConfig, held: Callable[[], int], ask: Callable[[], None]):
        self._timeouts, self._held, self._ask_scheduler = timeouts, held, ask
        self._asked_with = (-1, -1)
        self._waiters: list[asyncio.Future[None]] = []
        self.until, self.final = 0, False

    def take(self, until: int, *, final: bool) -> None:
        """The grant is this from now on."""
        self.until, self.final = until, final
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def reaches(self, number: int) -> bool:
        """Waits for the grant of a round; false when the run ends before it."""
        while number >= self.until and not self.final:
            self._ask()
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await wait_for(
                waiter,
                describe=lambda: f"grant of round {number} from the scheduler",
                timeout=self._timeouts.round,
                warn=self._timeouts.warn,
            )
        if number < self.until and number + 2 >= self.until:
            self._ask()
        return number < self.until

    def _ask(self) -> None:
        """Asks for a longer grant at once, if nothing has changed since it was asked for last."""
        asked_with = (self.until, self._held())
        if not self.final and self._asked_with != asked_with:
            self._asked_with = asked_with
            self._ask_scheduler()
