"""Checkpoints of a run whose centers have rounds of their own: one for every consistent cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from geojax.hips.exchange.cuts import Cut
from geojax.hips.storage.checkpoint import Checkpoints, Within
from geojax.machine.machine import Machine


class CutCheckpoints(Checkpoints):
    """One node's part of cuts; see :mod:`geojax.hips.exchange.cuts`.

    Which round a cut has is not known before the cut. So the node's state after its last round is
    kept in memory, and is written when a cut asks for it. Checkpoints are numbered by cut.

    Args:
      folder: the run's folder of checkpoints.
      node: the node's name.
      every: merges between two checkpoints; 0: none are written.
      counters: see :class:`geojax.hips.storage.checkpoint.Checkpoints`.
      machine: writes aside.
      before: is awaited before a checkpoint is written, for what belongs to it.
    """

    keeps_start = True
    _most = 3  # a cut begins when all centers have the last one, but perhaps not on disk yet

    def __init__(
        self,
        folder: Path,
        node: str,
        every: int = 0,
        *,
        counters: Callable[[], Mapping[str, Any]] = dict,
        machine: Machine,
        before: Callable[[], Awaitable[None]],
    ):
        super().__init__(folder, node, every, counters=counters)
        self.keeps_start = every > 0
        self._machine, self._before = machine, before
        self._latest: tuple[int, Mapping[str, Any]] | None = None
        self._asked: list[tuple[Cut, int, Mapping[str, Any], Within | None]] = []

    def due(self, number: int) -> bool:
        """The state after every round may be asked for."""
        del number
        return self._every > 0

    async def keep(
        self, number: int, time: float, state: Mapping[str, Any], machine: Machine
    ) -> None:
        """Keeps the state after a round in memory; the cuts that wait for it are written."""
        del time, machine
        self._latest = number, {**state, "round": number, "counters": self._counters()}
        asked, self._asked = self._asked, []
        for each in asked:
            self.ask(*each)

    def ask(
        self, cut: Cut, number: int | None, beside: Mapping[str, Any], within: Within | None = None
    ) -> None:
        """See :meth:`geojax.hips.storage.checkpoint.Checkpoints.ask`."""
        if number is None:
            self._write_aside(cut, {**beside, "counters": self._counters()})
        elif self._latest is not None and self._latest[0] == number:
            lan = {} if within is None else {"lan": within(cut)}
            self._write_aside(cut, {**self._latest[1], **beside, **lan})
        else:
            self._asked.append((cut, number, beside, within))

    def _write_aside(self, cut: Cut, state: Mapping[str, Any]) -> None:
        self._writing = asyncio.ensure_future(self._write_after(self._writing, cut, state))

    async def _write_after(
        self, earlier: asyncio.Future[None] | None, cut: Cut, state: Mapping[str, Any]
    ) -> None:
        if earlier is not None:
            await earlier
        await self._before()
        await self._machine.aside(lambda: self.write(cut.number, cut.time, state))
