"""The scheduler's side of measuring: what it records of the view, and whom it asks to probe."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from geojax.awareness.measured_view import MeasuredBelief
from geojax.awareness.probing import Probe, Prober
from geojax.overlay.view import Edge
from geojax.telemetry.recorder import Recorder

_TOLD = 0.01  # relative change of a rate that is worth recording


class Awareness:
    """Follows a measured belief while a run goes on.

    Args:
      belief: has taken each heartbeat's ``links`` before :meth:`heard` is called.
      prober: chooses the links to be probed.
      recorder: takes the events ``view``: links whose believed rate has changed, as
        ``[source, target, bit/s, age in s]`` (age null: never measured); at most one for each round
        and each revision of the belief.
    """

    def __init__(self, belief: MeasuredBelief, prober: Prober, recorder: Recorder):
        self._belief, self._prober, self._recorder = belief, prober, recorder
        self._told: dict[Edge, float] = {}
        self._revision, self._round = belief.revision, -1

    def heard(self, member: str, sent: int, number: int, alive: Collection[str]) -> list[Probe]:
        """Goes on after a heartbeat; returns the probes that are to be sent.

        Args:
          member: whose.
          sent: bytes of chunks that it has sent so far.
          number: the last round that anybody holds.
          alive: the members that are.
        """
        self._prober.note_sent(member, sent)
        fresh = number > self._round
        if fresh or self._belief.revision != self._revision:
            self._round, self._revision = max(number, self._round), self._belief.revision
            self._record()
        due = self._prober.due(number, alive) if fresh else []
        return [*due, *self._prober.suspected(alive)]

    def _record(self) -> None:
        view = self._belief.view()
        links: list[list[Any]] = []
        for edge, rate in view.rate.items():
            before = self._told.get(edge)
            if before is None or abs(rate - before) > _TOLD * before:
                self._told[edge] = rate
                age = view.age.get(edge)
                links.append([*edge, round(rate), None if age is None else round(age, 3)])
        if links:
            self._recorder.event("view", revision=self._revision, links=links)
