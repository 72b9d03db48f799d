"""The preset aws8_2025 gives what was measured, under the rules that it states."""

import itertools
import json
import statistics

import pytest
from fair_rates import max_min_rates

from geojax.config import LanConfig
from testbed.wan.build import build_wan, load_preset
from tools.fit_aws8_2025 import MEASURED, PRESET, load, main, render

WAN = build_wan(load_preset("aws8_2025"), LanConfig(), 0)
DATA = json.loads(MEASURED.read_text())
MEDIANS = {
    (source["name"], target["name"]): DATA["rates"]["median"][i][j]
    for i, source in enumerate(DATA["sites"])
    for j, target in enumerate(DATA["sites"])
    if i != j
}


def shared(flows):
    """Max-min fair rates of single flows over these links, Mbit/s."""
    view = WAN.view()
    paths = {(a, b): [("link", a, b), ("egress", a), ("ingress", b)] for a, b in flows}
    capacity = {("link", *edge): rate for edge, rate in view.rate.items()}
    capacity |= {("egress", name): rate for name, rate in view.egress.items()}
    capacity |= {("ingress", name): rate for name, rate in view.ingress.items()}
    number = {key: index for index, key in enumerate(capacity)}
    rates = max_min_rates(
        {flow: [number[key] for key in path] for flow, path in paths.items()},
        {number[key]: rate for key, rate in capacity.items()},
    )
    return {flow: rate / 1e6 for flow, rate in rates.items()}


def test_all_flows_at_once_get_the_measured_medians():
    found = shared(MEDIANS)
    assert len(found) == 56
    errors = [abs(found[pair] / median - 1) for pair, median in MEDIANS.items()]
    assert statistics.median(errors) < 0.03
    assert max(errors) < 0.09


def test_pairs_alone_are_as_fast_as_measured_alone():
    for pair in DATA["rates"]["medians_of_a_pair_by_active_regions"]:
        edge = pair["from"], pair["to"]
        assert shared([edge])[edge] == pytest.approx(pair["medians"]["2"])
        assert shared([edge])[edge] > 1.25 * shared(MEDIANS)[edge]
    assert shared([("mumbai", "singapore")]) == {("mumbai", "singapore"): 230}


def test_a_pair_slows_down_as_regions_join():
    """Mumbai to Singapore: 230 with 2 active regions, 95 with 8; medians over who is active."""
    pair = ("mumbai", "singapore")
    measured = DATA["rates"]["medians_of_a_pair_by_active_regions"][0]["medians"]
    others = [name for name in WAN.center_names if name not in pair]
    medians = []
    for active in range(2, 9):
        rates = [
            shared(itertools.permutations((*pair, *more), 2))[pair]
            for more in itertools.combinations(others, active - 2)
        ]
        medians.append(statistics.median(rates))
    assert medians == sorted(medians, reverse=True)
    assert medians[0] == measured["2"]
    assert medians[-1] == pytest.approx(measured["8"], rel=0.2)
    excess = [
        rate / measured[str(active)] for active, rate in zip(range(2, 9), medians, strict=True)
    ]
    assert min(excess) >= 1
    assert max(excess) < 1.8  # the stated limit of the model


def test_the_committed_preset_is_what_the_fit_gives(tmp_path, capsys):
    assert render(load()) == PRESET.read_text()
    assert main([str(tmp_path / "again.yaml")]) == 0
    assert (tmp_path / "again.yaml").read_text() == PRESET.read_text()
    assert "again.yaml" in capsys.readouterr().out


def test_estimated_values_are_marked_and_their_rules_stated():
    measured_alone = {
        (pair["from"], pair["to"]) for pair in DATA["rates"]["medians_of_a_pair_by_active_regions"]
    }
    for link in WAN.links:
        assert ("rate" in link.estimated) == (link.edge not in measured_alone)
        assert ("rtt" in link.estimated) == ("mumbai" in link.edge)
        assert set(link.estimated.values()) <= set(WAN.provenance["estimated"])
    assert all(set(center.estimated) == {"egress", "ingress"} for center in WAN.centers)


def test_round_trip_times_are_the_tables_or_follow_distance():
    fit = load()
    tokyo, virginia, saopaulo = (fit.names.index(n) for n in ("tokyo", "virginia", "saopaulo"))
    assert fit.rtt(tokyo, virginia) == (145.3, False)
    assert fit.rtt(tokyo, saopaulo) == (256.8, False)  # the way back is not in the table
    assert fit.distance(tokyo, virginia) == pytest.approx(10_900, rel=0.02)
    start, slope = fit.line
    assert slope > 2 * 1e3 / 3e5  # no faster than light in vacuum, ms per km of a round trip
    assert 0 < start < 50
