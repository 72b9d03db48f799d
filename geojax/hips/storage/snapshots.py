"""Models on a grid of experiment time, evaluated without costing any.

The grid is the same for every algorithm: 0, e, 2e, … with e = ``eval_every_s``. What is evaluated
at a grid point is the last model before it. A run's time limit is the last point, or the point at
which it reached its target; a model that comes after it is not looked at. A model is kept in
pieces: each global server keeps those of its shards. Where every center has the whole model, that
is one piece, kept by the first living center, which *speaks* for all. In simulation the nodes share
an object that gathers the pieces, and whole models are evaluated at once, while the clock stands
still. In real time pieces are files, and the center that speaks evaluates them after the run.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from geojax.config import TimeoutsConfig
from geojax.hips.exchange.shard_server import ServedShard
from geojax.hollow import is_hollow, join
from geojax.machine.machine import Machine
from geojax.machine.waits import wait_for
from geojax.telemetry.recorder import Recorder

Evaluator = Callable[[np.ndarray], dict[str, float]]

FINAL = float("inf")  # the grid point of the last model
_LOOK_S = 0.05  # s between two looks for pieces of the last model


class Piece(NamedTuple):
    """A shard of a model at one grid point; a whole model is one shard.

    Attributes:
      point: experiment time, s; :data:`FINAL` for the last model.
      chunks: the elements of each of its chunks.
      number: highest round of any center that they contain; −1: none.
      at: experiment time at which they were last changed, s.
    """

    point: float
    chunks: dict[int, np.ndarray]
    number: int
    at: float


class Pieces(Protocol):
    """Where the pieces of all nodes come together."""

    inline: bool  # whole models are evaluated at once
    known: tuple[np.ndarray, dict[str, float]] | None  # the last evaluated model, and its figures

    def add(self, piece: Piece) -> None:
        """Takes a piece, unless its chunks are there for this point already."""
        ...

    async def flush(self, machine: Machine) -> None:
        """Makes pieces that were added visible to other nodes."""
        ...

    def points(self) -> list[float]:
        """Grid points of which there are pieces, in order, without the last model."""
        ...

    def take(self, point: float) -> list[Piece]:
        """All pieces of a point; where several have a chunk, the first one counts."""
        ...

    def drop(self, point: float) -> None:
        """The model of this point is not needed any more."""
        ...


class SharedPieces:
    """Pieces in memory, for nodes that share a process (simulation)."""

    inline = True

    def __init__(self) -> None:
        self.known: tuple[np.ndarray, dict[str, float]] | None = None
        self._pieces: dict[float, list[Piece]] = {}
        self._dropped: set[float] = set()

    def add(self, piece: Piece) -> None:
        """See :class:`Pieces`."""
        if piece.point not in self._dropped:
            self._pieces.setdefault(piece.point, []).append(piece)

    async def flush(self, machine: Machine) -> None:
        """See :class:`Pieces`."""

    def points(self) -> list[float]:
        """See :class:`Pieces`."""
        return sorted(point for point in self._pieces if point != FINAL)

    def take(self, point: float) -> list[Piece]:
        """See :class:`Pieces`."""
        return self._pieces.get(point, [])

    def drop(self, point: float) -> None:
        """See :class:`Pieces`."""
        self._pieces.pop(point, None)
        self._dropped.add(point)


class StoredPieces:
    """Pieces as files in a folder that all nodes share.

    Args:
      folder: the run's folder of models.
      node: the name of the node that writes.
    """

    inline = False

    def __init__(self, folder: Path, node: str):
        self.known: tuple[np.ndarray, dict[str, float]] | None = None
        self._folder, self._node = folder, node.replace("/", "_")
        self._waiting: list[Piece] = []

    def add(self, piece: Piece) -> None:
        """See :class:`Pieces`."""
        self._waiting.append(piece)

    async def flush(self, machine: Machine) -> None:
        """See :class:`Pieces`."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            await machine.aside(lambda: self._write(waiting))

    def _write(self, pieces: Sequence[Piece]) -> None:
        partial = self._folder / f"{self._node}.partial"
        written: tuple[Piece, Path] | None = None
        for piece in pieces:
            path = self._folder / f"{_label(piece.point)}.{min(piece.chunks):08d}.part"
            if path.exists():
                continue
            if written is not None and written[0].chunks is piece.chunks:  # the same model again
                os.link(written[1], path)
                continue
            described = {"number": piece.number, "at": piece.at}
            arrays: dict[str, Any] = {str(c): values for c, values in piece.chunks.items()}
            with partial.open("wb") as stream:
                np.savez(stream, described=np.array(json.dumps(described)), **arrays)
            partial.rename(path)
            written = piece, path

    def points(self) -> list[float]:
        """See :class:`Pieces`."""
        names = {path.name.rsplit(".", 2)[0] for path in self._folder.glob("*.part")}
        return sorted(float(name) for name in names - {_label(FINAL)})

    def take(self, point: float) -> list[Piece]:
        """See :class:`Pieces`."""
        return [_read(path) for path in sorted(self._folder.glob(f"{_label(point)}.*.part"))]

    def drop(self, point: float) -> None:
        """See :class:`Pieces`."""
        for path in self._folder.glob(f"{_label(point)}.*.part"):
            path.unlink()


class Snapshots:
    """Keeps what one node has of models, and evaluates whole ones.

    It watches the node's shard server (:class:`geojax.hips.exchange.shard_server.ShardWatcher`),
    if there is one. When a server dies, its successor keeps the values that it goes on from for the
    grid points that the dead server did not reach.

    Args:
      every_s: distance of the grid points, s of experiment time.
      evaluator: gives the figures of a model; None: there is nothing to evaluate.
      chunks: of a model, where pieces are shards; 0: every center has whole models.
      pieces: where the pieces come together.
      recorder: takes the ``evaluation`` events.
      machine: does the work aside, at no cost in experiment time.
      clock: experiment time.
      folder: the final model goes there.
      timeouts: bounds the wait for the pieces of the last model.
      since: experiment time before which no grid points are wanted.
      limit: gives the last grid point, s; None: none is known. It may become known, or earlier.
    """

    def __init__(
        self,
        every_s: float,
        evaluator: Evaluator | None,
        *,
        chunks: int,
        pieces: Pieces,
        recorder: Recorder,
        machine: Machine,
        clock: Callable[[], float],
        folder: Path,
        timeouts: TimeoutsConfig,
        since: float = 0.0,
        limit: Callable[[], float | None] = lambda: None,
    ):
        self._limit_known = limit
        self._every, self._evaluator, self._chunks = every_s, evaluator, chunks
        self._pieces, self._recorder, self._machine = pieces, recorder, machine
        self._clock, self._folder, self._timeouts = clock, folder, timeouts
        self._first = 0
        while self._point(self._first) < since:
            self._first += 1
        self._next = self._first  # number of the next grid point, of whole models
        self._noted: list[Piece] = []
        self._hosted: dict[ServedShard, int] = {}  # with the number of the next grid point
        self._changed: dict[ServedShard, float] = {}

    @property
    def _limit(self) -> float:
        known = self._limit_known()
        return float("inf") if known is None else known

    def _point(self, number: int) -> float:
        """Experiment time of a grid point as events have it, s; infinite beyond the limit."""
        if round((number - 1) * self._every, 9) >= self._limit:
            return float("inf")
        return min(round(number * self._every, 9), self._limit)

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
        piece = self._piece(shard)
        while self._point(self._hosted[shard]) < now:
            self._add(piece._replace(point=self._point(self._hosted[shard])))
            self._hosted[shard] += 1

    def _piece(self, shard: ServedShard) -> Piece:
        chunks = dict(zip(shard.shard.chunks, shard.shard.pieces(), strict=True))
        return Piece(FINAL, chunks, shard.highest, self._changed[shard])

    def _add(self, piece: Piece) -> None:
        if self._evaluator is not None:
            self._pieces.add(piece)

    # ---- for the roles

    async def merged(self, now: float, number: int, vector: np.ndarray, *, speaks: bool) -> None:
        """Notes that ``vector``, of round ``number``, was a center's model until ``now``.

        To be called once a round. The center that speaks keeps a whole model for the grid points
        since the last call. When that center dies, the next one also keeps what it noted in its
        last call: the dead center was one round behind at most. No piece is kept twice.
        """
        if not self._chunks:
            noted, self._noted = self._noted, []
            chunks = {0: vector}
            while self._point(self._next) < now:
                self._noted.append(Piece(self._point(self._next), chunks, number, now))
                self._next += 1
            for piece in (*noted, *self._noted) if speaks else ():
                self._add(piece)
        await self.flush()

    def note(self) -> None:
        """The present values of this node's shards are those of all grid points until now."""
        for shard in self._hosted:
            self._note(shard, self._clock())

    async def flush(self) -> None:
        """Makes what was noted visible to other nodes, or evaluates it at once."""
        await self._pieces.flush(self._machine)
        if self._pieces.inline:
            await self._evaluate(self._pieces.points())

    async def leave(self) -> None:
        """Keeps the last pieces of this node's shards; no more pushes may come."""
        self.note()
        for shard in self._hosted:
            self._pieces.add(self._piece(shard))
        await self._pieces.flush(self._machine)

    async def finish(self, end: float, number: int, vector: np.ndarray, *, speaks: bool) -> None:
        """Leaves; the center that speaks waits for all pieces and evaluates the last models.

        It writes the last model to ``final.npy`` and evaluates it at the instant of its last
        change; the last model before the time limit, if the run went on after that. A model that
        only has a size is not written.

        Args:
          end: when the center's rounds were over, experiment s.
          number: of its last round.
          vector: what it ended with.
          speaks: whether it is the first living center.

        Raises:
          WaitTimeout: pieces of the last model are missing; names the chunks.
        """
        if not self._chunks and speaks:
            self._pieces.add(Piece(FINAL, {0: vector}, number, end))
        await self.leave()
        if not speaks:
            return
        await wait_for(
            self._last_pieces(),
            describe=lambda: f"chunks {self._missing(FINAL)} of the last model",
            timeout=self._timeouts.round,
            warn=self._timeouts.warn,
        )
        end = max(piece.at for piece in self._pieces.take(FINAL))
        vector, number = self._joined(FINAL)
        if self._evaluator is not None:
            await self._evaluate([point for point in self._pieces.points() if point < end])
            if end <= self._limit:
                await self._figures(end, number, vector)
            elif self._pieces.known is not None:  # that of the limit
                vector, _ = self._pieces.known
        if not is_hollow(vector):
            await self._machine.aside(lambda: np.save(self._folder / "final.npy", vector))
        self._pieces.drop(FINAL)

    async def _last_pieces(self) -> None:
        while self._missing(FINAL):
            await asyncio.sleep(_LOOK_S)

    async def _evaluate(self, points: Sequence[float]) -> None:
        for point in points:
            if point > self._limit:
                self._pieces.drop(point)
            elif not self._missing(point):
                vector, number = self._joined(point)
                self._pieces.drop(point)
                await self._figures(point, number, vector)

    async def _figures(self, point: float, number: int, vector: np.ndarray) -> None:
        assert self._evaluator is not None
        evaluator, known = self._evaluator, self._pieces.known
        if known is None or not np.array_equal(known[0], vector):
            known = vector, await self._machine.aside(lambda: evaluator(vector))
            self._pieces.known = known
        self._recorder.event("evaluation", at=point, round=number, **known[1])

    def _missing(self, point: float) -> list[int]:
        there = {chunk for piece in self._pieces.take(point) for chunk in piece.chunks}
        return [chunk for chunk in range(self._chunks or 1) if chunk not in there]

    def _joined(self, point: float) -> tuple[np.ndarray, int]:
        found: dict[int, np.ndarray] = {}
        number = -1
        for piece in self._pieces.take(point):
            for chunk, values in piece.chunks.items():
                found.setdefault(chunk, values)
            number = max(number, piece.number)
        return join([found[chunk] for chunk in range(self._chunks or 1)]), number


def _label(point: float) -> str:
    return "final" if point == FINAL else f"{point:015.6f}"


def _read(path: Path) -> Piece:
    label = path.name.rsplit(".", 2)[0]
    with np.load(path) as archive:
        described = json.loads(str(archive["described"]))
        chunks = {int(name): archive[name] for name in archive.files if name != "described"}
    return Piece(FINAL if label == _label(FINAL) else float(label), chunks, **described)
