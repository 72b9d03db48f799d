"""The local server: holds its center's parameters and speaks for the center on the WAN.

Its center's offers come from its own worker (one worker per center: one process) or, over the
LAN, from several. Where nothing has to be done to them, LAN sums go on to the WAN chunk by chunk,
without waiting for the rest. The merged vector takes the outer step once, here, and the new
parameters go to the workers. In an asynchronous algorithm the outer step is the global server's,
and parameters come back.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np

from geojax.config import RunConfig
from geojax.hips.control.joining import digest
from geojax.hips.control.member import Membership
from geojax.hips.exchange.base import Exchange
from geojax.hips.exchange.buckets import Bucket
from geojax.hips.exchange.lan import Downlink, Total, Uplink, record_round
from geojax.hips.roles.center_offers import CenterOffers, Update
from geojax.hips.roles.worker import Worker
from geojax.hips.storage.checkpoint import Checkpoints, packed_state, unpacked_state
from geojax.hips.storage.snapshots import Snapshots
from geojax.hollow import join
from geojax.machine.machine import Machine
from geojax.machine.waits import first_failure, wait_for
from geojax.sync.algorithm import SyncAlgorithm
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder

T = TypeVar("T")


class LocalServer:
    """One center's local server; see the module's docstring.

    Args:
      config: the run.
      algorithm: how offers are merged and applied.
      vector: initial parameters and model state.
      buckets: of the vector.
      offers: makes the center's offers.
      update: makes new parameters of the results.
      wan: this center's part in the WAN exchange, of the kind that the algorithm needs.
      link: to the workers.
      worker: the worker in this process, if there is one, and its end of ``link``.
      member: the membership.
      machine: charges host work.
      clock: experiment time.
      recorder: takes the events.
      snapshots: keeps models for evaluation.
      checkpoints: keeps states to continue from.
      first: number of the first round; more than 0 when the run continues a broken one.
    """

    def __init__(
        self,
        config: RunConfig,
        algorithm: SyncAlgorithm,
        vector: np.ndarray,
        buckets: Sequence[Bucket],
        *,
        offers: CenterOffers,
        update: Update,
        wan: Exchange,
        link: Downlink,
        worker: tuple[Worker, Uplink] | None,
        member: Membership,
        machine: Machine,
        clock: Clock,
        recorder: Recorder,
        snapshots: Snapshots,
        checkpoints: Checkpoints,
        first: int = 0,
    ):
        self._config, self._algorithm = config, algorithm
        self._buckets, self._offers, self._update = tuple(buckets), offers, update
        self._wan, self._link = wan, link
        self._worker, self._uplink = worker or (None, None)
        self._member, self._machine, self._clock, self._recorder = member, machine, clock, recorder
        self._snapshots, self._checkpoints, self._first = snapshots, checkpoints, first
        self._applied = first - 1
        self._wanted: tuple[Sequence[str], int] | None = None
        self._offered, self._held_at = 0.0, 0.0
        self._trainer_states: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._kept: dict[int, asyncio.Future[None]] = {}
        self.vector = self._center = vector  # globally agreed; what the center's workers have
        member.on_state_wanted = self._promise_state
        wan.on_held = self._held

    async def run(self) -> None:
        """Runs from joining to the end of the run."""
        first = await self._begin()
        roles: list[Coroutine[Any, Any, None]] = [self._rounds(first)]
        if self._worker is not None:
            roles.append(self._train(self._worker, first))
        await first_failure([asyncio.create_task(role) for role in roles])

    def load(self, kept: dict[str, Any]) -> None:
        """Takes the state of a checkpoint; :meth:`_state` is its inverse."""
        self._update.load(kept["outer"])
        self._offers.load(kept["codec"])
        if self._worker is not None:
            self._worker.trainer.load_state(kept["trainer"])

    # ---- rounds

    async def _rounds(self, first: int) -> None:
        number = first
        for number in itertools.count(first):
            if not await self._member.granted(number):
                break
            for alone in range(self._algorithm.lan_rounds - 1):
                await self._average_alone(number * self._algorithm.lan_rounds + alone)
            before = self.vector
            self.vector = self._center = await self._exchange(number)
            await self._snapshots.merged(self._held_at, number - 1, before, speaks=self._speaks)
            self._applied = number
            self._serve_state()
            if self._compares and number % self._config.hash_every == 0:
                self._member.report_digest(number, digest(self.vector))
            if self._checkpoints.due(number):
                await self._keep_checkpoint(number)
        await self._checkpoints.flush()
        await self._end(number - 1)

    async def _end(self, last: int) -> None:
        end = self._clock()
        self._wan.retire()
        await self._snapshots.merged(end, last, self.vector, speaks=self._speaks)
        await self._member.finish()
        self._recorder.event("final", at=end, round=last, digest=digest(self.vector))
        await self._snapshots.finish(end, last, self.vector, speaks=self._speaks)

    @property
    def _compares(self) -> bool:
        """Whether centers compare their parameters; asynchronous ones differ by design."""
        return self._config.hash_every > 0 and self._wan.replicas

    async def _average_alone(self, lan_number: int) -> None:
        """An exchange within the center: its workers go on from their mean."""
        (bucket,) = self._buckets
        total = await self._link.total(lan_number, bucket)
        self._center = self._offers.moved(total, self._center)
        await self._link.publish(lan_number, bucket, self._center)

    async def _exchange(self, number: int) -> np.ndarray:
        """A round over the WAN, all buckets at once; returns the new vector."""
        merged: list[np.ndarray] = [self.vector] * len(self._buckets)

        async def exchange(bucket: Bucket) -> None:
            merged[bucket.index] = await self._merge(number, bucket)
            last = (number + 1) * self._algorithm.lan_rounds - 1
            await self._link.publish(last, bucket, merged[bucket.index])

        if len(self._buckets) == 1:
            await exchange(self._buckets[0])
        else:
            await first_failure([asyncio.create_task(exchange(bucket)) for bucket in self._buckets])
        return join(merged)

    async def _merge(self, number: int, bucket: Bucket) -> np.ndarray:
        """The path of one bucket: the center's offer up, the result down, and the update."""
        results = self._wan.results(number, bucket.chunks)
        if not self._link.passes_on:
            last = (number + 1) * self._algorithm.lan_rounds - 1
            await self._offer(number, bucket, await self._link.total(last, bucket))
        merged = await wait_for(
            results,
            describe=lambda: self._missing(number),
            timeout=self._config.timeouts.round,
            warn=self._config.timeouts.warn,
        )
        before = bucket.of(self.vector)
        return await self._machine.host(
            "outer", bucket.nbytes, lambda: self._update.apply(bucket, merged, before)
        )

    async def _offer(self, number: int, bucket: Bucket, total: Total) -> None:
        offered = await self._offers.encoded(bucket, total, self._center, self.vector)
        for chunk, contribution in zip(bucket.chunks, offered, strict=True):
            self._wan.offer(number, chunk, contribution)
        self._offered = self._clock()

    def _missing(self, number: int) -> str:
        return self._link.missing(number) + self._wan.missing(number)

    def _held(self, number: int) -> None:
        self._held_at = self._clock()
        if self._worker is not None:
            record_round(self._recorder, number, self._offered, self._held_at)

    # ---- the worker in this process

    async def _train(self, worker: Worker, first: int) -> None:
        assert self._uplink is not None

        async def keep(number: int) -> None:
            state = _slot(self._trainer_states, number)
            state.set_result(worker.trainer.state_dict())
            await _slot(self._kept, number)
            del self._kept[number]

        await worker.train(
            self._uplink, first * self._algorithm.lan_rounds,
            granted=self._member.granted, keeps=self._checkpoints.due, keep=keep,
        )  # fmt: skip

    # ---- states

    async def _keep_checkpoint(self, number: int) -> None:
        state = {"vector": self.vector, **self._state()}
        if self._worker is not None:
            state["trainer"] = await _slot(self._trainer_states, number)
            del self._trainer_states[number]
        await self._checkpoints.keep(number, self._clock(), state, self._machine)
        if self._worker is not None:  # it stands still, so that what it counts is of this round
            _slot(self._kept, number).set_result(None)

    def _state(self) -> dict[str, Any]:
        """Everything but vector and trainer that the next round depends on."""
        return {
            "outer": self._update.state(),
            "codec": self._offers.state(),
        }

    async def _begin(self) -> int:
        """Joins, and returns the first round; who comes back first gets a peer's state."""
        start = await self._member.join(self.vector.size, digest(self.vector))
        self._clock.start_at(start.at, start.time)
        await self._clock.until_start()
        first = self._first
        if start.last is not None and start.last >= 0:
            first = await (self._catch_up() if self._wan.replicas else self._pull(start.last))
        if start.initial_from is not None:
            self.vector = self._center = (await self._received())["vector"]
        self._send_initial(start.initial_to)
        if self._worker is not None:
            self._worker.start(self.vector, first * self._algorithm.lan_rounds)
        self._member.has_state = True
        return first

    async def _pull(self, last: int) -> int:
        merged = await wait_for(
            self._wan.whole(last),
            describe=lambda: self._wan.missing(last),
            timeout=self._config.timeouts.round,
            warn=self._config.timeouts.warn,
        )
        (bucket,) = self._buckets
        self.vector = self._center = self._update.apply(bucket, merged, self.vector)
        return await self._go_on_after(last)

    async def _catch_up(self) -> int:
        state = await self._received()
        self.vector = self._center = state["vector"]
        self._update.load(state["outer"])
        return await self._go_on_after(self._member.returned.result().round)

    async def _received(self) -> Any:
        """A state that another node sends."""
        message = await wait_for(
            self._member.returned,
            describe=lambda: "parameters and outer state from a peer",
            timeout=self._config.timeouts.round,
            warn=self._config.timeouts.warn,
        )
        return unpacked_state(message.payload)

    def _send_initial(self, to: Sequence[str]) -> None:
        """Sends the initial vector to centers or own workers whose is another one."""
        for peer in to:
            payload = packed_state({"vector": self.vector})
            if not self._link.send_initial(peer, payload):
                self._wan.send_state(peer, -1, payload)

    async def _go_on_after(self, last: int) -> int:
        """Takes the place of one who has done round ``last`` with these parameters."""
        self._applied, first = last, last + 1
        if self._worker is not None:
            self._worker.catch_up(first * self._algorithm.lan_rounds)
        await self._link.adopt(first * self._algorithm.lan_rounds - 1, self.vector)
        return first

    def _promise_state(self, centers: Sequence[str], number: int) -> None:
        """Will send this center's state after round ``number`` to centers that come back."""
        self._wanted = (centers, number)
        self._serve_state()

    def _serve_state(self) -> None:
        if self._wanted is None or self._applied < self._wanted[1]:
            return
        centers, _ = self._wanted
        self._wanted = None
        payload = packed_state({"vector": self.vector, "outer": self._state()["outer"]})
        for center in centers:
            self._wan.send_state(center, self._applied, payload)

    @property
    def _speaks(self) -> bool:
        """Whether this is the first living center, which keeps the snapshots of the model."""
        assert self._wan.policy is not None
        return self._wan.policy.members[0] == self._wan.me


def _slot(slots: dict[int, asyncio.Future[T]], number: int) -> asyncio.Future[T]:
    """The future of a round, made by who comes first."""
    if number not in slots:
        slots[number] = asyncio.get_running_loop().create_future()
    return slots[number]
