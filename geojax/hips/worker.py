"""The worker: trains on its center's data and makes one offer per round."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from geojax.compression.codec import Codec
from geojax.config import TimeoutsConfig
from geojax.hips.checkpoint import Checkpoints
from geojax.hips.exchange import Contribution, TreeExchange, contribution_of
from geojax.hips.machine import Machine
from geojax.hips.member import Membership
from geojax.hips.waits import wait_for
from geojax.hollow import join
from geojax.sync.algorithm import SyncAlgorithm
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder


class Worker:
    """Local steps on one worker's devices, at its pace.

    Args:
      trainer: a :class:`geojax.center.trainer.Trainer`.
      algorithm: says how many steps a round has and what is offered.
      machine: runs the steps.
      pace: emulated duration of a step by its number and the experiment time of its start, s.
      clock: experiment time.
      recorder: takes the compute spans.
    """

    weight = 1.0  # of one offer: all workers' offers stand for equally many samples

    def __init__(
        self,
        trainer: Any,
        algorithm: SyncAlgorithm,
        *,
        machine: Machine,
        pace: Callable[[int, float], float],
        clock: Clock,
        recorder: Recorder,
    ):
        self.trainer, self.algorithm = trainer, algorithm
        self._machine, self._pace = machine, pace
        self._clock, self._recorder = clock, recorder

    def catch_up(self, number: int) -> None:
        """Takes the place in the data that a worker which never was away has before a round."""
        steps = self.algorithm.local_steps.steps
        self.trainer.steps = sum(steps(done) for done in range(number))

    async def offer(self, number: int, base: np.ndarray) -> np.ndarray:
        """Trains for one round from ``base`` (loaded already) and returns the offered vector."""
        steps = self.algorithm.local_steps.steps(number)

        async def step(work: Callable[[], Any]) -> Any:
            start = self._clock()
            seconds = self._pace(self.trainer.steps, start)
            result = await self._machine.compute(work, seconds)
            self._recorder.span("compute", start, self._clock(), round=number)
            self._recorder.add("samples", self.trainer.samples_per_step)
            return result

        parameters = self.trainer.spec.parameters
        return await self.algorithm.offer.collect(self.trainer, base, parameters, steps, step)


async def exchange(
    engine: TreeExchange,
    number: int,
    payloads: list,
    weight: float,
    *,
    timeouts: TimeoutsConfig,
    clock: Clock,
    recorder: Recorder,
) -> tuple[list[Contribution], float]:
    """Offers one vector to a group's round and waits for the merged one; records both instants.

    Returns:
      The merged contribution of every chunk, and the experiment time at which the last was held.
    """
    for chunk, payload in enumerate(payloads):
        engine.offer(number, chunk, contribution_of(payload, weight))
    offered = clock()
    merged = await wait_for(
        engine.whole(number),
        describe=lambda: engine.missing(number),
        timeout=timeouts.round,
        warn=timeouts.warn,
    )
    held = clock()
    recorder.span("wait", offered, held, round=number)
    recorder.event("round", round=number, offered=round(offered, 9), held=round(held, 9))
    return merged, held


class WorkerNode:
    """A worker in a process of its own, which exchanges with its local server over the LAN."""

    def __init__(
        self,
        worker: Worker,
        vector: np.ndarray,
        *,
        lan: TreeExchange,
        codec: Codec,
        codec_state: Any,
        member: Membership,
        machine: Machine,
        timeouts: TimeoutsConfig,
        clock: Clock,
        recorder: Recorder,
        checkpoints: Checkpoints,
        first: int = 0,
    ):
        self._worker, self.vector = worker, vector
        self._machine, self._checkpoints, self._first = machine, checkpoints, first
        self._lan, self._codec, self._codec_state = lan, codec, codec_state
        self._member, self._timeouts = member, timeouts
        self._clock, self._recorder = clock, recorder

    async def run(self) -> None:
        """Trains until the grants end."""
        first = await self._begin()
        for number in itertools.count(first):
            if not await self._member.granted(number):
                break
            offered = await self._worker.offer(number, self.vector)
            payloads, self._codec_state = self._codec.encode(offered, self._codec_state)
            merged, held = await exchange(
                self._lan, number, payloads, self._worker.weight,
                timeouts=self._timeouts, clock=self._clock, recorder=self._recorder,
            )  # fmt: skip
            self.vector = join([self._codec.decode(c.payload) for c in merged])  # type: ignore[arg-type]
            self._worker.trainer.load(self.vector)
            if self._checkpoints.due(number):
                state = {"vector": self.vector, "trainer": self._worker.trainer.state_dict()}
                await self._checkpoints.keep(number, held, state, self._machine)
        await self._checkpoints.flush()
        await self._member.finish()

    async def _begin(self) -> int:
        """Joins, and returns the first round; one who comes back first gets the parameters."""
        start = await self._member.join(self.vector.size)
        self._clock.start_at(start.at, start.time)
        await self._clock.until_start()
        first = self._first
        if start.last is not None and start.last >= 0:
            merged = await wait_for(
                self._lan.whole(start.last),
                describe=lambda: f"parameters after round {start.last} from the local server",
                timeout=self._timeouts.round,
                warn=self._timeouts.warn,
            )
            self.vector = join([self._codec.decode(c.payload) for c in merged])  # type: ignore[arg-type]
            self._worker.trainer.load(self.vector)
            first = start.last + 1
            self._worker.catch_up(first)
        self._member.has_state = True
        return first
