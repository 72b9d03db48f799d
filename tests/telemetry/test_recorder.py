"""What a node records, and the trace that is made of it."""

import asyncio
import io
import json

import pytest

from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder, Span, chrome_trace, jsonl_sink
from geojax.telemetry.report import counters, report, restore
from geojax.wire.message import Kind
from geojax.wire.transport import LinkCounters
from testbed.simulated.loop import run_virtual


def recorder(**options):
    events = []
    return Recorder("c1", events.append, **options), events


def test_an_event_bears_time_and_node_and_its_fields_in_order():
    mine, events = recorder(clock=lambda: 1.23456789012)
    mine.event("round", round=3, held=0.5)
    mine.event("evaluation", at=2.5, accuracy=0.8)
    assert events == [
        {"t": 1.23456789, "node": "c1", "event": "round", "round": 3, "held": 0.5},
        {"t": 2.5, "node": "c1", "event": "evaluation", "accuracy": 0.8},
    ]
    assert list(events[0]) == ["t", "node", "event", "round", "held"]


@pytest.mark.parametrize(("level", "count"), [("round", 0), ("chunk", 1)])
def test_events_of_chunks_are_kept_on_request_only(level, count):
    mine, events = recorder(level=level)
    mine.chunk_event("reduced", round=0, chunk=7)
    assert len(events) == count


def test_spans_and_amounts_add_up():
    mine, _ = recorder()
    mine.span("compute", 1.0, 1.5, round=0)
    mine.span("compute", 2.0, 2.25, round=1)
    mine.span("wait", 1.5, 2.0, round=0)
    mine.add("samples", 32)
    mine.add("samples", 32)
    mine.add("refusals")
    assert dict(mine.totals) == {"compute_s": 0.75, "wait_s": 0.5, "samples": 64, "refusals": 1}
    assert mine.spans[1] == Span("compute", 2.0, 2.25, {"round": 1})


def test_the_sink_writes_one_event_a_line():
    stream = io.StringIO()
    write = jsonl_sink(stream)
    write({"t": 0.1, "node": "c1", "event": "a", "list": [1, 2]})
    write({"t": 1e-09, "node": "c2/w0", "event": "b"})
    assert stream.getvalue() == (
        '{"t":0.1,"node":"c1","event":"a","list":[1,2]}\n{"t":1e-09,"node":"c2/w0","event":"b"}\n'
    )


# ---- the trace


def trace():
    return chrome_trace(
        {
            "scheduler": [],
            "c1": [
                Span("compute", 0.0, 0.5, {"round": 0}),
                Span("send", 0.5, 0.75, {"peer": "c2", "chunk": 1}),
                Span("send", 0.5, 0.6, {"peer": "c3", "chunk": 1}),
                Span("compute", 1.0, 1.5, {"round": 1}),
            ],
        }
    )


def test_a_node_is_a_process_of_the_trace_with_its_name():
    meta = [e for e in trace()["traceEvents"] if e["name"] == "process_name"]
    assert [(e["ph"], e["pid"], e["args"]) for e in meta] == [
        ("M", 0, {"name": "scheduler"}), ("M", 1, {"name": "c1"}),
    ]  # fmt: skip


def test_spans_are_complete_events_in_microseconds():
    spans = [e for e in trace()["traceEvents"] if e["ph"] == "X"]
    assert [(e["name"], e["pid"], e["ts"], e["dur"]) for e in spans] == [
        ("compute", 1, 0.0, 500_000.0), ("send", 1, 500_000.0, 250_000.0),
        ("send", 1, 500_000.0, pytest.approx(100_000.0)), ("compute", 1, 1e6, 500_000.0),
    ]  # fmt: skip
    assert spans[1]["args"] == {"peer": "c2", "chunk": 1}


def test_each_kind_of_work_and_each_peer_has_a_lane_with_a_name():
    events = trace()["traceEvents"]
    lanes = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert [lanes[e["tid"]] for e in events if e["ph"] == "X"] == [
        "compute", "send to c2", "send to c3", "compute",
    ]  # fmt: skip


def test_the_trace_is_json():
    whole = trace()
    assert json.loads(json.dumps(whole)) == whole
    assert whole["displayTimeUnit"] == "ms"


# ---- the report


class Machine:
    steps, violations = 10, 2


class Transport:
    def __init__(self):
        self.sent = {"c2": LinkCounters(), "c3": LinkCounters()}


def test_the_report_is_plain_json_and_counts_bytes_by_peer_and_kind():
    mine, _ = recorder()
    mine.span("compute", 0.0, 2.0, round=0)
    transport = Transport()
    transport.sent["c2"].add(Kind.OFFER, 1000, 0.25)
    transport.sent["c2"].add(Kind.OFFER, 500, 0.25, messages=0)
    transport.sent["c2"].add(Kind.CONTROL, 90)
    found = report(mine, transport, Machine())
    assert json.loads(json.dumps(found)) == found
    assert found["node"] == "c1"
    assert (found["steps"], found["pace_violations"]) == (10, 2)
    assert found["totals"] == {"compute_s": 2.0}
    sent = found["sent"]["c2"]
    assert sent["bytes"][str(int(Kind.OFFER))] == 1500
    assert sent["messages"][str(int(Kind.OFFER))] == 1
    assert sent["bytes"][str(int(Kind.CONTROL))] == 90
    assert sent["seconds"] == 0.5
    assert found["cpu_s"] > 0
    assert 1e6 < found["peak_memory_bytes"] < 1e12


def test_restored_counters_are_added():
    mine, _ = recorder()
    mine.span("compute", 0.0, 2.0)
    transport, machine = Transport(), Machine()
    transport.sent["c3"].add(Kind.RESULT, 700, 0.1)
    kept = json.loads(json.dumps(counters(mine, transport, machine)))
    restore(kept, mine, transport, machine)
    doubled = counters(mine, transport, machine)
    assert doubled["totals"] == {"compute_s": 4.0}
    assert doubled["sent"]["c3"]["bytes"][str(int(Kind.RESULT))] == 1400
    assert doubled["sent"]["c3"]["seconds"] == pytest.approx(0.2)
    assert (doubled["steps"], doubled["pace_violations"]) == (20, 4)


# ---- the clock


def test_experiment_time_begins_at_the_named_instant():
    async def main():
        clock = Clock()
        await asyncio.sleep(3)
        assert not clock.started.is_set()
        clock.start_at(5.0)
        assert clock.started.is_set()
        assert clock() == -2.0
        await clock.until_start()
        assert clock() == 0.0
        await clock.until_start()  # no wait any more
        await asyncio.sleep(1.5)
        assert clock() == 1.5
        assert clock.at(10.0) == 5.0

    run_virtual(main())


def test_a_continued_run_goes_on_at_its_time():
    async def main():
        clock = Clock()
        clock.start_at(2.0, 100.0)
        assert clock() == 98.0
        await clock.until_start()
        assert (asyncio.get_running_loop().time(), clock()) == (2.0, 100.0)

    run_virtual(main())
