"""Matrices of measured rates and round trips become WANs, in CSV, YAML and JSON alike."""

from __future__ import annotations

import json
from itertools import permutations

import pytest

from geojax.config import LanConfig
from geojax.errors import ConfigError
from testbed.wan.build import build_wan, load_preset

RATE = [[None, 861, 726], [523, 6950, None], [482, 460, None]]
RTT = [[0.4, 97, 125], [97, None, None], [None, 210, 0]]
NAMES = ["us-west-2", "ap-northeast-1", "eu-west-1"]
CSV = """\ufeffrate_mbit, us-west-2, ap-northeast-1, eu-west-1
us-west-2, , 861, 726
eu-west-1, 482, 460, -
ap-northeast-1, 523, 6950, ""

rtt_ms, eu-west-1, us-west-2, ap-northeast-1
us-west-2, 125, 0.4, 97
ap-northeast-1, , 97,
eu-west-1, 0, , 210
"""


@pytest.fixture
def file(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return write


def built(path, **overrides):
    return build_wan(load_preset(path, **overrides), LanConfig(), 0)


def stated(**changes):
    return {"centers": NAMES, "rate_mbit": RATE, "rtt_ms": RTT, **changes}


@pytest.mark.parametrize("name", ["m.csv", "m.json", "m.yaml"])
def test_each_direction_has_its_own_rate_and_a_pair_without_one_has_no_link(file, name):
    wan = built(file(name, CSV if name == "m.csv" else stated()))
    assert wan.name == "m"
    assert {*wan.center_names} == {*NAMES}
    links = {link.edge: (link.rate, link.delay) for link in wan.links}
    us, ap, eu = NAMES
    assert links == {
        (us, ap): (861e6, pytest.approx(0.0485)),
        (us, eu): (726e6, pytest.approx(0.0625)),
        (ap, us): (523e6, pytest.approx(0.0485)),
        (eu, us): (482e6, pytest.approx(0.0625)),  # pinged from the other end only
        (eu, ap): (460e6, pytest.approx(0.105)),
    }
    assert (ap, eu) not in links
    lans = {center.name: (center.lan_rate, center.lan_delay) for center in wan.centers}
    default = LanConfig()
    assert lans[ap] == (6950e6, pytest.approx(default.rtt / 2e3))
    assert lans[us] == (default.rate * 1e6, pytest.approx(0.0002))
    assert lans[eu] == (default.rate * 1e6, pytest.approx(default.rtt / 2e3)), "0: not measured"


def test_units_and_what_else_a_file_says_of_its_wan(file):
    rates = [[None if rate is None else rate / 1e3 for rate in row] for row in RATE]
    path = file("m.json", {
        "name": "aws", "centers": [{"name": NAMES[0], "egress": 900}, *NAMES[1:]],
        "rate_gbit": rates, "rtt_us": [[rtt and rtt * 1e3 for rtt in row] for row in RTT],
        "provenance": {"source": "iperf3 in May"},
    })  # fmt: skip
    wan, same = built(path), built(file("n.json", stated()))
    assert wan.links == same.links
    assert (wan.name, wan.centers[0].egress) == ("aws", 900e6)
    assert wan.provenance == {"source": "iperf3 in May"}


def test_rates_alone_take_the_round_trip_of_wan_rtt(file):
    path = file("m.json", {"centers": NAMES, "rate_mbit": RATE})
    assert {link.delay for link in built(path, rtt=40).links} == {0.02}
    with pytest.raises(ConfigError, match=r"us-west-2->ap-northeast-1 in ms here, or wan.rtt"):
        built(path)


def changed(row, column, value):
    rate = [list(line) for line in RATE]
    rate[row][column] = value
    return rate


WRONG = {
    "a row too few": (stated(rate_mbit=RATE[:2]), r"rate_mbit = '2 x 3'.*3 rows of 3 values"),
    "ragged": (stated(rtt_ms=[[0, 1], *RTT[1:]]), r"rtt_ms = '3 x 2 x 3'.*3 rows of 3 values"),
    "negative": (
        stated(rate_mbit=changed(0, 1, -3)), r"rate_mbit\[us-west-2\]\[ap-northeast-1\] = -3"
    ),
    "no number": (stated(rate_mbit=changed(0, 1, "861 Mbit/s")), "a plain number"),
    "zero": (stated(rate_mbit=changed(0, 1, 0)), "where there is no link"),
    "unit": (stated(rate_mbps=RATE), "= 'mbps': unknown unit.*rate_kbit, rate_mbit, rate_gbit"),
    "unit of time": (stated(rtt_ms=None, rtt_sec=RTT), "= 'sec': unknown unit.*rtt_us"),
    "twice": (stated(rate_gbit=RATE), "two matrices of the rate"),
    "rtt alone": ({"centers": NAMES, "rtt_ms": RTT}, "no matrix of rates"),
    "links too": (stated(links=[{"between": NAMES[:2], "rate": 1}]), "leave links"),
    "no centers": ({"rate_mbit": RATE}, "centers = None.*in the order of the rows"),
    "not reached": (
        stated(rate_mbit=[[None, 5, None], [5, None, None], [7, 7, None]]),
        "'eu-west-1': no link reaches it: state at least one rate in its column",
    ),
    "leads nowhere": (
        stated(rate_mbit=[[None, 5, 7], [5, None, 7], [None, None, None]]),
        "'eu-west-1': no link leaves it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_in_a_matrix_are_told(file, case):
    content, message = WRONG[case]
    path = file("m.json", content)
    with pytest.raises(ConfigError, match=message) as refused:
        load_preset(path)
    assert path in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rate_mbit, us-west-2", "mbit, us-west-2", r"m.csv:1'.*e.g. rate_mbit,oregon"),
        ("us-west-2, , 861, 726", "us-west-2, , 861", r"m.csv:2'.*2 values for the 3 columns"),
        ("us-west-2, , 861, 726", "us-west-2, , 8.6k, 726", r"m.csv:2: rate_mbit\[us-west-2\]"),
        (
            "eu-west-1, 482",
            "eu-west-3, 482",
            r"columns lack or alone have \['eu-west-1', 'eu-west-3'\]",
        ),
        ("eu-west-1, 482", "us-west-2, 482", "a row of 'us-west-2' already"),
        ("\nap-northeast-1, , 97,", "", r"rtt_ms'.*rows lack.*\['ap-northeast-1'\]"),
        ("rate_mbit, us-west-2", "rate_mbit, eu-west-1", "two columns"),
        ("rtt_ms", "rate_mbit", "the matrix rate_mbit already"),
        (CSV[1:], "", "holds no matrix"),
    ],
)
def test_mistakes_in_csv_name_their_line(file, old, new, message):
    assert old in CSV
    with pytest.raises(ConfigError, match=message):
        load_preset(file("m.csv", CSV.replace(old, new, 1)))


def test_matrices_of_presets_read_back_the_same(file):
    """Ten regions of AWS, written as the matrices that they were published as."""
    wan = built("aws10_2022")
    matrices = {"centers": [*wan.center_names], "rate_kbit": [], "rtt_s": []}
    links = {link.edge: link for link in wan.links}
    for source in wan.center_names:
        row = [links.get((source, target)) for target in wan.center_names]
        matrices["rate_kbit"].append([link and link.rate / 1e3 for link in row])
        matrices["rtt_s"].append([link and 2 * link.delay for link in row])
    again = built(file("m.json", matrices))
    assert {link.edge: link.rate for link in again.links} == {
        edge: pytest.approx(link.rate) for edge, link in links.items()
    }
    assert {*again.edges} == {*permutations(wan.center_names, 2)}
