"""The worker: trains on its center's data and makes one offer per LAN round."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from geojax.center.planned import Planned
from geojax.center.stages import Stage
from geojax.errors import Diverged
from geojax.hips.context import NodeContext
from geojax.hips.control.joining import digest
from geojax.hips.control.member import Membership
from geojax.hips.exchange.buckets import Bucket
from geojax.hips.exchange.lan import LanUplink, Uplink
from geojax.hips.roles.chosen import Chosen
from geojax.hips.roles.local_steps import LocalSteps
from geojax.hips.roles.outer_parameters import OuterParameters
from geojax.hips.storage.checkpoint import Checkpoints, state_like
from geojax.hollow import is_hollow
from geojax.machine.machine import Machine
from geojax.sync.algorithm import SyncAlgorithm
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder


class Worker:
    """Local steps on one worker's devices, at its pace.

    With one bucket, a round is: train, offer, wait for the new parameters. With stages (P3) it
    goes stage by stage: the forward pass of a stage begins as soon as its parameters are there, and
    its gradient leaves as soon as its own backward pass is done.

    With fragments a round offers one of them. With overlap its result counts here after that many
    steps of the next round; see :mod:`geojax.hips.roles.outer_parameters`.

    Args:
      trainer: a :class:`geojax.center.trainer.Trainer`.
      algorithm: says what is offered, and what is known of the number of steps.
      buckets: of the vector; the stages of the model in P3, or the fragments.
      stages: of the model, one a bucket, with their shares of a step; empty without P3.
      weight: of one offer, relative to the other workers'.
      skip: a gradient that is not finite is ignored; else it ends the run.
      machine: runs the steps.
      pace: emulated duration of a step by its number and the experiment time of its start, s.
      clock: experiment time.
      recorder: takes the compute and wait spans.
      contributes: whether the worker's center contributes to a round of the WAN; to others it only
        takes the result.
      chosen: asks whether it does, where that is decided as rounds begin; else None.
      local_steps: says how many steps a round has; None: as many as the algorithm knows before.
      following: says which LAN round follows one, where that is decided; None: the next number.
    """

    def __init__(
        self,
        trainer: Any,
        algorithm: SyncAlgorithm,
        buckets: Sequence[Bucket],
        stages: Sequence[Stage] = (),
        *,
        weight: float = 1.0,
        skip: bool = False,
        machine: Machine,
        pace: Callable[[int, float], float],
        clock: Clock,
        recorder: Recorder,
        contributes: Callable[[int], bool] = lambda _: True,
        chosen: Chosen | None = None,
        local_steps: LocalSteps | None = None,
        following: Callable[[int], Awaitable[int]] | None = None,
    ):
        self.trainer, self.algorithm, self._buckets = trainer, algorithm, tuple(buckets)
        self._local_steps = local_steps or LocalSteps(
            algorithm.local_steps, asks=None, push_s=lambda: 0.0, clock=clock, recorder=recorder,
            lan_rounds=algorithm.lan_rounds,
        )  # fmt: skip
        self._following, self._contributes, self._chosen = following, contributes, chosen
        self._stages = tuple(stages) if len(buckets) > 1 else ()
        self.outer = OuterParameters(
            trainer, buckets, algorithm.fragmentation, staged=bool(self._stages), clock=clock,
            recorder=recorder, lan_rounds=algorithm.lan_rounds,
        )  # fmt: skip
        self.weight, self._skip = weight, skip
        self._machine, self._pace = machine, pace
        self._clock, self._recorder = clock, recorder
        self._begun: int | None = None  # steps, with one that devices compute now
        self._together = 1  # the first steps of the round under way that are one program
        self._divergences: list[float] = []  # of the steps of the round under way

    def start(self, vector: np.ndarray, number: int) -> None:
        """Begins LAN round ``number`` from ``vector``."""
        self.outer.start(vector, number)

    async def catch_up(self, number: int, taken: int | None = None) -> None:
        """Moves to the position in the data that a worker has before a LAN round.

        It is that of a worker that has made all steps until then. A fleet repeats the choices of
        its devices for it, which depend on no parameters. Where numbers of steps, or who takes any,
        are decided while rounds run, the position does not follow from the round. Then it is what
        the scheduler heard last of this worker: the batches that it took after that are drawn
        again.

        Args:
          number: the LAN round.
          taken: steps that the worker is known to have taken; None: nothing is known, and as many
            as all rounds have at least are passed over.
        """
        steps, per = self.algorithm.local_steps.steps, self.algorithm.lan_rounds
        rounds = (done // per for done in range(number))
        made = sum(steps(done) for done in rounds if self._contributes(done))
        if self._counted:
            made = max(made, taken or 0)
        await self._machine.aside(partial(self.trainer.skip_to, made))

    def counted(self, taken: int | None) -> int:
        """The last LAN round of a worker that counts its own, if it has taken so many steps.

        None: nothing is known of it. A round counts when all its steps are among them.
        """
        number, left = -1, taken or 0
        while left >= (steps := self.algorithm.local_steps.steps(number + 1)):
            number, left = number + 1, left - steps
        return number

    @property
    def position(self) -> int | None:
        """Steps begun in all, where that does not follow from the round; else None."""
        if not self._counted:
            return None
        return self.trainer.steps if self._begun is None else self._begun

    @property
    def _counted(self) -> bool:
        alone = self.algorithm.lan is not None
        return self._local_steps.decided or self._chosen is not None or alone

    def state_dict(self) -> dict[str, Any]:
        """The trainer's state, and what the next steps need beside the outer parameters."""
        state = {**self.trainer.state_dict(), **self.outer.state_dict()}
        if self._local_steps.decided:
            state = {**state, "local_steps": self._local_steps.state_dict()}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`; :meth:`start` follows."""
        beside = ("local_steps", "own")
        self.trainer.load_state({key: each for key, each in state.items() if key not in beside})
        self.outer.load_state(state)
        if self._local_steps.decided:
            self._local_steps.load_state(state["local_steps"])

    async def train(
        self,
        link: Uplink,
        first: int,
        *,
        granted: Callable[[int], Awaitable[bool]],
        keeps: Callable[[int], bool],
        keep: Callable[[int], Awaitable[None]],
    ) -> None:
        """Trains from LAN round ``first`` until the grants end.

        Args:
          link: to the local server.
          first: number of the first LAN round.
          granted: waits for the grant of a round of the WAN; false when the run ends before it.
          keeps: whether the state after a round of the WAN is wanted.
          keep: called with such a round when all its parameters are loaded.
        """
        per = self.algorithm.lan_rounds
        number = first
        while number % per or await granted(number // per):
            await (self._staged_round if self._stages else self._round)(link, number)
            done, number = number // per, await self._after(link, number)
            if number % per == 0 and keeps(done):
                await self.outer.settle(link, number - 1)
                await keep(done)
        await self.outer.collect(link, number - 1)

    async def _after(self, link: Uplink, number: int) -> int:
        """The LAN round after one that has ended here."""
        if self._following is None:
            return number + 1
        following = await self._following(number)
        if following > number + 1:
            link.stand_for(number, following - 1)
            self.outer.stands_for(following - 1)
        return following

    # ---- a round in one piece

    async def _round(self, link: Uplink, number: int) -> None:
        if not await self._takes_part(number):
            for bucket in self.outer.turns.of(number):
                await link.abstain(number, bucket)
            await self.outer.collect(link, number)
            return
        more, spec = self._local_steps.begin(number), self.trainer.spec
        before = self.trainer.steps
        self._expect(number)
        buckets = self.outer.turns.of(number)
        try:
            step = partial(self._whole_step, link, number, before)
            vector = await self.algorithm.offer.collect(
                self.trainer, self.outer.vector, spec.parameters, more, step
            )
            self._local_steps.end()
            offered = [bucket.of(vector) for bucket in buckets]
            for bucket, values in zip(buckets, offered, strict=True):
                self._check(number, bucket, values)
            self._tell_divergence(number)
        except Diverged as error:
            self._recorder.event("nonfinite", round=number, layers=list(error.layers))
            if not self._skip:
                raise
            for bucket in buckets:
                nothing = np.zeros_like(bucket.of(self.outer.vector))
                await link.offer(number, bucket, nothing, 0.0, None, 0)
        else:
            self.outer.offered()
            for bucket, values in zip(buckets, offered, strict=True):
                await self._offer(link, number, bucket, values, self.trainer.steps - before)
        if self._chosen is not None:
            self._chosen.end(number)
        if not self.algorithm.fragmentation.overlap:
            await self.outer.collect(link, number)

    def _expect(self, number: int) -> None:
        """Tells the trainer of the steps of LAN round ``number``, where nothing comes between."""
        algorithm, known = self.algorithm, self._local_steps.known(number)
        apart = not algorithm.offer.inner or algorithm.fragmentation.overlap
        self._together = 1 if apart else self.trainer.expect(known)

    async def _takes_part(self, number: int) -> bool:
        """Whether the worker trains in a LAN round."""
        if self._chosen is not None:
            return await self._chosen.begin(number, self.outer.vector)
        return self._contributes(number // self.algorithm.lan_rounds)

    async def _whole_step(
        self, link: Uplink, number: int, before: int, work: Callable[[], Any]
    ) -> Any:
        """One local step of LAN round ``number``; the algorithm's ``collect`` calls it for each.

        Steps that are one program keep their paces as a whole, like the parts of one step.

        ``before``: the trainer's steps before the round.
        """
        if self._local_steps.speculates:
            return await self._speculative_step(number, work)
        start, planned = self._clock(), self.trainer.planned()
        made, together = self.trainer.steps - before, self._together
        follows, ends = False, 1
        if made < together:
            follows, ends = made > 0, together if made == together - 1 else 0
        result = await self._step(
            work, planned.batches, number, internal=planned.seconds, follows=follows, ends=ends
        )
        self._local_steps.stepped(self._clock() - start)
        self._record(planned)
        if self.algorithm.fragmentation.overlap == self.trainer.steps - before:
            await self.outer.collect(link, number - 1)
        return result

    async def _speculative_step(self, number: int, work: Callable[[], Any]) -> Any:
        """A step that is taken back if it turns out, before its end, that none was due."""
        trainer, given_up = self.trainer, self._local_steps.given_up
        kept, start = (trainer.vector(), trainer.state_dict()), self._clock()
        planned = trainer.planned()
        seconds = self._pace(trainer.steps, start) * planned.batches + planned.seconds
        result = await self._compute(work, seconds, cut=given_up)
        end, round_of = self._clock(), number // self.algorithm.lan_rounds
        assert given_up is not None
        whole = not given_up.done() or end - start >= seconds
        if whole:
            self._recorder.span("compute", start, end, round=round_of)
            self._record(planned)
        else:
            trainer.load(kept[0])
            trainer.load_state(kept[1])
            self._recorder.span("given_up", start, end, round=round_of)
        self._local_steps.stepped(end - start, whole=whole)
        return result

    def _record(self, planned: Planned) -> None:
        """Counts a step that has been made."""
        self._recorder.add("samples", planned.samples)
        if planned.internal_bytes:
            self._recorder.add("internal_bytes", planned.internal_bytes)
        if planned.choice_s:
            self._recorder.add("choice_s", planned.choice_s)
            self._recorder.add("choices")
        if planned.divergence is not None:
            self._divergences.append(planned.divergence)

    def _tell_divergence(self, number: int) -> None:
        """An event of how far the classes of the round's steps were from the target."""
        found, self._divergences = self._divergences, []
        if not found:
            return
        round_of = number // self.algorithm.lan_rounds
        for step, value in enumerate(found):
            self._recorder.chunk_event("super_node", round=round_of, step=step, divergence=value)
        self._recorder.event(
            "divergence", round=round_of, steps=len(found),
            mean=sum(found) / len(found), max=max(found), values=found,
        )  # fmt: skip

    # ---- a round stage by stage

    async def _staged_round(self, link: Uplink, number: int) -> None:
        try:
            await self._stage_by_stage(link, number)
        except Diverged as error:
            self._recorder.event("nonfinite", round=number, layers=list(error.layers))
            raise

    async def _stage_by_stage(self, link: Uplink, number: int) -> None:
        compute = [each for each in self._pairs if each[1].forward or each[1].backward]
        rest = [each for each in self._pairs if each not in compute]
        behind = self.outer.collected < number - 1
        if behind:
            for bucket, _ in rest:
                await self.outer.load_stage(link, number - 1, bucket)
        follows, planned = False, self.trainer.planned()
        for bucket, stage in compute:
            if behind:
                follows &= not await self.outer.load_stage(link, number - 1, bucket)
            work = partial(self.trainer.forward, bucket.index)
            await self._step(work, stage.forward, number, follows=follows, ends=0)
            follows = True
        self.outer.collected = number - 1
        for bucket, _ in rest:
            state = self.trainer.backward(bucket.index)
            self._check(number, bucket, state)
            await self._offer(link, number, bucket, state, 1)
        for bucket, stage in reversed(compute):
            work = partial(self.trainer.backward, bucket.index)
            ends = int(bucket is compute[0][0])
            gradient = await self._step(work, stage.backward, number, follows=True, ends=ends)
            self._check(number, bucket, gradient)
            await self._offer(link, number, bucket, gradient, 1)
        self._record(planned)

    @property
    def _pairs(self) -> list[tuple[Bucket, Stage]]:
        return list(zip(self._buckets, self._stages, strict=True))

    # ---- what both do

    async def _step(
        self,
        work: Callable[[], Any],
        batches: float,
        number: int,
        *,
        internal: float = 0.0,
        follows: bool = False,
        ends: int = 1,
    ) -> Any:
        """Runs so many batches, or a share of one; see :meth:`geojax.machine.machine.Machine`.

        Args:
          work: of the trainer.
          batches: how often the duration of a batch passes.
          number: of the LAN round.
          internal: s of transfers between devices and their base station, after it.
          follows: see there.
          ends: see there.
        """
        start = self._clock()
        seconds = self._pace(self.trainer.steps, start) * batches + internal
        result = await self._compute(work, seconds, follows=follows, ends=ends)
        round_of, end = number // self.algorithm.lan_rounds, self._clock()
        computed = max(start, end - internal)  # a part that was late before is shorter
        self._recorder.span("compute", start, computed, round=round_of)
        if internal:
            self._recorder.span("internal", computed, end, round=round_of)
        return result

    async def _compute(self, work: Callable[[], Any], seconds: float, **how: Any) -> Any:
        """Has the devices do work of the trainer; until it is done, nobody may look at that."""
        self._begun = self.trainer.steps + 1
        try:
            return await self._machine.compute(work, seconds, **how)
        finally:
            self._begun = None

    def _check(self, number: int, bucket: Bucket, values: np.ndarray) -> None:
        """Raises ``Diverged`` if values are not finite, before they are sent."""
        bad = [] if is_hollow(values) else bucket.spec.nonfinite(values)
        if bad:
            raise Diverged(
                f"{self._recorder.node}, round {number}: not finite: {', '.join(bad)}; lower lr, "
                "or set optimizer.clip_norm",
                bad,
            )

    async def _offer(
        self, link: Uplink, number: int, bucket: Bucket, values: np.ndarray, steps: int
    ) -> None:
        loss = float(self.trainer.last_loss)
        told = loss if math.isfinite(loss) else None
        await link.offer(number, bucket, values, self.weight * self.trainer.weight, told, steps)


class WorkerNode:
    """A worker in a process of its own, which exchanges with its local server over the LAN."""

    def __init__(
        self,
        context: NodeContext,
        worker: Worker,
        vector: np.ndarray,
        *,
        link: LanUplink,
        member: Membership,
        checkpoints: Checkpoints,
        first: int = 0,
    ):
        self._context, self._worker, self._vector, self._link = context, worker, vector, link
        self._member, self._checkpoints, self._first = member, checkpoints, first

    async def run(self) -> None:
        """Trains until the grants end."""
        first = await self._begin()

        async def keep(number: int) -> None:
            state = {
                "vector": self._worker.outer.kept(),
                "trainer": self._worker.state_dict(),
            }
            context = self._context
            await self._checkpoints.keep(number, context.clock(), state, context.machine)

        if self._checkpoints.keeps_start:
            await keep(first // self._worker.algorithm.lan_rounds - 1)
        await self._worker.train(
            self._link, first, granted=self._member.granted, keeps=self._checkpoints.due, keep=keep
        )
        await self._member.finish()
        await self._checkpoints.flush()

    async def _begin(self) -> int:
        """Joins and returns the first LAN round; gets the parameters if it comes back."""
        alike = not self._context.setup.resume.held  # else each center has what it pulled last
        own = digest(self._vector) if alike else None
        start = await self._member.join(self._vector.size, own)
        self._context.clock.start_at(start.at, start.time)
        await self._context.clock.until_start()
        first = self._first
        if start.last is not None and start.last >= 0:
            start, self._vector = await self._member.caught_up(self._link.whole)
            assert start.last is not None
            first = start.last + 1
            await self._worker.catch_up(first, start.steps)
        if start.initial_from is not None:
            like = {"vector": self._vector}
            _, state = await self._member.states.receive(
                partial(state_like, like), "initial parameters"
            )
            self._vector = state["vector"]
        self._worker.start(self._vector, first)
        self._member.has_state = True
        return first
