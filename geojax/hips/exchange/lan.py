"""Between the workers of a center and its local server: in one process, or over the LAN.

A *LAN round* is one exchange within a center; an algorithm has ``lan_rounds`` of them in each round
of the WAN (more than one in hierarchical averaging alone), numbered on without a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from geojax.compression.codec import Codec
from geojax.config import TimeoutsConfig
from geojax.hips.exchange.base import Exchange
from geojax.hips.exchange.buckets import Bucket
from geojax.hips.exchange.contribution import ABSTAINED, Contribution, contribution_of
from geojax.hips.exchange.tree import TreeExchange
from geojax.hollow import is_hollow, join
from geojax.machine.machine import Machine
from geojax.machine.waits import wait_for
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder


class Total(NamedTuple):
    """The sum of a center's offers for one bucket.

    Attributes:
      vector: Σ weight · offer.
      weights: Σ weight of every chunk; they differ only in a round in which a worker died.
      contributors: number of offers in every chunk.
      steps: local steps that the offers in every chunk stand for.
      loss: mean training loss; None: unknown.
    """

    vector: np.ndarray
    weights: tuple[float, ...]
    contributors: tuple[int, ...]
    steps: tuple[int, ...]
    loss: float | None

    @property
    def abstains(self) -> bool:
        """Whether the center does not contribute to the round."""
        return not any(self.contributors)

    @classmethod
    def abstained(cls, chunks: int) -> Total:
        """The sum where no worker contributes."""
        return cls(np.zeros(0, np.float32), (0.0,) * chunks, (0,) * chunks, (0,) * chunks, None)


class Uplink(Protocol):
    """A worker's end."""

    async def offer(
        self, number: int, bucket: Bucket, values: np.ndarray, weight: float, loss: float | None,
        steps: int,
    ) -> None:  # fmt: skip
        """Offers a bucket of LAN round ``number``; ``values`` must not change any more.

        Args:
          number: of the LAN round.
          bucket: the bucket.
          values: of it.
          weight: of the offer.
          loss: mean training loss; None: unknown.
          steps: local steps that were taken for the offer.
        """
        ...

    async def abstain(self, number: int, bucket: Bucket) -> None:
        """Contributes nothing to LAN round ``number``."""
        ...

    def here(self, number: int, bucket: Bucket) -> bool:
        """Whether :meth:`parameters` would not have to wait."""
        ...

    async def parameters(self, number: int, bucket: Bucket) -> np.ndarray:
        """The bucket as it is after LAN round ``number``; read-only."""
        ...

    def stand_for(self, number: int, later: int) -> None:
        """LAN round ``number``, which is held, was the last one and counts as ``later``."""
        ...


class Downlink(Protocol):
    """The local server's end.

    Attributes:
      passes_on: sums go to the WAN as they come, chunk by chunk; :meth:`total` is not used.
      follow: the workers hold the rounds of the WAN that the server holds, and record them.
    """

    passes_on: bool
    follow: bool

    async def total(self, number: int, bucket: Bucket) -> Total:
        """What the center's workers have offered."""
        ...

    async def publish(self, number: int, bucket: Bucket, values: np.ndarray) -> None:
        """Gives the workers a bucket as it is after LAN round ``number``."""
        ...

    def stand_for(self, number: int, later: int) -> None:
        """LAN round ``number`` will be the last one and count as ``later``."""
        ...

    def missing(self, number: int) -> str:
        """What of the center LAN round ``number`` waits for, as ``"… or "``; "": nothing."""
        ...

    async def adopt(self, number: int, vector: np.ndarray) -> None:
        """The center comes back: LAN round ``number`` ended with ``vector``."""
        ...

    def send_initial(self, worker: str, payload: np.ndarray) -> bool:
        """Sends a worker the packed initial state; false: it is no worker at this link."""
        ...

    async def begin(self, vector: np.ndarray) -> None:
        """The parameters before the first round, where rounds exchange a part of them each.

        A worker that comes back is sent all parameters, whether they were exchanged yet or not.
        """
        ...


def weighted(values: np.ndarray, weight: float) -> np.ndarray:
    """``weight · values``; the very same values for weight 1."""
    return values if weight == 1.0 or is_hollow(values) else values * np.float32(weight)


class DirectLink:
    """Both ends of a center with one worker, which lives in its local server's process."""

    passes_on = False
    follow = False

    def __init__(self) -> None:
        self._offered: dict[tuple[int, int], asyncio.Future[Total]] = {}
        self._applied: dict[tuple[int, int], asyncio.Future[np.ndarray]] = {}

    async def offer(
        self, number: int, bucket: Bucket, values: np.ndarray, weight: float, loss: float | None,
        steps: int,
    ) -> None:  # fmt: skip
        """See :class:`Uplink`."""
        count = len(bucket.chunks)
        sums = weighted(values, weight)
        total = Total(sums, (weight,) * count, (1,) * count, (steps,) * count, loss)
        _slot(self._offered, number, bucket).set_result(total)

    async def abstain(self, number: int, bucket: Bucket) -> None:
        """See :class:`Uplink`."""
        _slot(self._offered, number, bucket).set_result(Total.abstained(len(bucket.chunks)))

    async def total(self, number: int, bucket: Bucket) -> Total:
        """See :class:`Downlink`."""
        total = await _slot(self._offered, number, bucket)
        del self._offered[number, bucket.index]
        return total

    async def publish(self, number: int, bucket: Bucket, values: np.ndarray) -> None:
        """See :class:`Downlink`."""
        _slot(self._applied, number, bucket).set_result(values)

    def stand_for(self, number: int, later: int) -> None:
        """See :class:`Uplink` and :class:`Downlink`: nothing is kept here."""

    def missing(self, number: int) -> str:
        """See :class:`Downlink`: its worker sends nothing."""
        del number
        return ""

    async def adopt(self, number: int, vector: np.ndarray) -> None:
        """See :class:`Downlink`: its worker is told by its local server."""

    def send_initial(self, worker: str, payload: np.ndarray) -> bool:
        """See :class:`Downlink`."""
        del worker, payload
        return False

    async def begin(self, vector: np.ndarray) -> None:
        """See :class:`Downlink`: its worker has them."""

    def here(self, number: int, bucket: Bucket) -> bool:
        """See :class:`Uplink`."""
        return _slot(self._applied, number, bucket).done()

    async def parameters(self, number: int, bucket: Bucket) -> np.ndarray:
        """See :class:`Uplink`."""
        values = await _slot(self._applied, number, bucket)
        del self._applied[number, bucket.index]
        return values


def _slot(slots: dict[tuple[int, int], asyncio.Future[Any]], number: int, bucket: Bucket) -> Any:
    slot = slots.get((number, bucket.index))
    if slot is None:
        slot = slots[number, bucket.index] = asyncio.get_running_loop().create_future()
    return slot


class LanUplink:
    """A worker's end over the LAN.

    Args:
      engine: its part in the exchange of the center's group.
      codec: what travels over the LAN.
      answers: what comes back is encoded by; None: the same.
      buckets: of the vector.
      timeouts: bounds on waits.
      clock: experiment time.
      recorder: takes the round's instants.
      lan_rounds: LAN rounds in a round of the WAN; the last one's instants are recorded.
      event: the name that they are recorded by.
    """

    def __init__(
        self,
        engine: Exchange,
        codec: Codec,
        buckets: Sequence[Bucket],
        *,
        timeouts: TimeoutsConfig,
        clock: Clock,
        recorder: Recorder,
        lan_rounds: int = 1,
        answers: Codec | None = None,
        event: str = "round",
    ):
        self._engine, self._codec, self._buckets = engine, codec, tuple(buckets)
        self._answers, self._event = answers or codec, event
        self._states = [codec.init(bucket.spec.layers, bucket.ranges) for bucket in buckets]
        self._timeouts, self._clock, self._recorder = timeouts, clock, recorder
        self._lan_rounds = lan_rounds
        self._offered: dict[int, Offered] = {}
        # a LAN round, when it was offered to and when it was held
        self._last = (-1, Offered(0.0, 0.0), 0.0)
        engine.watcher = self

    async def offer(
        self, number: int, bucket: Bucket, values: np.ndarray, weight: float, loss: float | None,
        steps: int,
    ) -> None:  # fmt: skip
        """See :class:`Uplink`."""
        encoded = self._codec.encode(weighted(values, weight), self._states[bucket.index])
        payloads, self._states[bucket.index] = encoded
        self._engine.results(number, bucket.chunks)
        for chunk, payload in zip(bucket.chunks, payloads, strict=True):
            told = loss if chunk == bucket.chunks[0] else None
            offered = contribution_of(payload, weight, loss=told, steps=steps)
            self._engine.offer(number, chunk, offered)
        self._offered[number] = Offered.next(self._offered.get(number), self._clock())

    async def abstain(self, number: int, bucket: Bucket) -> None:
        """See :class:`Uplink`."""
        self._engine.results(number, bucket.chunks)
        for chunk in bucket.chunks:
            self._engine.offer(number, chunk, ABSTAINED)
        self._offered[number] = Offered.next(self._offered.get(number), self._clock())

    def here(self, number: int, bucket: Bucket) -> bool:
        """See :class:`Uplink`."""
        return self._engine.results(number, bucket.chunks).done()

    async def parameters(self, number: int, bucket: Bucket) -> np.ndarray:
        """See :class:`Uplink`."""
        merged = await wait_for(
            self._engine.results(number, bucket.chunks),
            describe=lambda: self._engine.missing(number),
            timeout=self._timeouts.round,
            warn=self._timeouts.warn,
        )
        return join([self._answers.decode(chunk.payload) for chunk in merged])  # type: ignore[arg-type]

    async def whole(self, number: int) -> np.ndarray:
        """The whole vector after LAN round ``number``, for a worker that comes back."""
        merged = await wait_for(
            self._engine.whole(number),
            describe=lambda: self._engine.missing(number),
            timeout=self._timeouts.round,
            warn=self._timeouts.warn,
        )
        return join([self._answers.decode(chunk.payload) for chunk in merged])  # type: ignore[arg-type]

    def held(self, number: int) -> None:
        """See :class:`geojax.hips.exchange.base.RoundWatcher`."""
        offered = self._offered.pop(number, None)
        if offered is None:
            return
        self._last = number, offered, self._clock()
        if (number + 1) % self._lan_rounds == 0:
            self._record(number, offered, self._clock())

    def stand_for(self, number: int, later: int) -> None:
        """See :class:`Uplink`."""
        self._engine.stand_for(number, later)
        if later > number == self._last[0]:
            self._record(later, *self._last[1:])

    def _record(self, number: int, offered: Offered, held: float) -> None:
        round_of = number // self._lan_rounds
        record_round(self._recorder, round_of, offered, held, event=self._event)


class Offered(NamedTuple):
    """When a member began its offer to a round, and when it had made it whole."""

    began: float
    whole: float

    @staticmethod
    def next(before: Offered | None, now: float) -> Offered:
        """One more bucket is offered now."""
        return Offered(now if before is None else before.began, now)


def record_round(
    recorder: Recorder, number: int, offered: Offered, held: float, *, event: str = "round"
) -> None:
    """Records when a member made its offer to a round, and when it held the result.

    Where it offered bucket by bucket, ``began`` tells when it began.
    """
    began = {} if offered.began == offered.whole else {"began": round(offered.began, 9)}
    recorder.event(
        event, round=number, **began, offered=round(offered.whole, 9), held=round(held, 9)
    )


class LanDownlink:
    """A local server's end over the LAN.

    Args:
      engine: the root of the center's group; it calls :meth:`merged` with its sums from now on.
      codec: what travels over the LAN.
      buckets: of the vector.
      machine: charges the encoding.
      timeouts: bounds on waits.
      wan: the exchange that takes every chunk's sum at once, if it can go on unchanged; None:
        sums are gathered for :meth:`total`.
      first: number of the first LAN round of this run.
    """

    def __init__(
        self,
        engine: TreeExchange,
        codec: Codec,
        buckets: Sequence[Bucket],
        *,
        machine: Machine,
        timeouts: TimeoutsConfig,
        wan: Exchange | None,
        first: int = 0,
    ):
        self._engine, self._wan, self.passes_on = engine, wan, wan is not None
        self.follow = True
        engine.at_root = self
        self._codec, self._buckets, self._machine = codec, buckets, machine
        self._states = [codec.init(bucket.spec.layers, bucket.ranges) for bucket in buckets]
        self._timeouts = timeouts
        count = sum(len(bucket.chunks) for bucket in buckets)
        self._published = [first - 1] * count
        self._payloads: list[Contribution | None] = [None] * count
        self._bucket_of = {chunk: bucket for bucket in buckets for chunk in bucket.chunks}
        self._sums: dict[tuple[int, int], dict[int, Contribution]] = {}
        self._totals: dict[tuple[int, int], asyncio.Future[Total]] = {}

    def merged(self, number: int, chunk: int, total: Contribution) -> None:
        """Takes a chunk that all workers have contributed to; called by the engine at its root.

        After a change of the membership workers may repeat offers whose round is merged already:
        they get its parameters again.
        """
        if number <= self._published[chunk]:
            again = self._payloads[chunk]
            assert again is not None
            self._engine.publish(number, chunk, again)
        elif self._wan is not None:
            self._wan.offer(number, chunk, total)
        else:
            self._gather(number, chunk, total)

    async def total(self, number: int, bucket: Bucket) -> Total:
        """See :class:`Downlink`."""
        total = await wait_for(
            _slot(self._totals, number, bucket),
            describe=lambda: self._engine.missing(number),
            timeout=self._timeouts.round,
            warn=self._timeouts.warn,
        )
        del self._totals[number, bucket.index]
        return total

    async def publish(self, number: int, bucket: Bucket, values: np.ndarray) -> None:
        """See :class:`Downlink`."""
        issued = self._engine.results(number, bucket.chunks)
        await self._encode(number, bucket, values)
        for chunk in bucket.chunks:
            self._engine.publish(number, chunk, self._payloads[chunk])  # type: ignore[arg-type]
        for old in [key for key in self._sums if key[0] < number]:
            del self._sums[old]
        await wait_for(
            issued,
            describe=lambda: f"workers' part in {self._engine.missing(number)}",
            timeout=self._timeouts.round,
            warn=self._timeouts.warn,
        )

    def stand_for(self, number: int, later: int) -> None:
        """See :class:`Downlink`."""
        self._engine.stand_for(number, later)

    def missing(self, number: int) -> str:
        """See :class:`Downlink`."""
        return f"{self._engine.missing(number)} or "

    def send_initial(self, worker: str, payload: np.ndarray) -> bool:
        """See :class:`Downlink`."""
        policy = self._engine.policy
        mine = policy is not None and worker in policy.members
        if mine:
            self._engine.send_state(worker, -1, payload)
        return mine

    async def begin(self, vector: np.ndarray) -> None:
        """See :class:`Downlink`."""
        for bucket in self._buckets:
            await self._encode(self._published[bucket.chunks[0]], bucket, bucket.of(vector))

    def standing(self) -> dict[int, Contribution]:
        """See :class:`geojax.hips.exchange.tree.RootMerge`."""
        return {at: each for at, each in enumerate(self._payloads) if each is not None}

    async def adopt(self, number: int, vector: np.ndarray) -> None:
        """See :class:`Downlink`; the workers are sent it."""
        if self._engine.policy is None:
            return
        for bucket in self._buckets:
            await self._encode(number, bucket, bucket.of(vector))
        workers = [name for name in self._engine.policy.members if name != self._engine.me]
        self._engine.adopt(number, self._payloads, workers)  # type: ignore[arg-type]

    async def _encode(self, number: int, bucket: Bucket, values: np.ndarray) -> None:
        state = self._states[bucket.index]
        payloads, self._states[bucket.index] = await self._machine.host(
            "encode", values.nbytes, lambda: self._codec.encode(values, state)
        )
        for chunk, payload in zip(bucket.chunks, payloads, strict=True):
            self._published[chunk] = number
            self._payloads[chunk] = Contribution(payload, 1.0, 1)

    def _gather(self, number: int, chunk: int, total: Contribution) -> None:
        bucket = self._bucket_of[chunk]
        sums = self._sums.setdefault((number, bucket.index), {})
        sums[chunk] = total
        slot = _slot(self._totals, number, bucket)
        if slot.done() or len(sums) < len(bucket.chunks):
            return
        mine = [sums[each] for each in bucket.chunks]
        if all(each.abstains for each in mine):
            slot.set_result(Total.abstained(len(mine)))
            return
        slot.set_result(
            Total(
                join([self._codec.decode(each.payload) for each in mine]),  # type: ignore[arg-type]
                tuple(each.weight for each in mine),
                tuple(each.contributors for each in mine),
                tuple(each.steps for each in mine),
                mine[0].loss,
            )
        )
