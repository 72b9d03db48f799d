"""When a node was sending, and how much: by peer and round, or chunk by chunk."""

import pytest

from geojax.hollow import SizeOnly
from geojax.telemetry.recorder import Recorder, Span
from geojax.wire.message import HEADER_BYTES, Kind, Message
from geojax.wire.send_spans import SendSpans


class Clock:
    """Experiment time 0 is loop time 100."""

    def at(self, loop_time):
        return loop_time - 100.0


def sent(level):
    """Two chunks to c2 in round 0, one in round 1, one to c3, and a word to the scheduler."""
    recorder = Recorder("c1", lambda event: None, level)
    spans = SendSpans(recorder, Clock())
    for peer, number, chunk, start, nbytes in (
        ("c2", 0, 0, 101.0, 1000), ("c3", 0, 0, 101.0, 10), ("c2", 0, 1, 103.0, 500),
        ("c2", 1, 0, 105.0, 20),
    ):  # fmt: skip
        message = Message(Kind.OFFER, round=number, chunk=chunk, payload=SizeOnly(nbytes))
        spans(peer, message, nbytes + HEADER_BYTES, start, start + 0.5)
    spans("scheduler", Message(Kind.CONTROL), HEADER_BYTES, 106.0, 107.0)
    spans.flush()
    return recorder


def test_a_round_s_span_is_from_first_to_last_bit_with_all_bytes():
    recorder = sent("round")
    head = HEADER_BYTES
    assert [(s.start, s.end, s.args) for s in recorder.spans] == [
        (1.0, 3.5, {"peer": "c2", "round": 0, "bytes": 1500 + 2 * head}),
        (5.0, 5.5, {"peer": "c2", "round": 1, "bytes": 20 + head}),
        (1.0, 1.5, {"peer": "c3", "round": 0, "bytes": 10 + head}),
    ]
    assert recorder.totals["send_s"] == pytest.approx(2.0)


@pytest.mark.parametrize("level", ["round", "chunk"])
def test_probes_are_of_no_round_and_split_no_span(level):
    recorder = Recorder("c1", lambda event: None, level)
    spans = SendSpans(recorder, Clock())
    for kind, start in ((Kind.OFFER, 101.0), (Kind.PROBE, 102.0), (Kind.OFFER, 103.0)):
        message = Message(kind, round=4 * (kind is Kind.OFFER), payload=SizeOnly(100))
        spans("c2", message, 100 + HEADER_BYTES, start, start + 0.5)
    spans.flush()
    probe = {"peer": "c2", "bytes": 100 + HEADER_BYTES}
    assert [s for s in recorder.spans if "round" not in s.args] == [Span("send", 2.0, 2.5, probe)]
    assert len(recorder.spans) == (2 if level == "round" else 3)
    assert recorder.totals["send_s"] == pytest.approx(1.5)


def test_each_chunk_has_its_span_where_events_are_that_fine():
    head = HEADER_BYTES
    assert [(s.start, s.args) for s in sent("chunk").spans] == [
        (1.0, {"peer": "c2", "round": 0, "chunk": 0, "bytes": 1000 + head}),
        (1.0, {"peer": "c3", "round": 0, "chunk": 0, "bytes": 10 + head}),
        (3.0, {"peer": "c2", "round": 0, "chunk": 1, "bytes": 500 + head}),
        (5.0, {"peer": "c2", "round": 1, "chunk": 0, "bytes": 20 + head}),
    ]
