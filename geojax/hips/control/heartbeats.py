"""A member's heartbeats, and whether the scheduler still answers them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from geojax.config import TimeoutsConfig
from geojax.errors import SchedulerLost


class Heartbeats:
    """Sends heartbeats until the scheduler has been silent for twice ``timeouts.dead``.

    Args:
      me: this member's name.
      timeouts: ``heartbeat``: between two; ``dead``.
      beat: sends one.
      over: whether the run is over; then the scheduler may fall silent.

    Attributes:
      failed: gets ``SchedulerLost`` when the scheduler has been silent for too long.
    """

    def __init__(
        self,
        me: str,
        timeouts: TimeoutsConfig,
        beat: Callable[[], None],
        over: Callable[[], bool],
    ):
        self._me, self._timeouts, self._beat, self._over = me, timeouts, beat, over
        self._loop = asyncio.get_running_loop()
        self._answered = float("inf")
        self._beaten = 0.0
        self._next: asyncio.TimerHandle | None = None
        self.failed: asyncio.Future[None] = self._loop.create_future()

    def answered(self) -> None:
        """The scheduler was heard."""
        self._answered = self._loop.time()

    def start(self) -> None:
        """Begins to beat."""
        self._beaten = self._loop.time()
        self._again()

    def stop(self) -> None:
        """Beats no more."""
        if self._next is not None:
            self._next.cancel()

    def _again(self) -> None:
        now = self._loop.time()
        if now - self._beaten > 2 * self._timeouts.heartbeat:  # this process stood still itself
            self._answered = now
        self._beaten = now
        silence = now - self._answered
        if silence > 2 * self._timeouts.dead and not self._over():
            error = SchedulerLost(f"{self._me}: no answer from the scheduler in {silence:.1f} s")
            self.failed.set_exception(error)
            return
        self._beat()
        self._next = self._loop.call_later(self._timeouts.heartbeat, self._again)
