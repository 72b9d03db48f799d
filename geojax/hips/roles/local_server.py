"""The local server: holds its center's parameters and speaks for the center on the WAN.

Its center's offers come from its own worker (one worker per center: one process) or, over the
LAN, from several. Where nothing has to be done to them, LAN sums go on to the WAN chunk by chunk,
without waiting for the rest. The merged vector takes the outer step once, here, and the new
parameters go to the workers. In an asynchronous algorithm the outer step is the global server's,
and parameters come back.
"""

from __future__ import annotations

import asyncio
import io
import itertools
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np

from geojax.center.outer import OuterOptimizer
from geojax.compression.codec import Codec, restore_state
from geojax.config import RunConfig
from geojax.hips.control.joining import digest
from geojax.hips.control.member import Membership
from geojax.hips.exchange.buckets import Bucket
from geojax.hips.exchange.contribution import Contribution, contribution_of
from geojax.hips.exchange.lan import DirectLink, LanDownlink, Total, record_round
from geojax.hips.exchange.push_pull import PushPullExchange
from geojax.hips.exchange.tree import TreeExchange
from geojax.hips.roles.worker import Worker
from geojax.hips.storage.checkpoint import Checkpoints, pack, unpack
from geojax.hips.storage.shard_snapshots import ShardSnapshots
from geojax.hips.storage.snapshots import Snapshots
from geojax.hollow import SizeOnly, hollow, is_hollow, join
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
      outers: the outer optimizer of each bucket.
      codec: what travels over the WAN.
      wan: this center's part in the WAN exchange, of the kind that the algorithm needs.
      link: to the workers.
      worker: the worker in this process, if there is one.
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
        outers: Sequence[OuterOptimizer],
        codec: Codec,
        wan: TreeExchange | PushPullExchange,
        link: DirectLink | LanDownlink,
        worker: Worker | None,
        member: Membership,
        machine: Machine,
        clock: Clock,
        recorder: Recorder,
        snapshots: Snapshots | ShardSnapshots,
        checkpoints: Checkpoints,
        first: int = 0,
    ):
        self._config, self._algorithm = config, algorithm
        self._buckets, self._outers, self._codec = tuple(buckets), tuple(outers), codec
        self._codec_states = [codec.init(bucket.spec.layers, bucket.ranges) for bucket in buckets]
        self._wan, self._link, self._worker = wan, link, worker
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
        for outer, state in zip(self._outers, kept["outer"], strict=True):
            outer.load_state(state)
        pairs = zip(self._codec_states, kept["codec"], strict=True)
        self._codec_states = [restore_state(fresh, state) for fresh, state in pairs]
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
            await self._keep_snapshots(number - 1, self._held_at, before)
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
        if isinstance(self._wan, PushPullExchange):
            self._wan.retire()
        else:
            await self._keep_snapshots(last, end, self.vector)
        await self._member.finish()
        self._recorder.event("final", at=end, round=last, digest=digest(self.vector))
        if isinstance(self._snapshots, ShardSnapshots):
            await self._snapshots.finish(speaks=self._speaks)
        elif self._speaks:
            await self._snapshots.finish(end, last, self.vector)

    @property
    def _compares(self) -> bool:
        """Whether centers compare their parameters; asynchronous ones differ by design."""
        return self._config.hash_every > 0 and isinstance(self._wan, TreeExchange)

    async def _average_alone(self, lan_number: int) -> None:
        """An exchange within the center: its workers go on from their mean."""
        (bucket,) = self._buckets
        total = await self._link.total(lan_number, bucket)
        self._center = self._moved(total)
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
        """One part's way: the center's offer up, the merged one down, and the outer step."""
        results = self._wan.ask(number, bucket.chunks)
        if not self._link.passes_on:
            last = (number + 1) * self._algorithm.lan_rounds - 1
            await self._offer(number, bucket, await self._link.total(last, bucket))
        merged = await wait_for(
            results,
            describe=lambda: self._missing(number),
            timeout=self._config.timeouts.round,
            warn=self._config.timeouts.warn,
        )
        return await self._machine.host("outer", bucket.nbytes, lambda: self._apply(bucket, merged))

    async def _offer(self, number: int, bucket: Bucket, total: Total) -> None:
        total = self._counted(total)
        kept = state = self._codec_states[bucket.index]
        empty = not any(total.weights)
        if empty:  # it counts nothing, so what has accumulated stays here for the next offer
            state = self._codec.init(bucket.spec.layers, bucket.ranges)
        if self._codec.observe is not None and total.loss is not None:
            state = self._codec.observe(state, total.loss)
        payloads, state = await self._machine.host(
            "encode", total.vector.nbytes, lambda: self._codec.encode(total.vector, state)
        )
        self._codec_states[bucket.index] = kept if empty else state
        for at, (chunk, payload) in enumerate(zip(bucket.chunks, payloads, strict=True)):
            contribution = contribution_of(
                payload, total.weights[at], contributors=total.contributors[at],
                loss=None if at else total.loss,
            )  # fmt: skip
            self._wan.offer(number, chunk, contribution)
        self._offered = self._clock()

    def _counted(self, total: Total) -> Total:
        """A center's sum as it counts in the merge over the WAN."""
        if self._algorithm.lan_rounds > 1:  # from the last global parameters, not the center's own
            vector, split = self._moved(total), self._buckets[0].spec.parameters
            vector[:split] -= self.vector[:split]
            total = total._replace(vector=self._scaled(vector, total.weights))
        if self._algorithm.weights == "centers":
            inverse = tuple(1.0 / weight if weight else 0.0 for weight in total.weights)
            vector = self._scaled(total.vector, inverse)
            weights = tuple(float(weight > 0) for weight in total.weights)
            total = total._replace(vector=vector, weights=weights)
        return total

    def _moved(self, total: Total) -> np.ndarray:
        """The center's parameters after its workers' mean delta; model state is their mean."""
        inverse = tuple(1.0 / weight if weight else 0.0 for weight in total.weights)
        moved, split = self._scaled(total.vector, inverse), self._buckets[0].spec.parameters
        moved[:split] += self._center[:split]
        return moved

    def _scaled(self, vector: np.ndarray, factors: Sequence[float]) -> np.ndarray:
        """A fresh vector, every chunk times its factor."""
        if is_hollow(vector):
            return vector
        pieces = zip(self._buckets[0].ranges, factors, strict=True)
        return join([vector[start:stop] * np.float32(factor) for (start, stop), factor in pieces])

    def _apply(self, bucket: Bucket, merged: list[Contribution]) -> np.ndarray:
        """The outer step: merged offers in, new values out."""
        if isinstance(merged[0].payload, SizeOnly):
            return hollow(bucket.stop - bucket.start)
        if isinstance(self._wan, PushPullExchange):  # it has taken the step: these are parameters
            return join([self._wan.answers.decode(chunk.payload) for chunk in merged])  # type: ignore[arg-type]
        decoded = [self._codec.decode(chunk.payload) for chunk in merged]  # type: ignore[arg-type]
        if not all(chunk.weight for chunk in merged):  # nobody had anything finite to offer
            return bucket.of(self.vector)
        pairs = zip(decoded, merged, strict=True)
        mean = join([self._algorithm.merge.merge(sums, chunk.weight) for sums, chunk in pairs])
        split = bucket.spec.parameters
        mean[:split] = self._algorithm.offer.pseudo_gradient(mean[:split])
        return self._outers[bucket.index].apply(bucket.of(self.vector), mean)

    def _missing(self, number: int) -> str:
        lan = f"{self._link.missing(number)} or " if isinstance(self._link, LanDownlink) else ""
        return lan + self._wan.missing(number)

    def _held(self, number: int) -> None:
        self._held_at = self._clock()
        if self._worker is not None:
            record_round(self._recorder, number, self._offered, self._held_at)

    # ---- the worker in this process

    async def _train(self, worker: Worker, first: int) -> None:
        assert isinstance(self._link, DirectLink)

        async def keep(number: int) -> None:
            state = _slot(self._trainer_states, number)
            state.set_result(worker.trainer.state_dict())
            await _slot(self._kept, number)
            del self._kept[number]

        await worker.train(
            self._link, first * self._algorithm.lan_rounds,
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
            "outer": [outer.state_dict() for outer in self._outers],
            "codec": self._codec_states,
        }

    async def _begin(self) -> int:
        """Joins, and returns the first round; who comes back first gets a peer's state."""
        start = await self._member.join(self.vector.size, digest(self.vector))
        self._clock.start_at(start.at, start.time)
        await self._clock.until_start()
        first = self._first
        if start.last is not None and start.last >= 0:
            first = await (self._pull(start.last) if self._pulls else self._catch_up())
        if start.initial_from is not None:
            self.vector = self._center = unpack(await self._received())["vector"]
        self._send_initial(start.initial_to)
        if self._worker is not None:
            self._worker.start(self.vector, first * self._algorithm.lan_rounds)
        self._member.has_state = True
        return first

    @property
    def _pulls(self) -> bool:
        """Whether a center that comes back gets its parameters from the global servers."""
        return isinstance(self._wan, PushPullExchange)

    async def _pull(self, last: int) -> int:
        merged = await wait_for(
            self._wan.whole(last),
            describe=lambda: self._wan.missing(last),
            timeout=self._config.timeouts.round,
            warn=self._config.timeouts.warn,
        )
        (bucket,) = self._buckets
        self.vector = self._center = self._apply(bucket, merged)
        return await self._go_on_after(last)

    async def _catch_up(self) -> int:
        state = unpack(await self._received())
        self.vector = self._center = state["vector"]
        for outer, kept in zip(self._outers, state["outer"], strict=True):
            outer.load_state(kept)
        return await self._go_on_after(self._member.returned.result().round)

    async def _received(self) -> io.BytesIO:
        """A state that another node sends."""
        message = await wait_for(
            self._member.returned,
            describe=lambda: "parameters and outer state from a peer",
            timeout=self._config.timeouts.round,
            warn=self._config.timeouts.warn,
        )
        return io.BytesIO(message.payload)  # type: ignore[arg-type]

    def _send_initial(self, to: Sequence[str]) -> None:
        """Sends the initial vector to centers or own workers whose is another one."""
        for peer in to:
            mine = self._link.engine if isinstance(self._link, LanDownlink) else None
            engine = mine if mine is not None and peer.startswith(f"{self._wan.me}/") else self._wan
            assert isinstance(engine, TreeExchange)
            engine.send_state(peer, -1, packed_state({"vector": self.vector}))

    async def _go_on_after(self, last: int) -> int:
        """Takes the place of one who has done round ``last`` with these parameters."""
        self._applied, first = last, last + 1
        if self._worker is not None:
            self._worker.catch_up(first * self._algorithm.lan_rounds)
        if isinstance(self._link, LanDownlink):
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
        assert isinstance(self._wan, TreeExchange)
        payload = packed_state({"vector": self.vector, "outer": self._state()["outer"]})
        for center in centers:
            self._wan.send_state(center, self._applied, payload)

    @property
    def _speaks(self) -> bool:
        """Whether this is the first living center, which keeps the snapshots of the model."""
        assert self._wan.policy is not None
        return self._wan.policy.members[0] == self._wan.me

    async def _keep_snapshots(self, number: int, now: float, vector: np.ndarray) -> None:
        if isinstance(self._snapshots, ShardSnapshots):
            await self._snapshots.keep()
        else:
            await self._snapshots.merged(now, number, vector, speaks=self._speaks)


def _slot(slots: dict[int, asyncio.Future[T]], number: int) -> asyncio.Future[T]:
    """The future of a round, made by who comes first."""
    if number not in slots:
        slots[number] = asyncio.get_running_loop().create_future()
    return slots[number]


def packed_state(state: Any) -> np.ndarray:
    """A state as the payload of a message."""
    stream = io.BytesIO()
    pack(stream, state)
    return np.frombuffer(stream.getvalue(), np.uint8)
