"""A LAN whose local server waits for none of its workers: both exchange one by one.

The LAN's exchange is a :class:`geojax.hips.exchange.push_pull.PushPullExchange` like the WAN's,
with the local server as its only server. Workers push and pull; each counts its own LAN rounds. The
local server is a member, too: round r of its own is round r of the WAN, and what it pushes are the
parameters that came back. So they have their place in the order of the workers' pushes, and every
answer tells by its ``applied`` which round of the WAN a worker's parameters contain. By that a
worker's grants go (:meth:`PushPullExchange.contains`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np

from geojax.compression.codec import Codec
from geojax.config import TimeoutsConfig
from geojax.hips.exchange.buckets import Bucket
from geojax.hips.exchange.contribution import contribution_of
from geojax.hips.exchange.cuts import Cut
from geojax.hips.exchange.lan import Total
from geojax.hips.exchange.push_pull import PushPullExchange
from geojax.hips.exchange.served_shard import ServedShard
from geojax.hollow import is_hollow
from geojax.machine.machine import Machine
from geojax.machine.waits import wait_for


class AsyncDownlink:
    """A local server's end of such a LAN; see :class:`geojax.hips.exchange.lan.Downlink`.

    What the center offers is how far its model has moved from its *reference*: the model just after
    the last parameters of the WAN were mixed in, at first the initial one. It is offered at the
    instant at which so many pushes have moved it. Later pushes move the model, and are not in that
    offer. So until its answer is mixed in, the offer is a state of its own, which a cut has, too.

    Args:
      engine: the local server's part in the exchange of its LAN.
      codec: of pushes on the LAN.
      bucket: all of the vector.
      start: the initial model.
      offers: pushes of workers that make an offer of the center.
      machine: charges the encoding.
      timeouts: bounds on waits.
    """

    passes_on = False
    follow = False

    def __init__(
        self,
        engine: PushPullExchange,
        codec: Codec,
        bucket: Bucket,
        start: np.ndarray,
        *,
        offers: int,
        machine: Machine,
        timeouts: TimeoutsConfig,
    ):
        self._engine, self._codec, self._bucket, self._offers = engine, codec, bucket, offers
        self._machine, self._timeouts = machine, timeouts
        self._reference, self._since, self._mixed = start, 0, engine.held
        self._steps = 0  # that had moved the model up to the reference
        self._offered: tuple[np.ndarray, int] | None = None  # until its answer is mixed in
        self._moved: asyncio.Future[tuple[np.ndarray, int]]
        self._moved = asyncio.get_running_loop().create_future()
        engine.on_merged = self._merged

    def _merged(self, hosted: ServedShard) -> None:
        """The model has moved: by a worker's push, or by parameters of the WAN."""
        shard, mixed = hosted.shard, hosted.progress.get(self._engine.me, -1)
        if mixed > self._mixed:
            self._begin(mixed, shard.vector, shard.version, hosted.steps)
        elif shard.version == self._since + self._offers:
            self._offered = self._difference(shard.vector), hosted.steps - self._steps
            self._moved.set_result(self._offered)

    def _begin(self, mixed: int, reference: np.ndarray, since: int, steps: int) -> None:
        """The next offer is counted from here: round ``mixed`` of the WAN is mixed in."""
        self._mixed, self._reference, self._since, self._offered = mixed, reference, since, None
        self._steps = steps

    def _difference(self, vector: np.ndarray) -> np.ndarray:
        """How far parameters have moved, and model state as it is."""
        if is_hollow(vector):
            return vector
        moved, split = vector.copy(), self._bucket.spec.parameters
        moved[:split] -= self._reference[:split]
        return moved

    async def total(self, number: int, bucket: Bucket) -> Total:
        """See :class:`geojax.hips.exchange.lan.Downlink`: one offer, of the center."""
        del number
        count = len(bucket.chunks)
        name = self._engine.me
        vector, steps = await wait_for(
            self._moved,
            describe=lambda: f"{self._offers} pushes of {name}'s workers",
            timeout=self._timeouts.round,
            warn=self._timeouts.warn,
        )
        self._moved = asyncio.get_running_loop().create_future()
        return Total(vector, (1.0,) * count, (1,) * count, (steps,) * count, None)

    async def publish(self, number: int, bucket: Bucket, values: np.ndarray) -> None:
        """See :class:`geojax.hips.exchange.lan.Downlink`: mixes them in."""
        state = self._codec.init(bucket.spec.layers, bucket.ranges)
        payloads, _ = await self._machine.host(
            "encode", values.nbytes, lambda: self._codec.encode(values, state)
        )
        mixed = self._engine.results(number, bucket.chunks)
        for chunk, payload in zip(bucket.chunks, payloads, strict=True):
            self._engine.offer(number, chunk, contribution_of(payload, 1.0))
        await wait_for(
            mixed,
            describe=lambda: self._engine.missing(number),
            timeout=self._timeouts.round,
            warn=self._timeouts.warn,
        )

    async def adopt(self, number: int, vector: np.ndarray) -> None:
        """See :class:`geojax.hips.exchange.lan.Downlink`: workers may pull now."""
        self._begin(number, vector, 0, 0)
        self._moved = asyncio.get_running_loop().create_future()
        self._engine.host([vector[start:stop] for start, stop in self._bucket.ranges])

    def missing(self, number: int) -> str:
        """See :class:`geojax.hips.exchange.lan.Downlink`: pushes are waited for before that."""
        del number
        return ""

    def send_initial(self, worker: str, payload: np.ndarray) -> bool:
        """See :class:`geojax.hips.exchange.lan.Downlink`: a run of this kind starts without."""
        del worker, payload
        return False

    async def begin(self, vector: np.ndarray) -> None:
        """See :class:`geojax.hips.exchange.lan.Downlink`: no round exchanges a part."""

    def stand_for(self, number: int, later: int) -> None:
        """See :class:`geojax.hips.exchange.lan.Downlink`: no number is skipped."""

    # ---- cuts

    def part_of(self, cut: Cut) -> dict[str, Any]:
        """What a cut has of this LAN at its local server; its workers take their parts, too."""
        return {
            **self._engine.part_of(cut), "reference": self._reference, "since": self._since,
            "offered": None if self._offered is None else [*self._offered], "steps": self._steps,
        }  # fmt: skip

    def load(self, kept: Mapping[str, Any]) -> None:
        """The inverse of :meth:`part_of`; the engine has gone on from its part already."""
        self._begin(self._engine.held, kept["reference"], kept["since"], kept["steps"])
        if kept["offered"] is not None:
            vector, steps = kept["offered"]
            self._offered = vector, steps
            self._moved.set_result(self._offered)
