"""The local server: holds its center's parameters and speaks for the center on the WAN.

Its center's offers come from its own worker (one worker per center: one process) or, over the LAN,
from several; LAN sums go on to the WAN chunk by chunk, without waiting for the rest. The merged
vector takes the outer step once, here, and the new parameters go to the workers.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from geojax.center.outer import OuterOptimizer
from geojax.compression.codec import Codec
from geojax.config import RunConfig
from geojax.hips.checkpoint import Checkpoints, pack, unpack
from geojax.hips.exchange import Contribution, TreeExchange
from geojax.hips.machine import Machine
from geojax.hips.member import Membership
from geojax.hips.snapshots import Snapshots
from geojax.hips.waits import wait_for
from geojax.hips.worker import Worker, exchange
from geojax.hollow import SizeOnly, hollow, is_hollow
from geojax.sync.algorithm import SyncAlgorithm
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder


class LocalServer:
    """One center's local server; see the module's docstring.

    Args:
      config: the run.
      algorithm: how offers are merged and applied.
      vector: initial parameters and model state.
      parameters: how many leading elements of the vector are parameters.
      outer: the outer optimizer.
      codec: what travels; ``codec_state`` is its state for this vector.
      wan: this center's part in the WAN exchange.
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
        parameters: int,
        *,
        outer: OuterOptimizer,
        codec: Codec,
        codec_state: Any,
        wan: TreeExchange,
        member: Membership,
        machine: Machine,
        clock: Clock,
        recorder: Recorder,
        snapshots: Snapshots,
        checkpoints: Checkpoints,
        first: int = 0,
    ):
        self._config, self._algorithm = config, algorithm
        self.vector, self._parameters, self._outer = vector, parameters, outer
        self._codec, self._codec_state = codec, codec_state
        self._wan, self._member, self._machine = wan, member, machine
        self._clock, self._recorder, self._snapshots = clock, recorder, snapshots
        self._checkpoints, self._first = checkpoints, first
        self._worker: Worker | None = None
        self._lan: TreeExchange | None = None
        self._applied = first - 1
        self._wanted: tuple[Sequence[str], int] | None = None
        member.on_state_wanted = self._promise_state

    async def run_with(self, worker: Worker) -> None:
        """Runs with a worker in the same process."""
        self._worker = worker

        async def round_of(number: int) -> list[Contribution]:
            offered = await worker.offer(number, self.vector)
            payloads = await self._encode(offered)
            merged, _ = await exchange(
                self._wan, number, payloads, worker.weight,
                timeouts=self._config.timeouts, clock=self._clock, recorder=self._recorder,
            )  # fmt: skip
            return merged

        async def distribute(number: int) -> None:
            del number
            worker.trainer.load(self.vector)

        await self._run(round_of, distribute)

    async def run_over(self, lan: TreeExchange) -> None:
        """Runs with workers behind the LAN; ``lan`` must call :meth:`lan_merged` at its root."""
        self._lan, self._published, self._payloads = lan, self._first - 1, []

        async def round_of(number: int) -> list[Contribution]:
            return await wait_for(
                self._wan.whole(number),
                describe=lambda: f"{lan.missing(number)} or {self._wan.missing(number)}",
                timeout=self._config.timeouts.round,
                warn=self._config.timeouts.warn,
            )

        async def distribute(number: int) -> None:
            issued = asyncio.ensure_future(lan.whole(number))
            await asyncio.sleep(0)
            self._payloads = await self._encode(self.vector)
            self._published = number
            for chunk, payload in enumerate(self._payloads):
                lan.publish(number, chunk, Contribution(payload, 1.0, 1))
            await wait_for(
                issued,
                describe=lambda: f"workers' part in {lan.missing(number)}",
                timeout=self._config.timeouts.round,
                warn=self._config.timeouts.warn,
            )

        await self._run(round_of, distribute)

    def lan_merged(self, number: int, chunk: int, total: Contribution) -> None:
        """Takes a chunk that all workers of the center have contributed to.

        After a change of the membership workers may repeat offers whose round is merged already:
        they get its parameters again.
        """
        assert self._lan is not None
        if number <= self._published:
            self._lan.publish(number, chunk, Contribution(self._payloads[chunk], 1.0, 1))
        else:
            self._wan.offer(number, chunk, total)

    async def _run(
        self,
        round_of: Callable[[int], Any],
        distribute: Callable[[int], Any],
    ) -> None:
        number = first = await self._begin()
        for number in itertools.count(first):
            if not await self._member.granted(number):
                break
            merged = await round_of(number)
            await self._keep_snapshots(number - 1, self._clock())
            self.vector = await self._machine.host(
                "outer", self.vector.nbytes, lambda merged=merged: self._apply(merged)
            )
            self._applied = number
            self._serve_state()
            if self._config.hash_every and number % self._config.hash_every == 0:
                self._member.report_digest(number, digest(self.vector))
            await distribute(number)
            if self._checkpoints.due(number):
                await self._checkpoints.keep(number, self._clock(), self._state(), self._machine)
        await self._checkpoints.flush()
        end = self._clock()
        await self._keep_snapshots(number - 1, end)
        await self._member.finish()
        self._recorder.event("final", at=end, round=number - 1, digest=digest(self.vector))
        if self._speaks:
            await self._snapshots.finish(end, number - 1, self.vector)

    def _state(self) -> dict[str, Any]:
        """Everything that the next round depends on."""
        state = {"vector": self.vector, "outer": self._outer.state_dict()}
        if self._worker is not None:
            state["trainer"] = self._worker.trainer.state_dict()
        return state

    async def _begin(self) -> int:
        """Joins, and returns the first round; who comes back first gets a peer's state."""
        start = await self._member.join(self.vector.size)
        self._clock.start_at(start.at, start.time)
        await self._clock.until_start()
        first = self._first
        if start.last is not None and start.last >= 0:
            first = await self._catch_up()
        self._member.has_state = True
        return first

    async def _catch_up(self) -> int:
        message = await wait_for(
            self._member.returned,
            describe=lambda: "parameters and outer state from a peer",
            timeout=self._config.timeouts.round,
            warn=self._config.timeouts.warn,
        )
        state = unpack(io.BytesIO(message.payload))  # type: ignore[arg-type]
        self.vector = state["vector"]
        self._outer.load_state(state["outer"])
        self._applied = message.round
        first = message.round + 1
        if self._worker is not None:
            self._worker.trainer.load(self.vector)
            self._worker.catch_up(first)
        if self._lan is not None and self._lan.policy is not None:
            self._payloads = await self._encode(self.vector)
            self._published = message.round
            parts = [Contribution(payload, 1.0, 1) for payload in self._payloads]
            workers = [name for name in self._lan.policy.members if name != self._lan.me]
            self._lan.adopt(message.round, parts, workers)
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
        stream = io.BytesIO()
        pack(stream, {"vector": self.vector, "outer": self._outer.state_dict()})
        payload = np.frombuffer(stream.getvalue(), np.uint8)
        for center in centers:
            self._wan.send_state(center, self._applied, payload)

    @property
    def _speaks(self) -> bool:
        """Whether this is the first living center, which keeps the snapshots of the model."""
        assert self._wan.policy is not None
        return self._wan.policy.members[0] == self._wan.me

    async def _keep_snapshots(self, number: int, now: float) -> None:
        await self._snapshots.merged(now, number, self.vector, speaks=self._speaks)

    async def _encode(self, vector: np.ndarray) -> list:
        payloads, self._codec_state = await self._machine.host(
            "encode", vector.nbytes, lambda: self._codec.encode(vector, self._codec_state)
        )
        return payloads

    def _apply(self, merged: list[Contribution]) -> np.ndarray:
        """The outer step: merged offers in, new vector out."""
        if isinstance(merged[0].payload, SizeOnly):
            return hollow(self.vector.size)
        means = [
            self._algorithm.merge.merge(self._codec.decode(part.payload), part.weight)  # type: ignore[arg-type]
            for part in merged
        ]
        mean = np.concatenate(means)
        split = self._parameters
        mean[:split] = self._algorithm.offer.pseudo_gradient(mean[:split])
        return self._outer.apply(self.vector, mean)


def digest(vector: np.ndarray) -> str:
    """A short digest of a vector's bytes."""
    content = vector[:1].tobytes() if is_hollow(vector) else vector.tobytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()
