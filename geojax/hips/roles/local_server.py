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
from typing import Any

import numpy as np

from geojax.config import TimeoutsConfig
from geojax.hips.context import NodeContext
from geojax.hips.control.joining import digest
from geojax.hips.control.member import Membership
from geojax.hips.exchange.base import Exchange
from geojax.hips.exchange.buckets import Bucket, Turns
from geojax.hips.exchange.lan import Downlink, Offered, Total, Uplink, record_round
from geojax.hips.roles.center_exchanges import CenterExchanges
from geojax.hips.roles.center_offers import CenterOffers, Update
from geojax.hips.roles.center_state import CenterState
from geojax.hips.roles.worker import Worker
from geojax.hips.storage.checkpoint import packed_state
from geojax.hips.storage.snapshots import Snapshots
from geojax.hollow import join
from geojax.machine.waits import first_failure, wait_for


class LocalServer:
    """One center's local server; see the module's docstring.

    Args:
      context: its node.
      turns: the buckets of the vector that each round exchanges.
      state: what the center has, at first the initial parameters and model state.
      offers: makes the center's offers.
      update: makes new parameters of the results.
      wan: this center's part in the WAN exchange, of the kind that the algorithm needs.
      link: to the workers.
      worker: the worker in this process, if there is one, and its end of ``link``.
      member: the membership.
      snapshots: keeps models for evaluation.
      within: the exchanges within the center.
    """

    def __init__(
        self,
        context: NodeContext,
        turns: Turns,
        *,
        state: CenterState,
        offers: CenterOffers,
        update: Update,
        wan: Exchange,
        link: Downlink,
        worker: tuple[Worker, Uplink] | None,
        member: Membership,
        snapshots: Snapshots,
        within: CenterExchanges,
    ):
        self._context, self._turns, self._within = context, turns, within
        self._state, self._offers, self._update = state, offers, update
        self._wan, self._link, self._member, self._snapshots = wan, link, member, snapshots
        self._worker, self._uplink = worker or (None, None)
        within.vector = state.vector
        self._offered: dict[int, Offered] = {}
        self._newest, self._held_at = Offered(0.0, 0.0), 0.0
        self._total: Total | None = None  # what was offered in it, if it is here already
        wan.watcher = self

    async def run(self) -> None:
        """Runs from joining to the end of the run."""
        first = await self._begin()
        roles: list[Coroutine[Any, Any, None]] = [self._rounds(first)]
        if self._worker is not None:
            roles.append(self._train(self._worker, first))
        await first_failure([asyncio.create_task(role) for role in roles])

    # ---- rounds

    async def _rounds(self, first: int) -> None:
        number = first
        if self._state.keeps_start:
            await self._state.keep()
        for number in itertools.count(first):
            if not await self._member.granted(number):
                break
            self._total = await self._within.run(number)
            before, center = self._state.vector, await self._exchange(number)
            self._within.vector = center
            await self._snapshots.merged(self._held_at, number - 1, before, speaks=self._speaks)
            self._state.advance(number, center)
            if self._compares and number % self._context.setup.config.hash_every == 0:
                self._member.report_digest(number, digest(center))
            if self._state.due(number):
                await self._state.keep()
        await self._state.flush()
        await self._end(number - 1)

    async def _end(self, last: int) -> None:
        end, vector = self._context.clock(), self._state.vector
        self._wan.retire()
        await self._snapshots.merged(end, last, vector, speaks=self._speaks)
        await self._member.finish()
        self._context.recorder.event("final", at=end, round=last, digest=digest(vector))
        await self._snapshots.finish(end, last, vector, speaks=self._speaks)
        await self._state.flush()

    @property
    def _compares(self) -> bool:
        """Whether centers compare their parameters; asynchronous ones differ by design."""
        return self._context.setup.config.hash_every > 0 and self._wan.replicas

    async def _exchange(self, number: int) -> np.ndarray:
        """A round over the WAN, all its buckets at once; returns the new vector."""
        buckets = self._turns.of(number)
        merged: dict[int, np.ndarray] = {}

        async def exchange(bucket: Bucket) -> None:
            merged[bucket.index] = await self._merge(number, bucket)
            await self._link.publish(self._within.last, bucket, merged[bucket.index])

        if len(buckets) == 1:
            await exchange(buckets[0])
        else:
            await first_failure([asyncio.create_task(exchange(bucket)) for bucket in buckets])
        if len(buckets) < len(self._turns.buckets):
            return buckets[0].put(self._state.vector, merged[buckets[0].index])
        return join([merged[index] for index in range(len(buckets))])

    async def _merge(self, number: int, bucket: Bucket) -> np.ndarray:
        """The path of one bucket: the center's offer up, the result down, and the update."""
        results = self._wan.results(number, bucket.chunks)
        if not self._link.passes_on:
            total = self._within.counted(
                self._total or await self._link.total(self._within.last, bucket)
            )
            await self._offer(number, bucket, total)
        merged = await wait_for(
            results,
            describe=lambda: self._missing(number),
            timeout=self._timeouts.round,
            warn=self._timeouts.warn,
        )
        before, start = bucket.of(self._state.vector), self._context.clock()
        moved = await self._context.machine.host(
            "outer", bucket.nbytes, lambda: self._update.apply(bucket, merged, before)
        )
        self._context.recorder.add("server_s", self._context.clock() - start)
        return moved

    async def _offer(self, number: int, bucket: Bucket, total: Total) -> None:
        start = self._context.clock()
        offered = await self._offers.encoded(bucket, total, self._within.vector, self._state.vector)
        for chunk, contribution in zip(bucket.chunks, offered, strict=True):
            self._wan.offer(number, chunk, contribution)
        now = self._context.clock()
        self._newest = Offered.next(self._offered.get(number), now)
        self._offered[number] = self._newest
        self._context.recorder.add("server_s", now - start)

    def _missing(self, number: int) -> str:
        return self._link.missing(number) + self._wan.missing(number)

    def held(self, number: int) -> None:
        """See :class:`geojax.hips.exchange.base.RoundWatcher`."""
        self._held_at = self._context.clock()
        # one that comes back holds rounds to which it offered nothing
        offered = self._offered.pop(number, self._newest)
        if not self._link.follow:
            record_round(self._context.recorder, number, offered, self._held_at)

    # ---- the worker in this process

    async def _train(self, worker: Worker, first: int) -> None:
        assert self._uplink is not None
        if self._state.keeps_start:
            await self._state.keep_trained(first - 1)
        await worker.train(
            self._uplink, first * self._within.most, granted=self._member.granted,
            keeps=self._state.due, keep=self._state.keep_trained,
        )  # fmt: skip

    # ---- before the first round

    async def _begin(self) -> int:
        """Joins, and returns the first round; who comes back first gets a peer's state."""
        state, clock = self._state, self._context.clock
        alike = not self._context.setup.resume.held  # else each has what it pulled last
        own = digest(state.vector) if alike else None
        start = await self._member.join(state.vector.size, own)
        clock.start_at(start.at, start.time)
        await clock.until_start()
        per = self._within.most
        if start.last is not None and start.last >= 0:
            if self._wan.replicas:
                await state.take_over(self._member.states)
            else:
                await self._pull(start.last)
            if self._worker is not None:
                await self._worker.catch_up((state.held + 1) * per, start.steps)
            await self._link.adopt((state.held + 1) * per - 1, state.vector)
        if start.initial_from is not None:
            await state.take_initial(self._member.states)
        self._within.vector = state.vector
        if self._turns.in_turn:
            await self._link.begin(state.vector)
        self._send_initial(start.initial_to)
        first = state.held + 1
        if self._worker is not None:
            self._worker.start(state.vector, first * per)
        self._member.has_state = True
        return first

    async def _pull(self, last: int) -> None:
        merged = await wait_for(
            self._wan.whole(last),
            describe=lambda: self._wan.missing(last),
            timeout=self._timeouts.round,
            warn=self._timeouts.warn,
        )
        (bucket,) = self._turns.buckets
        self._state.advance(last, self._update.apply(bucket, merged, self._state.vector))

    def _send_initial(self, to: Sequence[str]) -> None:
        """Sends the initial vector to centers or own workers whose is another one."""
        for peer in to:
            payload = packed_state({"vector": self._state.vector})
            if not self._link.send_initial(peer, payload):
                self._wan.send_state(peer, -1, payload)

    @property
    def _timeouts(self) -> TimeoutsConfig:
        return self._context.setup.config.timeouts

    @property
    def _speaks(self) -> bool:
        """Whether this is the first living center, which keeps the snapshots of the model."""
        assert self._wan.policy is not None
        return self._wan.policy.members[0] == self._wan.me
