"""Whether a worker's center contributes to a round: known before, or asked for as it begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np

from geojax.hips.roles.local_steps import Asks
from geojax.sync.algorithm import Choice
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder

Judge = Callable[[np.ndarray, int], Awaitable[tuple[int, int]]]
"""``(vector, round) -> (right, of)``: runs on the worker's devices."""


class Chosen:
    """What one worker asks and tells a service that chooses contributors, round by round.

    The time of an answer is a span ``query``.

    Args:
      choice: how to ask.
      asks: reaches the service.
      push_s: time for which the last offer was being sent, s.
      judge: counts how many held-out samples parameters get right.
      clock: experiment time.
      recorder: takes spans and counts.
    """

    def __init__(
        self, choice: Choice, *, asks: Asks, push_s: Callable[[], float], judge: Judge,
        clock: Clock, recorder: Recorder,
    ):  # fmt: skip
        self._choice, self._asks, self._push_s, self._judge = choice, asks, push_s, judge
        self._clock, self._recorder = clock, recorder

    async def begin(self, number: int, vector: np.ndarray) -> bool:
        """Round ``number`` begins from ``vector``; whether the center contributes to it."""
        choice, start = self._choice, self._clock()
        question = choice.entered(number, self._push_s())
        answer = await self._asks.request(choice.service, question)
        self._recorder.add("queries")
        self._recorder.span("query", start, self._clock(), round=number)
        if choice.judges(answer):
            # The answer is waited for: when anybody begins the next round, all have told.
            told = choice.judged(number, *await self._judge(vector, number))
            await self._asks.request(choice.service, told)
        return choice.contributes(answer)

    def end(self, number: int) -> None:
        """The round's offer is made."""
        self._asks.tell(self._choice.service, self._choice.ended(number))
