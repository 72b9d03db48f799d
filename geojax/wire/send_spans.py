"""When a node was sending, for the trace."""

from __future__ import annotations

from dataclasses import dataclass

from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder, Span
from geojax.wire.message import Kind, Message


@dataclass(slots=True)
class _Open:
    """What was sent to one peer in one round so far; experiment times, s."""

    round: int
    start: float
    end: float
    nbytes: int


class SendSpans:
    """Observes a transport: one span per peer and round, from its first bit to its last.

    A span says how many ``bytes`` were sent in it, headers included. Probes belong to no round and
    have spans without one. A run that records events of chunks has one span per chunk instead.

    Args:
      recorder: is given the spans.
      clock: of the experiment.
    """

    def __init__(self, recorder: Recorder, clock: Clock):
        self._recorder, self._clock = recorder, clock
        self._chunks = recorder.level == "chunk"
        self._open: dict[str, _Open] = {}
        recorder.closers.append(self.flush)

    def __call__(self, peer: str, message: Message, nbytes: int, start: float, end: float) -> None:
        """Takes one message that left between two loop times, frames and all."""
        if message.kind is Kind.CONTROL:
            return
        shift = self._clock.at(0.0)
        begin, left = start + shift, end + shift
        self._recorder.totals["send_s"] += left - begin
        if message.kind is Kind.PROBE:
            self._add(begin, left, peer=peer, bytes=nbytes)
            return
        if self._chunks:
            told = {"peer": peer, "round": message.round, "chunk": message.chunk}
            self._add(begin, left, **told, bytes=nbytes)
            return
        span = self._open.get(peer)
        if span is not None and span.round == message.round:
            span.end = left
            span.nbytes += nbytes
            return
        if span is not None:
            self._close(peer, span)
        self._open[peer] = _Open(message.round, begin, left, nbytes)

    def flush(self) -> None:
        """Records what was sent last to every peer."""
        for peer, span in self._open.items():
            self._close(peer, span)
        self._open.clear()

    def _close(self, peer: str, span: _Open) -> None:
        self._add(span.start, span.end, peer=peer, round=span.round, bytes=span.nbytes)

    def _add(self, start: float, end: float, **args: object) -> None:
        self._recorder.keep(Span("send", start, end, args))
