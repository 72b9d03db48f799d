"""Which links are probed, and what the scheduler records of its view."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from geojax.awareness.views import OUT_AFTER_S, MeasuredView
from geojax.config import OverlayConfig
from geojax.hollow import SizeOnly
from geojax.overlay.view import Edge
from geojax.telemetry.recorder import Recorder
from geojax.wire.frame import frame_count, wire_bytes
from geojax.wire.message import FRAGMENT_BYTES, Kind, Message, fragment_bytes

TRAIN = 4  # messages of a probe over one connection; the first one only begins the time
LEAST_BYTES = 64 * 1024  # payload of each of them at least
# A link of which less was measured is probed again at once: a connection that has not carried much
# yet is still finding out how fast it may go.
THIN_BYTES = 512 * 1024
SUSPECT_BYTES = 1024  # payload of the one message that shows whether a link moves anything


class Probe(NamedTuple):
    """One link that is to be probed.

    Attributes:
      source: the member that sends.
      target: the member that it sends to.
      nbytes: payload of each message.
      count: of messages, one straight behind the other.
    """

    source: str
    target: str
    nbytes: int
    count: int


class Prober:
    """Chooses links that had no sample for some rounds, within a budget.

    A link is due ``overlay.probe_after`` rounds after it was measured or probed last. One round is
    enough if little was measured yet, or if any link was found changed in a later round: links
    often change together, and new plans follow. Links that were not measured for the longest time
    come first. All probes together never exceed ``overlay.probe_share`` of the bytes that all
    members have sent as chunks.

    If nothing moves on a path of several links, one small message goes over each of them to find
    the one that is out; it may carry nothing else. These messages count too, but do not wait for
    the budget: in a round that is stuck no bytes are sent.

    Args:
      config: its ``probe_after`` (0: never) and ``probe_share``.
      view: what was measured.
      node_at: the member of the WAN group at each center that has one.
      links: all links of the WAN.
      connections: how many carry what one member sends to another. The first frame over each of
        them cannot be timed (:class:`geojax.wire.queue.SendQueue`); more messages make up for it.
    """

    def __init__(
        self,
        config: OverlayConfig,
        wan_view: MeasuredView,
        node_at: Mapping[str, str],
        links: Collection[Edge],
        connections: Callable[[str, str], int] = lambda _source, _target: 1,
    ):
        self._after, self._share, self._wan_view = config.probe_after, config.probe_share, wan_view
        self._node_at = node_at
        self._links = [edge for edge in links if {*edge} <= node_at.keys()]
        self._size = min(max(4 * config.chunk_elements, LEAST_BYTES), FRAGMENT_BYTES)
        self._connections = connections
        self._seen = dict.fromkeys(self._links, -1)  # round of the last sample
        self._asked = dict.fromkeys(self._links, -1)  # round of the last probe
        self._measured = {edge: wan_view.last(edge)[0] for edge in self._links}
        self._changed_at, self._changed = wan_view.changed_at, -1  # a link; and the round of that
        self._sent: dict[str, int] = {}  # bytes of chunks, by member
        self._tried: dict[Edge, float] = {}  # when a link was suspected last, s
        self.spent = 0  # bytes of all probes

    def note_sent(self, member: str, nbytes: int) -> None:
        """Takes note of how many bytes of chunks a member has sent so far."""
        self._sent[member] = max(self._sent.get(member, 0), nbytes)

    def due(self, number: int, alive: Collection[str]) -> list[Probe]:
        """The links to be probed after round ``number`` is over; asked once for each round."""
        if self._wan_view.changed_at != self._changed_at:
            self._changed_at, self._changed = self._wan_view.changed_at, number
        for edge in self._links:
            at, _ = self._wan_view.last(edge)
            if at != self._measured[edge]:
                self._measured[edge], self._seen[edge] = at, number
        if not self._after:
            return []
        probes = []
        for edge in sorted(self._links, key=self._measured.__getitem__):
            source, target = (self._node_at[center] for center in edge)
            if source not in alive or target not in alive:
                continue
            if not self._is_due(edge, number):
                continue
            count, cost = self._train(self._connections(source, target))
            if self.spent + cost > self._share * sum(self._sent.values()):
                break
            self.spent += cost
            self._asked[edge] = number
            probes.append(Probe(source, target, self._size, count))
        return probes

    def _train(self, connections: int) -> tuple[int, int]:
        """How many messages a probe over so many connections takes, and their bytes."""
        message = Message(Kind.PROBE, payload=SizeOnly(self._size))
        fragment = fragment_bytes(connections)
        count = -(-connections // frame_count(message, fragment)) + TRAIN - 1
        return count, count * wire_bytes(message, fragment)

    def suspected(self, alive: Collection[str]) -> list[Probe]:
        """Probes of links that may be out, each again after ``OUT_AFTER_S``."""
        probes, now = [], self._wan_view.now
        suspects = self._wan_view.suspects if self._after else ()
        for edge in (edge for edge in self._links if edge in suspects):
            source, target = (self._node_at[center] for center in edge)
            waited = now - self._tried.get(edge, -math.inf) >= OUT_AFTER_S
            if waited and source in alive and target in alive:
                self._tried[edge] = now
                self.spent += wire_bytes(Message(Kind.PROBE, payload=SizeOnly(SUSPECT_BYTES)))
                probes.append(Probe(source, target, SUSPECT_BYTES, 1))
        return probes

    def _is_due(self, edge: Edge, number: int) -> bool:
        _, nbytes = self._wan_view.last(edge)
        if nbytes < THIN_BYTES or self._seen[edge] < self._changed:
            return number > self._asked[edge]
        return number - max(self._seen[edge], self._asked[edge]) >= self._after


_TOLD = 0.01  # relative change of a rate that is worth recording


class Awareness:
    """Follows a measured view while a run goes on.

    Args:
      view: has taken each heartbeat's ``links`` before :meth:`heard` is called.
      prober: chooses the links to be probed.
      recorder: takes the events ``view``: links whose believed rate has changed, as
        ``[source, target, bit/s, age in s]`` (age null: never measured); at most one for each round
        and each revision of the view.
    """

    def __init__(self, wan_view: MeasuredView, prober: Prober, recorder: Recorder):
        self._wan_view, self._prober, self._recorder = wan_view, prober, recorder
        self._told: dict[Edge, float] = {}
        self._revision, self._round = wan_view.revision, -1

    def heard(self, member: str, sent: int, number: int, alive: Collection[str]) -> list[Probe]:
        """Goes on after a heartbeat; returns the probes that are to be sent.

        Args:
          member: its name.
          sent: bytes of chunks that it has sent so far.
          number: the last round that anybody holds.
          alive: the members that are.
        """
        self._prober.note_sent(member, sent)
        fresh = number > self._round
        if fresh or self._wan_view.revision != self._revision:
            self._round, self._revision = max(number, self._round), self._wan_view.revision
            self._record()
        due = self._prober.due(number, alive) if fresh else []
        return [*due, *self._prober.suspected(alive)]

    def _record(self) -> None:
        view = self._wan_view.view()
        links: list[list[Any]] = []
        for edge, rate in view.rate.items():
            before = self._told.get(edge)
            if before is None or abs(rate - before) > _TOLD * before:
                self._told[edge] = rate
                age = view.age.get(edge)
                links.append([*edge, round(rate), None if age is None else round(age, 3)])
        if links:
            self._recorder.event("view", revision=self._revision, links=links)
