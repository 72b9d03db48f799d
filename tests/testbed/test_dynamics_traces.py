"""Traces: CSV and mahimahi files, in and out, and what a WAN makes of them."""

import bz2
import gzip
import itertools
import lzma

import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geojax.config import LanConfig, WanConfig
from geojax.errors import ConfigError
from testbed.wan.build import build_wan
from testbed.wan.dynamics import (
    Change,
    Series,
    read_csv,
    read_mahimahi,
    record,
    write_csv,
    write_mahimahi,
)

CSV = "time_s,from,to,mbit\n0,a,b,10\n5,a,b,20\n5,b,a,0\n7.5,b,a,3\n"
SERIES = st.lists(
    st.tuples(st.integers(1, 5000), st.integers(0, 10**9)), min_size=1, max_size=5
).map(
    lambda pairs: Series(
        tuple(itertools.accumulate((gap / 7 for gap, _ in pairs[1:]), initial=0.0)),
        tuple(rate / 1.0 for _, rate in pairs),
    )
)


def build(dynamics, **fields):
    links = [{"between": ["a", "b"], "rate": 50, "rtt": 2}]
    config = WanConfig("pair", None, ["a", "b"], links, dynamics=dynamics, **fields)
    return build_wan(config, LanConfig(), 0)


def write(tmp_path, text, name="trace.csv"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_a_csv_trace_sets_the_rates(tmp_path):
    wan = build({"kind": "trace", "file": write(tmp_path, CSV)}, bandwidth_scale=0.5)
    assert [link.rate for link in wan.links] == [5e6, 25e6]  # b->a keeps its rate until 5 s
    assert list(wan.changes()) == [
        Change(5.0, {("a", "b"): 10e6, ("b", "a"): 0.0}),
        Change(7.5, {("b", "a"): 1.5e6}),
    ]


def test_a_csv_trace_may_repeat(tmp_path):
    wan = build({"kind": "trace", "file": write(tmp_path, CSV), "repeat_s": 8})
    found = list(itertools.islice(wan.changes(), 6))
    assert [change.at for change in found] == [5, 7.5, 8, 13, 15.5, 16]
    assert found[2].rates == {("a", "b"): 10e6}
    assert found[3].rates == found[0].rates


def test_a_trace_with_an_outage(tmp_path):
    outage = {"kind": "outage", "from": "a", "to": "b", "at": 4, "duration": 2}
    wan = build([{"kind": "trace", "file": write(tmp_path, CSV)}, outage])
    rates = [(change.at, change.rates.get(("a", "b"))) for change in wan.changes()]
    assert rates == [(4, 0), (5, 0), (6, 20e6), (7.5, None)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from([("a", "b"), ("b", "a"), ("x-1", "y_2")]), SERIES, min_size=1)
)
def test_csv_round_trip(tmp_path, series):
    path = tmp_path / "again.csv"
    write_csv(path, series)
    found = read_csv(path)
    assert found.keys() == series.keys()
    for edge, expected in series.items():
        assert found[edge].times == expected.times
        assert found[edge].rates == pytest.approx(expected.rates)
    write_csv(tmp_path / "twice.csv", found)
    assert (tmp_path / "twice.csv").read_text() == path.read_text()


def test_a_mahimahi_trace_counts_packets_per_bin(tmp_path):
    # 3 packets in the first 100 ms, 1 in the second, 2 in the last 50 ms; then again
    path = write(tmp_path, "1\n1\n100\n101\n249\n250\n", "up.trace")
    series = read_mahimahi(path := tmp_path / "up.trace", 0.1)
    assert series.times == pytest.approx((0, 0.1, 0.2))
    assert series.rates == pytest.approx((360e3, 120e3, 480e3))
    assert series.period == 0.25
    trace = {
        "kind": "trace",
        "bin_s": 0.1,
        "mahimahi": [{"from": "a", "to": "b", "file": str(path)}],
    }
    wan = build(trace)
    assert [link.rate for link in wan.links] == pytest.approx([360e3, 50e6])
    found = [(c.at, c.rates["a", "b"]) for c in itertools.islice(wan.changes(), 4)]
    assert found == [
        pytest.approx(pair) for pair in [(0.1, 120e3), (0.2, 480e3), (0.25, 360e3), (0.35, 120e3)]
    ]


@settings(examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 200), min_size=1, max_size=6), st.sampled_from([0.2, 0.5, 1.0]))
def test_mahimahi_round_trip_within_a_packet(tmp_path, rates, bin_s):
    times = tuple(index * bin_s for index in range(len(rates)))
    series = Series(times, tuple(rate * 1e5 for rate in rates))
    duration = len(rates) * bin_s
    path = tmp_path / "link.trace"
    write_mahimahi(path, series, duration)
    found = read_mahimahi(path, bin_s)
    assert found.period == pytest.approx(duration)
    assert found.times == pytest.approx(times)
    assert found.rates == pytest.approx(series.rates, abs=2 * 12_000 / bin_s)
    lines = path.read_text().split()
    assert len(lines) * 12_000 == pytest.approx(sum(series.rates) * bin_s, abs=24_000)


def test_a_wan_is_recorded_and_replayed(tmp_path):
    original = build({"kind": "redraw", "period_s": 3, "low": 5, "high": 9})
    rates = {link.edge: link.rate for link in original.links}
    series = record(rates, original.changes(), 10.0)
    assert {len(one.times) for one in series.values()} == {4}
    write_csv(tmp_path / "rates.csv", series)
    replayed = build({"kind": "trace", "file": str(tmp_path / "rates.csv")})
    assert replayed.links == original.links
    assert list(replayed.changes()) == list(itertools.islice(original.changes(), 3))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("time,from,to,mbit\n0,a,b,1\n", "columns time_s,from,to,mbit"),
        ("", "columns time_s,from,to,mbit"),
        ("time_s,from,to,mbit\n", "holds no rates"),
        ("time_s,from,to,mbit\n0,a,b,fast\n", "mbit = 'fast' must be a number"),
        ("time_s,from,to,mbit\n-1,a,b,1\n", "time_s = '-1' must be a number"),
        ("time_s,from,to,mbit\n0,a,b,nan\n", "must be a number"),
        ("time_s,from,to,mbit\n0,a,b\n", "must have 4 values"),
        ("time_s,from,to,mbit\n0\n", "must have 4 values"),
        ("time_s,from,to,mbit\n0,a,b,1,2\n", "must have 4 values"),
        ("time_s,from,to,mbit\n1700000000,a,b,1\n", "is a calendar time: subtract it"),
        ("time_s,from,to,mbit\n1,a,b,1\n1,a,b,2\n", "a rate at this time already"),
        ("time_s,from,to,mbit\n1,a,c,1\n", "does not have"),
    ],
)
def test_a_damaged_csv_is_refused(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words) as raised:
        build({"kind": "trace", "file": write(tmp_path, text)})
    assert raised.value.key == "wan.dynamics.file"


FORMS = {
    "with a byte order mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "lines of Windows, and spaces": lambda text: (
        text.replace(",", ", ").replace("\n", "\r\n").encode()
    ),
    "gzip": lambda text: gzip.compress(text.encode()),
    "bzip2": lambda text: bz2.compress(text.encode()),
    "xz": lambda text: lzma.compress(text.encode()),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_csv_is_read_in_any_common_form(tmp_path, form):
    plain = build({"kind": "trace", "file": write(tmp_path, CSV)})
    path = tmp_path / "other.csv"
    path.write_bytes(form(CSV))
    assert list(build({"kind": "trace", "file": str(path)}).changes()) == list(plain.changes())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04rest", "ZIP archive"),
        (gzip.compress(CSV.encode(), mtime=0)[:-9], "cannot be unpacked"),
        ("time_s,from,to,mbit\n0,Zürich,b,1\n".encode("latin-1"), "save it as UTF-8"),
    ],
)
def test_a_file_that_holds_no_text_is_refused(tmp_path, content, words):
    path = tmp_path / "rates.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        build({"kind": "trace", "file": str(path)})


@pytest.mark.parametrize("text", ["", "1\nx\n", "5\n3\n", "-1\n3\n", "0\n0\n", "1.5\n"])
def test_a_damaged_mahimahi_trace_is_refused(tmp_path, text):
    path = write(tmp_path, text, "up.trace")
    with pytest.raises(ConfigError, match="one whole number of ms a line") as raised:
        build({"kind": "trace", "mahimahi": [{"from": "a", "to": "b", "file": path}]})
    assert raised.value.key == "wan.dynamics.mahimahi[0].file"


LINK = {"from": "a", "to": "b"}


@pytest.mark.parametrize(
    ("settings_", "key", "words"),
    [
        ({}, "wan.dynamics", "either|either a CSV"),
        ({"file": "{csv}", "mahimahi": []}, "wan.dynamics", "name either"),
        ({"file": 5}, "wan.dynamics.file", "path of a trace file"),
        ({"file": "nowhere.csv"}, "wan.dynamics.file", "No such file"),
        ({"file": "{csv}", "bin_s": 1}, "wan.dynamics.bin_s", "belongs to mahimahi"),
        ({"file": "{csv}", "repeat_s": 0}, "wan.dynamics.repeat_s", "above 0"),
        ({"file": "{csv}", "repeat_s": 7}, "wan.dynamics.file", "after the end of a turn"),
        ({"file": "{zero}"}, "wan.dynamics", "time 0 must be above 0"),
        ({"mahimahi": []}, "wan.dynamics.mahimahi", "at least one"),
        ({"mahimahi": [LINK]}, "wan.dynamics.mahimahi[0].file", "path of a trace file"),
        (
            {"mahimahi": [{**LINK, "file": "{up}"}], "repeat_s": 5},
            "wan.dynamics.repeat_s",
            "its own end",
        ),
        ({"mahimahi": [{**LINK, "file": "{up}"}], "bin_s": 0}, "wan.dynamics.bin_s", "above 0"),
        (
            {"mahimahi": [{**LINK, "file": "{up}"}, {"between": ["a", "b"], "file": "{up}"}]},
            "wan.dynamics.mahimahi[1]",
            "has a trace already",
        ),
        (
            {"mahimahi": [{"from": "a", "to": "d", "file": "{up}"}]},
            "wan.dynamics.mahimahi[0].to",
            "no such center",
        ),
    ],
)
def test_mistakes_are_refused(tmp_path, settings_, key, words):
    paths = {
        "{csv}": write(tmp_path, CSV),
        "{zero}": write(tmp_path, "time_s,from,to,mbit\n0,a,b,0\n", "zero.csv"),
        "{up}": write(tmp_path, "1\n2\n", "up.trace"),
    }

    def filled(value):
        if isinstance(value, dict):
            return {name: filled(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [filled(inner) for inner in value]
        return paths.get(value, value) if isinstance(value, str) else value

    with pytest.raises(ConfigError, match=words) as raised:
        build({"kind": "trace", **filled(settings_)})
    assert raised.value.key == key
