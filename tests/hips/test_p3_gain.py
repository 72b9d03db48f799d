"""How much of what overlap can save P3 does save, measured on virtual time."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from p3_runs import line_of, round_time, schedule, two_centers
from simulated_runs import simulated

from experiments.bench.overlap import overlap_share
from experiments.bench.p3_schedule import gain, serial_round, stage_times
from geojax.assemble import exchanges, roles, setup
from geojax.center.pace import step_seconds
from geojax.center.stages import build_stages
from geojax.config import DataConfig
from geojax.data.dataset import load_dataset
from geojax.hips.cluster import WAN_GROUP
from geojax.telemetry.recorder import chrome_trace

EIGHT = {"elements": 1_000_000, "model__stages": 8, "model__pace_s": 0.4, "rounds": 5}
UNEVEN = {
    "model__stages": 8, "model__pace_s": None, "elements": 1_000_000, "rounds": 5,
    "model__stage_paces": [
        [0.025, 0.025], [0.01, 0.05], [0.05, 0.05], [0.015, 0.075],
        [0.03, 0.025], [0.02, 0.05], [0.005, 0.01], [0.01, 0.05],
    ],
    "model__stage_bytes": [
        40_000, 200_000, 600_000, 160_000, 1_000_000, 800_000, 800_000, 400_000
    ],
}  # fmt: skip
DEMO = {
    "model__name": "demo_cnn", "model__pace_s": None, "rounds": 5, "batch_size": 4,
    "data__name": "fashion_mnist", "eval_every_s": 100.0,
}  # fmt: skip
CASES = {
    "eight stages": {**EIGHT, "rate": 100.0, "chunk_elements": 8192},
    "uneven stages": {**UNEVEN, "rate": 100.0, "chunk_elements": 8192},
    "demo CNN": {**DEMO, "rate": 50.0, "chunk_elements": 2048},
    "two workers": {**UNEVEN, "rate": 100.0, "chunk_elements": 8192, "workers": 2},
}


@functools.cache
def large_digits():
    """Digits as large as the demo CNN's usual images, which not every machine has."""
    digits = load_dataset(DataConfig("digits"))

    def large(images):
        return np.pad(images.repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2), (0, 0)))

    return digits._replace(train_x=large(digits.train_x), test_x=large(digits.test_x))


@functools.cache
def outcome(name, p3):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "load_dataset", lambda config: large_digits())
        return simulated(two_centers(p3=p3, events="chunk", **CASES[name]))


def measured(name, p3):
    node = "c2" if CASES[name].get("workers", 1) == 1 else "c2/w1"
    return round_time(outcome(name, p3), node, 2)


@pytest.mark.parametrize(
    ("name", "serial_s", "ideal_s", "least"),
    [
        ("eight stages", 0.7596, 0.4628, 0.98),
        ("uneven stages", 0.8596, 0.5240, 0.98),
        ("demo CNN", 0.1918, 0.1413, 0.9),
        ("two workers", 0.8605, 0.5244, 0.98),
    ],
)
def test_most_of_what_overlap_can_save_is_saved(name, serial_s, ideal_s, least):
    serial, ideal = schedule(two_centers(p3=True, **CASES[name]))
    assert (serial, ideal) == (pytest.approx(serial_s, abs=1e-4), pytest.approx(ideal_s, abs=1e-4))
    assert least <= gain(serial, measured(name, p3=True), ideal) <= 1


@pytest.mark.parametrize("name", ["eight stages", "uneven stages", "demo CNN"])
def test_without_it_a_round_takes_the_serial_time(name):
    serial, _ = schedule(two_centers(p3=False, **CASES[name]))
    assert serial < measured(name, p3=False) < 1.03 * serial


def test_without_it_workers_get_parameters_when_all_of_them_are_at_their_server():
    config = two_centers(p3=False, **CASES["two workers"])
    *line, down = line_of(config)
    stages = stage_times(build_stages(config), step_seconds(config, "c2"))
    serial = serial_round(stages, line, 4 * config.overlay.chunk_elements)
    serial += config.model.bytes / down.rate + down.latency
    assert serial < measured("two workers", p3=False) < 1.03 * serial


@pytest.mark.parametrize(("name", "least"), [("eight stages", 0.7), ("demo CNN", 0.2)])
def test_sending_overlaps_with_computing_only_with_it(name, least):
    """At the center that merges nothing; the one that does sends results while it goes on."""
    assert overlap_share(chrome_trace(outcome(name, False).spans), "c2") < 1e-9
    assert overlap_share(chrome_trace(outcome(name, True).spans), "c2") > least


# ---- priorities

# The last stage, whose gradient leaves first, has most bytes, the others most of the computing.
HEAVY = {
    "elements": 1_000_000, "chunk_elements": 8192, "model__stages": 4, "model__pace_s": None,
    "model__stage_bytes": [200_000, 200_000, 200_000, 3_400_000],
    "model__stage_paces": [[0.1, 0.1], [0.1, 0.1], [0.1, 0.1], [0.02, 0.05]],
    "workers": 2, "rounds": 5,
}  # fmt: skip


def first_come_first_served(monkeypatch, tier):
    """Has all chunks on the LANs, or on the WAN, leave in order of arrival."""
    build = roles.tree_exchange

    def engine(name, group, plan, *args, **options):
        if (group == WAN_GROUP) == (tier == "wan"):
            plan = replace(plan, priorities=(0,) * len(plan.ranges))
        return build(name, group, plan, *args, **options)

    for module in (roles, exchanges):
        monkeypatch.setattr(module, "tree_exchange", engine)


@pytest.mark.parametrize(("tier", "wan", "lan"), [("wan", 60.0, 1000.0), ("lan", 400.0, 120.0)])
def test_the_first_layers_overtake_where_the_line_is_narrow(tier, wan, lan, monkeypatch):
    config = two_centers(p3=True, rate=wan, lan__rate=lan, **HEAVY)
    by_priority = simulated(config)
    first_come_first_served(monkeypatch, tier)
    by_arrival = simulated(config)
    times = [round_time(each, "c2/w1", 1) for each in (by_priority, by_arrival)]
    assert times[0] < 0.85 * times[1], times
    assert by_priority.final.tobytes() == by_arrival.final.tobytes()
