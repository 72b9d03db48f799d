"""Models of an asynchronous run on a grid of experiment time, put together from their shards.

The grid, and what becomes of a model, are those of :mod:`geojax.hips.storage.snapshots`. But no
node has the whole model here: each global server keeps its part of it at every grid point, and a
model is whole when the parts of all chunks are there. In simulation the nodes share an object in
which they gather; else parts are files, and the center that speaks puts them together after the
run.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from geojax.config import TimeoutsConfig
from geojax.hips.exchange.shard_server import ServedShard
from geojax.hips.storage.snapshots import Evaluator
from geojax.hollow import is_hollow, join
from geojax.machine.machine import Machine
from geojax.machine.waits import wait_for
from geojax.telemetry.recorder import Recorder

FINAL = float("inf")  # the grid point of the last model
_LOOK_S = 0.05  # s between two looks for parts of the last model


class ShardModel(NamedTuple):
    """A shard's values at one grid point.

    Attributes:
      point: experiment time, s; :data:`FINAL` for the last model.
      pieces: the elements of each of its chunks.
      number: highest round of any center that they contain; −1: none.
      at: experiment time at which they were last changed, s.
    """

    point: float
    pieces: dict[int, np.ndarray]
    number: int
    at: float


class Parts(Protocol):
    """Where the parts of all nodes come together."""

    inline: bool  # whole models are evaluated at once

    def add(self, part: ShardModel) -> None:
        """Takes a part, unless its chunks are there for this point already."""
        ...

    async def flush(self, machine: Machine) -> None:
        """Makes sure that others can see what was added."""
        ...

    def points(self) -> list[float]:
        """Grid points of which there are parts, in order, without the last model."""
        ...

    def take(self, point: float) -> list[ShardModel]:
        """All parts of a point; where several have a chunk, the first one counts."""
        ...

    def drop(self, point: float) -> None:
        """The model of this point is not needed any more."""
        ...


class SharedParts:
    """Parts in memory, for nodes that share a process (simulation)."""

    inline = True

    def __init__(self) -> None:
        self._parts: dict[float, list[ShardModel]] = {}
        self._dropped: set[float] = set()

    def add(self, part: ShardModel) -> None:
        """See :class:`Parts`."""
        if part.point not in self._dropped:
            self._parts.setdefault(part.point, []).append(part)

    async def flush(self, machine: Machine) -> None:
        """See :class:`Parts`."""

    def points(self) -> list[float]:
        """See :class:`Parts`."""
        return sorted(point for point in self._parts if point != FINAL)

    def take(self, point: float) -> list[ShardModel]:
        """See :class:`Parts`."""
        return self._parts.get(point, [])

    def drop(self, point: float) -> None:
        """See :class:`Parts`."""
        self._parts.pop(point, None)
        self._dropped.add(point)


class StoredParts:
    """Parts as files in a folder that all nodes share.

    Args:
      folder: the run's folder of models.
      node: the name of the node that writes.
    """

    inline = False

    def __init__(self, folder: Path, node: str):
        self._folder, self._node = folder, node.replace("/", "_")
        self._waiting: list[ShardModel] = []

    def add(self, part: ShardModel) -> None:
        """See :class:`Parts`."""
        self._waiting.append(part)

    async def flush(self, machine: Machine) -> None:
        """See :class:`Parts`."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            await machine.aside(lambda: self._write(waiting))

    def _write(self, parts: Sequence[ShardModel]) -> None:
        partial = self._folder / f"{self._node}.partial"
        for part in parts:
            path = self._folder / f"{_label(part.point)}.{min(part.pieces):08d}.part"
            if path.exists():
                continue
            described = {"point": part.point, "number": part.number, "at": part.at}
            arrays: dict[str, Any] = {str(c): values for c, values in part.pieces.items()}
            with partial.open("wb") as stream:
                np.savez(stream, described=np.array(json.dumps(described)), **arrays)
            partial.rename(path)

    def points(self) -> list[float]:
        """See :class:`Parts`."""
        names = {path.name.rsplit(".", 2)[0] for path in self._folder.glob("*.part")}
        return sorted(float(name) for name in names - {_label(FINAL)})

    def take(self, point: float) -> list[ShardModel]:
        """See :class:`Parts`."""
        return [_read(path) for path in sorted(self._folder.glob(f"{_label(point)}.*.part"))]

    def drop(self, point: float) -> None:
        """See :class:`Parts`."""
        for path in self._folder.glob(f"{_label(point)}.*.part"):
            path.unlink()


class ShardSnapshots:
    """Keeps the parts of the shards that one node hosts, and evaluates whole models.

    Give it to :meth:`geojax.hips.exchange.push_pull.PushPullExchange.watch`. When a server dies,
    its successor keeps what it goes on from for the grid points that the dead one did not come to.

    Args:
      every_s: distance of the grid points, s of experiment time.
      evaluator: gives the figures of a model; None: there is nothing to evaluate.
      chunks: how many chunks the model has.
      parts: where the parts come together.
      recorder: takes the ``evaluation`` events.
      machine: does the work aside, at no cost in experiment time.
      clock: experiment time.
      folder: the final model goes there.
      timeouts: bounds the wait for the parts of the last model.
      since: experiment time before which no grid points are wanted.
    """

    def __init__(
        self,
        every_s: float,
        evaluator: Evaluator | None,
        *,
        chunks: int,
        parts: Parts,
        recorder: Recorder,
        machine: Machine,
        clock: Callable[[], float],
        folder: Path,
        timeouts: TimeoutsConfig,
        since: float = 0.0,
    ):
        self._every, self._evaluator, self._chunks = every_s, evaluator, chunks
        self._parts, self._recorder, self._machine = parts, recorder, machine
        self._clock, self._folder, self._timeouts = clock, folder, timeouts
        self._first = 0
        while self._first * every_s < since:
            self._first += 1
        self._hosted: dict[ServedShard, int] = {}  # with the number of the next grid point
        self._changed: dict[ServedShard, float] = {}
        self._known: tuple[np.ndarray, dict[str, float]] | None = None

    # ---- as a shard's watcher

    def hosts(self, shard: ServedShard) -> None:
        """See :class:`geojax.hips.exchange.shard_server.ShardWatcher`."""
        self._hosted[shard] = self._first
        self._changed[shard] = max(0.0, self._clock())

    def changes(self, shard: ServedShard) -> None:
        """See :class:`geojax.hips.exchange.shard_server.ShardWatcher`."""
        now = self._clock()
        self._note(shard, now)
        self._changed[shard] = now

    def _note(self, shard: ServedShard, now: float) -> None:
        """The shard's present values are those of all grid points before ``now``."""
        while self._hosted[shard] * self._every < now:
            if self._evaluator is not None:
                self._parts.add(self._part(shard, self._hosted[shard] * self._every))
            self._hosted[shard] += 1

    def _part(self, shard: ServedShard, point: float) -> ShardModel:
        pieces = dict(zip(shard.shard.chunks, shard.shard.parts(), strict=True))
        return ShardModel(point, pieces, shard.highest, self._changed[shard])

    # ---- for the roles

    async def keep(self) -> None:
        """Passes on what was noted, and evaluates what is whole; to be called once a round."""
        await self._parts.flush(self._machine)
        if self._parts.inline:
            await self._evaluate(self._parts.points())

    async def finish(self, *, speaks: bool) -> None:
        """Keeps the last parts; to be called when no more pushes can come, at every server.

        The center that speaks waits for those of all others, evaluates what is left, and writes
        the last model to ``final.npy``. It is evaluated at the instant of the last push.

        Raises:
          WaitTimeout: parts of the last model are missing; names the chunks.
        """
        now = self._clock()
        for shard in self._hosted:
            self._note(shard, now)
            self._parts.add(self._part(shard, FINAL))
        await self._parts.flush(self._machine)
        if not speaks:
            return
        await wait_for(
            self._last_parts(),
            describe=lambda: f"chunks {self._missing(FINAL)} of the last model",
            timeout=self._timeouts.round,
            warn=self._timeouts.warn,
        )
        end = max(part.at for part in self._parts.take(FINAL))
        vector, number = self._joined(FINAL)
        if self._evaluator is not None:
            await self._evaluate([point for point in self._parts.points() if point < end])
            await self._figures(end, number, vector)
        if not is_hollow(vector):
            await self._machine.aside(lambda: np.save(self._folder / "final.npy", vector))
        self._parts.drop(FINAL)

    async def _last_parts(self) -> None:
        while self._missing(FINAL):
            await asyncio.sleep(_LOOK_S)

    async def _evaluate(self, points: Sequence[float]) -> None:
        for point in points:
            if not self._missing(point):
                vector, number = self._joined(point)
                self._parts.drop(point)
                await self._figures(point, number, vector)

    async def _figures(self, point: float, number: int, vector: np.ndarray) -> None:
        assert self._evaluator is not None
        evaluator = self._evaluator
        if self._known is None or not np.array_equal(self._known[0], vector):
            self._known = (vector, await self._machine.aside(lambda: evaluator(vector)))
        self._recorder.event("evaluation", at=point, round=number, **self._known[1])

    def _missing(self, point: float) -> list[int]:
        there = {chunk for part in self._parts.take(point) for chunk in part.pieces}
        return [chunk for chunk in range(self._chunks) if chunk not in there]

    def _joined(self, point: float) -> tuple[np.ndarray, int]:
        pieces: dict[int, np.ndarray] = {}
        number = -1
        for part in self._parts.take(point):
            for chunk, values in part.pieces.items():
                pieces.setdefault(chunk, values)
            number = max(number, part.number)
        return join([pieces[chunk] for chunk in range(self._chunks)]), number


def _label(point: float) -> str:
    return "final" if point == FINAL else f"{point:015.6f}"


def _read(path: Path) -> ShardModel:
    with np.load(path) as archive:
        described = json.loads(str(archive["described"]))
        pieces = {int(name): archive[name] for name in archive.files if name != "described"}
    return ShardModel(pieces=pieces, **described)
