"""Models on a grid of experiment time, evaluated without costing any.

The grid is the same for every algorithm: 0, e, 2e, … with e = ``eval_every_s``. What is evaluated
at a grid point is the last merged model. In simulation that happens inline, while the clock stands
still; in real time models are written to disk and evaluated after the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from geojax.hollow import is_hollow
from geojax.machine.machine import Machine
from geojax.telemetry.recorder import Recorder

Evaluator = Callable[[np.ndarray], dict[str, float]]


class Snapshots:
    """Keeps and evaluates models.

    Args:
      every_s: distance of the grid points, s of experiment time.
      evaluator: gives the figures of a model; None: there is nothing to evaluate.
      recorder: takes the ``evaluation`` events.
      machine: does the work aside, at no cost in experiment time.
      folder: shared by all centers; the final model goes there, and models wait there.
      evaluated: grid points that any node of this process has evaluated, if models are evaluated at
        once; None: they wait in ``folder``.
    """

    def __init__(
        self,
        every_s: float,
        evaluator: Evaluator | None,
        *,
        recorder: Recorder,
        machine: Machine,
        folder: Path,
        evaluated: set[float] | None,
    ):
        self._every, self._evaluator = every_s, evaluator
        self._recorder, self._machine = recorder, machine
        self._folder, self._evaluated = folder, evaluated
        self._next = 0
        self._noted: tuple[Sequence[float], int, np.ndarray] | None = None
        self._known: tuple[int, dict[str, float]] = (-2, {})

    def due(self, now: float) -> tuple[float, ...]:
        """Grid points before ``now`` that have not been asked for yet."""
        points = []
        while self._next * self._every < now:
            points.append(self._next * self._every)
            self._next += 1
        return tuple(points)

    async def merged(self, now: float, number: int, vector: np.ndarray, *, speaks: bool) -> None:
        """Takes note that ``vector``, of round ``number``, was the last merged model until ``now``.

        One center speaks for all and keeps it for the grid points since then. When that center
        dies, the next one keeps what itself noted last, too: the dead one was a round behind at
        most, and what it has kept is not kept again.
        """
        due = self.due(now)
        noted, self._noted = self._noted, (due, number, vector) if due else None
        if speaks:
            if noted is not None:
                await self.keep(*noted)
            await self.keep(due, number, vector)

    async def keep(self, points: Sequence[float], number: int, vector: np.ndarray) -> None:
        """Evaluates the model of round ``number`` (−1: the initial one) for some grid points."""
        if self._evaluator is None:
            return
        if self._evaluated is None:
            await self._machine.aside(lambda: self._write(points, number, vector))
            return
        for point in points:
            if point not in self._evaluated:
                self._evaluated.add(point)
                figures = await self._figures(number, vector)
                self._recorder.event("evaluation", at=point, round=number, **figures)

    async def finish(self, end: float, number: int, vector: np.ndarray) -> None:
        """Writes the final model to ``final.npy``; evaluates it, and all that wait on disk.

        A model that only has a size leaves nothing.
        """
        if is_hollow(vector):
            return
        await self._machine.aside(lambda: np.save(self._folder / "final.npy", vector))
        if self._evaluator is None:
            return
        await self.keep((end,), number, vector)
        if self._evaluated is not None:
            return
        for line in sorted(self._folder.glob("*.json")):
            kept = json.loads(line.read_text())
            model = np.load(self._folder / f"round_{kept['round']}.npy")
            figures = await self._figures(kept["round"], model)
            self._recorder.event("evaluation", at=kept["at"], round=kept["round"], **figures)

    async def _figures(self, number: int, vector: np.ndarray) -> dict[str, float]:
        if self._known[0] != number:
            assert self._evaluator is not None
            evaluator = self._evaluator
            self._known = (number, await self._machine.aside(lambda: evaluator(vector)))
        return self._known[1]

    def _write(self, points: Sequence[float], number: int, vector: np.ndarray) -> None:
        model = self._folder / f"round_{number}.npy"
        partial = self._folder / f"{self._recorder.node}.partial"
        for point in points:
            label = self._folder / f"{point:015.6f}.json"
            if label.exists():
                continue
            if not model.exists():
                with partial.open("wb") as stream:
                    np.save(stream, vector)
                partial.rename(model)
            partial.write_text(json.dumps({"at": point, "round": number}))
            partial.rename(label)
