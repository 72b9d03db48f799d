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

from geojax.hips.machine import Machine
from geojax.hollow import is_hollow
from geojax.telemetry.recorder import Recorder

Evaluator = Callable[[np.ndarray], dict[str, float]]


class Snapshots:
    """Keeps and evaluates models.

    Args:
      every_s: distance of the grid points, s of experiment time.
      evaluator: gives the figures of a model; None: there is nothing to evaluate.
      recorder: takes the ``evaluation`` events.
      machine: does the work aside, at no cost in experiment time.
      folder: where the final model goes, and models wait for their evaluation.
      inline: models are evaluated at once instead.
    """

    def __init__(
        self,
        every_s: float,
        evaluator: Evaluator | None,
        *,
        recorder: Recorder,
        machine: Machine,
        folder: Path,
        inline: bool,
    ):
        self._every, self._evaluator = every_s, evaluator
        self._recorder, self._machine = recorder, machine
        self._folder, self._inline = folder, inline
        self._next = 0
        self._known: tuple[int, dict[str, float]] = (-2, {})

    def due(self, now: float) -> tuple[float, ...]:
        """Grid points before ``now`` that have not been asked for yet."""
        points = []
        while self._next * self._every < now:
            points.append(self._next * self._every)
            self._next += 1
        return tuple(points)

    async def keep(self, points: Sequence[float], number: int, vector: np.ndarray) -> None:
        """Evaluates the model of round ``number`` (−1: the initial one) for some grid points."""
        if self._evaluator is None:
            return
        if self._inline:
            figures = await self._figures(number, vector)
            for point in points:
                self._recorder.event("evaluation", at=point, round=number, **figures)
        else:
            await self._machine.aside(lambda: self._write(points, number, vector))

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
        if self._inline:
            return
        for line in sorted(self._folder.glob("*.json")):
            kept = json.loads(line.read_text())
            model = np.load(self._folder / f"round_{kept['round']}.npy")
            figures = await self._figures(kept["round"], model)
            for point in kept["points"]:
                self._recorder.event("evaluation", at=point, round=kept["round"], **figures)

    async def _figures(self, number: int, vector: np.ndarray) -> dict[str, float]:
        if self._known[0] != number:
            assert self._evaluator is not None
            evaluator = self._evaluator
            self._known = (number, await self._machine.aside(lambda: evaluator(vector)))
        return self._known[1]

    def _write(self, points: Sequence[float], number: int, vector: np.ndarray) -> None:
        model = self._folder / f"round_{number}.npy"
        if not model.exists():
            np.save(model, vector)
        label = {"points": list(points), "round": number}
        (self._folder / f"{points[0]:015.6f}.json").write_text(json.dumps(label))
