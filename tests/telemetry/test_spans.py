"""Spans on disk: read back by node, and written as a trace without being held."""

import io
import json

from geojax.telemetry.recorder import Span, chrome_trace, write_trace
from geojax.telemetry.spans import SpanStore, read_spans

TAKEN = [
    ("c1", Span("compute", 0.0, 0.1, {"round": 0})),
    ("c2", Span("send", 0.1, 1 / 3, {"peer": "c1", "round": 0, "bytes": 10**12})),
    ("c1", Span("send", 0.1, 0.7, {"peer": "ü \u2028", "round": 0, "bytes": 5})),
    ("c2", Span("compute", 1.0, 1e-9, {"round": 1})),
    ("c1", Span("wait", 2.0, 2.5, {})),
]
NODES = ["scheduler", "c2", "c1"]


def store(folder):
    path = folder / "spans.jsonl"
    with path.open("w") as stream:
        kept = SpanStore(path, stream)
        for node, span in TAKEN:
            kept.take(node, span)
        return path, kept.stored(NODES)


def test_spans_come_back_by_node_in_order_and_as_often_as_wanted(tmp_path):
    path, stored = store(tmp_path)
    held = {name: [span for node, span in TAKEN if node == name] for name in NODES}
    for _ in range(2):
        assert {name: [*spans] for name, spans in stored.items()} == held
    assert read_spans([path]) == {name: held[name] for name in ("c1", "c2")}


def test_the_trace_of_stored_spans_is_that_of_held_ones(tmp_path):
    _, stored = store(tmp_path)
    stream = io.StringIO()
    write_trace(stream, stored)
    held = {name: [span for node, span in TAKEN if node == name] for name in NODES}
    assert stream.getvalue() == json.dumps(chrome_trace(held))
