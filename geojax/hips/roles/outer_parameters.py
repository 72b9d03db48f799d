"""The outer parameters at a worker: how results reach it, and when they count in its trainer.

Usually the result of a round is loaded at once, and trainer and outer parameters are then equal.
With fragments a result is of a part of the vector; with overlap it first *arrives* in the outer
parameters, and is *loaded* later, blended with what the trainer has made of its own meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from geojax.hips.exchange.buckets import Bucket, Turns
from geojax.hips.exchange.lan import Uplink
from geojax.hollow import is_hollow, join
from geojax.sync.algorithm import WHOLE, Fragmentation
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder


class OuterParameters:
    """See the module's docstring.

    Args:
      trainer: a :class:`geojax.center.trainer.Trainer`.
      buckets: of the vector.
      fragmentation: which of them a round exchanges, and when its result counts.
      staged: results are loaded stage by stage (P3), and ``vector`` is not used.
      clock: experiment time.
      recorder: takes the wait spans.
      lan_rounds: LAN rounds in a round of the WAN.

    Attributes:
      vector: the outer parameters after the last round whose result is here. An algorithm measures
        its offer from it.
      turns: which buckets each round exchanges.
      collected: the last LAN round whose parameters are loaded, all of them.
    """

    def __init__(
        self, trainer: Any, buckets: Sequence[Bucket], fragmentation: Fragmentation, *,
        staged: bool, clock: Clock, recorder: Recorder, lan_rounds: int,
    ):  # fmt: skip
        self._trainer, self._parts, self._staged = trainer, fragmentation, staged
        self._clock, self._recorder, self._lan_rounds = clock, recorder, lan_rounds
        self.turns = Turns(tuple(buckets), fragmentation.fragments > 1)
        # Else the trainer's values are the outer parameters between any two rounds.
        self._apart = fragmentation != WHOLE._replace(pattern=fragmentation.pattern)
        self.vector = np.zeros(0, np.float32)
        self.collected = self._arrived = -1
        self._own: np.ndarray | None = None  # the trainer's values, out of a checkpoint
        self._left: np.ndarray | None = None  # the trainer's values when the last offer left

    def start(self, vector: np.ndarray, number: int) -> None:
        """Begins LAN round ``number`` from ``vector``."""
        self.vector = vector.copy() if self._apart and not is_hollow(vector) else vector
        self._arrived = self.collected = number - 1
        if self._own is None:
            self._trainer.load(vector)
        else:  # with overlap it was kept before its last offer's result was loaded
            self._trainer.load(self._own)
            self._left = self._own
            self._own, self.collected = None, number - 1 - (self._parts.overlap > 0)

    def warm_up(self) -> None:
        """Compiles what loads fragments."""
        if self.turns.in_turn:
            vector = self._trainer.vector()
            for bucket in self.turns.buckets:
                self._put(bucket, bucket.of(vector))

    def kept(self) -> np.ndarray:
        """The outer parameters, for a checkpoint."""
        return self.vector.copy() if self._apart else self._trainer.vector()

    def state_dict(self) -> dict[str, Any]:
        """The trainer's values, where these are not the outer parameters."""
        return {"own": self._trainer.vector()} if self._apart else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`; :meth:`start` follows."""
        self._own = state.get("own")

    async def load_stage(self, link: Uplink, number: int, bucket: Bucket) -> bool:
        """Loads a stage as it is after a round; returns whether it had to wait for it."""
        waits = not link.here(number, bucket)
        self._put(bucket, await self._result(link, number, bucket))
        return waits

    def offered(self) -> None:
        """The trainer's values leave as an offer."""
        if self._parts.carry:
            self._left = self._trainer.vector()

    async def settle(self, link: Uplink, number: int) -> None:
        """Takes what a checkpoint after a round needs: with overlap, nothing is loaded for it."""
        await (self.arrive if self._parts.overlap else self.collect)(link, number)

    def stands_for(self, number: int) -> None:
        """What is loaded is what LAN round ``number`` ends with, too."""
        self._arrived = self.collected = number

    async def arrive(self, link: Uplink, number: int) -> None:
        """Takes the result of a round into ``vector``, if it is not there yet."""
        if self._arrived >= number:
            return
        buckets = self.turns.of(number)
        parts = [await self._result(link, number, bucket) for bucket in buckets]
        if not self._apart:
            self.vector = parts[0] if len(parts) == 1 else join(parts)
        elif not is_hollow(parts[0]):  # in place: a round under way measures its offer from it
            for bucket, values in zip(buckets, parts, strict=True):
                for start, stop, piece in bucket.split(values):
                    self.vector[start:stop] = piece
        self._arrived = number

    async def collect(self, link: Uplink, number: int) -> None:
        """Loads the parameters after a round, if they are not loaded yet."""
        if self.collected >= number:
            return
        if self._staged:
            for bucket in self.turns.buckets:
                await self.load_stage(link, number, bucket)
        else:
            await self.arrive(link, number)
            self._load(self.turns.of(number))
        self.collected = number

    def _load(self, buckets: Sequence[Bucket]) -> None:
        """Loads a round's part of ``vector`` with what of the trainer's own values is kept."""
        values, share = self.vector, np.float32(self._parts.blend)
        if share and not is_hollow(values):
            values = share * self._trainer.vector() + (np.float32(1) - share) * values
        elif self._parts.carry and not is_hollow(values):
            assert self._left is not None
            values = values + (self._trainer.vector() - self._left)
        if len(buckets) == len(self.turns.buckets):
            self._trainer.load(values)
        else:
            self._put(buckets[0], buckets[0].of(values))

    def _put(self, bucket: Bucket, values: np.ndarray) -> None:
        for piece in bucket.split(values):
            self._trainer.load_part(*piece)

    async def _result(self, link: Uplink, number: int, bucket: Bucket) -> np.ndarray:
        """A bucket as it is after a round; a wait for it is recorded."""
        start, waits = self._clock(), not link.here(number, bucket)
        values = await link.parameters(number, bucket)
        if waits and self._clock() > start:
            round_of = number // self._lan_rounds
            self._recorder.span("wait", start, self._clock(), round=round_of)
        return values
