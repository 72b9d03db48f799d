"""How many local steps a worker takes in a round: known before, or asked for while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from geojax.sync.algorithm import InRound, LocalStepPolicy, More, StepStatus
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder


class Asks(Protocol):
    """Asks a service; see :class:`geojax.hips.control.requests.Requests`."""

    async def request(self, service: str, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Asks, and waits for the answer."""
        ...

    def tell(self, service: str, question: Mapping[str, Any]) -> None:
        """Tells; there is no answer."""
        ...


class LocalSteps:
    """The local steps of one worker, round by round.

    A number that is known before costs nothing: nobody is asked and nothing is recorded.

    Otherwise every round has ``least`` steps, and after each further one the policy's service
    decides. The time of an answer is a span ``query``; at its end a round is an event ``steps``.
    While an answer is in flight the next step runs. If the answer says that none was due, that step
    is given up: ``given_up`` is then done, and the worker takes back what the step has changed.
    A second question is not asked before the first one is answered.

    Args:
      policy: says how many.
      asks: reaches the service; None: there is nobody to align with, so every round has the least.
      push_s: time for which the last offer was being sent, s.
      clock: experiment time.
      recorder: takes spans and events.
      lan_rounds: LAN rounds in a round of the WAN.
      event: name of the event.
    """

    def __init__(
        self,
        policy: LocalStepPolicy,
        *,
        asks: Asks | None,
        push_s: Callable[[], float],
        clock: Clock,
        recorder: Recorder,
        lan_rounds: int = 1,
        event: str = "steps",
    ):
        self._policy, self._asks, self._push_s = policy, asks, push_s
        self._clock, self._recorder, self._lan_rounds = clock, recorder, lan_rounds
        self._event = event
        self._step_s, self._kept_push_s = 0.0, 0.0
        self._round, self._taken = -1, 0
        self._flying: asyncio.Task[bool] | None = None
        self.given_up: asyncio.Future[None] | None = None

    @property
    def decided(self) -> bool:
        """Whether numbers of steps are decided while rounds run."""
        return self._policy.in_round is not None

    @property
    def speculates(self) -> bool:
        """Whether a step that runs may have to be given up."""
        return self._asks is not None and self.decided and self._policy.in_round.in_flight  # type: ignore[union-attr]

    def known(self, number: int) -> int:
        """Steps that LAN round ``number`` has for certain and no more; 0: that is decided in it."""
        return 0 if self.decided else self._policy.steps(number // self._lan_rounds)

    def begin(self, number: int) -> More:
        """LAN round ``number`` begins; returns what its offer asks after every step."""
        rule = self._policy.in_round
        if rule is None:
            steps = self._policy.steps(number // self._lan_rounds)

            async def more(taken: int) -> bool:
                return taken < steps

            return more
        self._round, self._taken = number, 0
        self._kept_push_s = self._push_s() or self._kept_push_s
        if self._asks is None:
            return self._least(rule)
        self._drop()
        self._asks.tell(rule.service, rule.entered(self._status()))
        if rule.in_flight:
            self.given_up = asyncio.get_running_loop().create_future()
        return self._more

    def stepped(self, seconds: float, *, whole: bool = True) -> None:
        """A step has lasted so long; ``whole``: it was not given up."""
        if whole:
            self._step_s = seconds
            self._taken += 1

    def end(self) -> None:
        """The round's offer is made."""
        if self.decided:
            round_of = self._round // self._lan_rounds
            self._recorder.event(self._event, round=round_of, steps=self._taken)

    # ---- state

    def state_dict(self) -> dict[str, float]:
        """What the first question after a checkpoint depends on."""
        return {"step_s": self._step_s, "push_s": self._push_s() or self._kept_push_s}

    def load_state(self, state: Mapping[str, float]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._step_s, self._kept_push_s = float(state["step_s"]), float(state["push_s"])

    # ---- in the round

    @staticmethod
    def _least(rule: InRound) -> More:
        async def more(taken: int) -> bool:
            return taken < rule.least

        return more

    async def _more(self, taken: int) -> bool:
        del taken  # a step that was given up does not count
        rule = self._policy.in_round
        assert rule is not None
        assert self._asks is not None
        if self.given_up is not None and self.given_up.done():
            return self._landed()
        if self._taken < rule.least:
            return True
        if rule.most is not None and self._taken >= rule.most:
            self._asks.tell(rule.service, rule.ended(self._status()))
            return False
        if not rule.in_flight:
            return await self._ask(rule)
        if self._flying is None or self._flying.done():
            self._flying = asyncio.ensure_future(self._ask(rule))
            self._flying.add_done_callback(self._answered)
        return True

    async def _ask(self, rule: InRound) -> bool:
        assert self._asks is not None
        start = self._clock()
        answer = await self._asks.request(rule.service, rule.asked(self._status()))
        self._recorder.add("queries")
        kind = "query_in_flight" if rule.in_flight else "query"  # then the devices went on
        self._recorder.span(kind, start, self._clock(), round=self._round // self._lan_rounds)
        return rule.due(answer)

    def _answered(self, task: asyncio.Task[bool]) -> None:
        ends = not task.cancelled() and (task.exception() is not None or not task.result())
        if ends and self.given_up is not None and not self.given_up.done():
            self.given_up.set_result(None)

    def _landed(self) -> bool:
        assert self._flying is not None
        return self._flying.result()

    def _drop(self) -> None:
        """Forgets a question of the round before, whose answer does not matter any more."""
        flying, self._flying = self._flying, None
        if flying is not None and not flying.done():
            flying.cancel()

    def _status(self) -> StepStatus:
        return StepStatus(self._round, self._taken, self._step_s, self._kept_push_s)
