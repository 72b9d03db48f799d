"""FedGS is what it is said to be: other ways to the same parameters.

The tolerance is that of tests/test_equivalence.py: ‖a − b‖ ≤ 1e-5 · ‖b‖.
"""

import functools
import logging

import numpy as np
import pytest
from plain_fedgs import (
    CENTERS,
    ONE,
    as_fleet,
    as_workers,
    config,
    distance,
    fleets,
    gradient_of,
    picked,
    plain_fedgs,
)
from simulated_runs import simulated

from geojax.center.trainer import initial_vector

TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


@functools.cache
def fedgs():
    return simulated(config())


def test_it_is_its_plain_loops():
    twin = plain_fedgs(config(), 3)
    assert distance(fedgs().final, twin) <= TOLERANCE
    assert distance(initial_vector(config()), twin) > 1000 * TOLERANCE
    assert distance(plain_fedgs(config(seed=1), 3), twin) > 1000 * TOLERANCE


def test_one_gradient_on_the_union_is_the_mean_of_the_devices_models():
    assert distance(plain_fedgs(config(), 3, each=True), plain_fedgs(config(), 3)) <= 1e-6
    assert distance(simulated(config(devices__gradient="each")).final, fedgs().final) <= 1e-6


def union_batches(config):
    """SGD on the batches of all chosen devices of all centers, joined: one gradient a step."""
    gradient, groups = gradient_of(config), fleets(config)
    vector = initial_vector(config)
    for number in range(config.rounds):
        joined = [
            position
            for center, devices in enumerate(groups)
            for k in picked(config, center, number, 0)
            for position in devices[k].batch()
        ]
        vector = vector - np.float32(config.lr) * gradient(vector, joined)
    return vector


def test_with_one_step_a_round_it_is_one_step_on_the_union_of_all_batches():
    settings = {"sync__local_steps": 1, "rounds": 6}
    twin = union_batches(config(**settings))
    assert distance(simulated(config(**settings)).final, twin) <= TOLERANCE
    fsa = {"sync": "fsa", "sync__local_steps": None, "rounds": 6}
    assert distance(simulated(config(**fsa)).final, twin) <= TOLERANCE


def test_with_one_center_it_is_sgd_on_the_batches_picked():
    settings = config(**ONE)
    gradient, (devices,) = gradient_of(settings), fleets(settings, ["c1"])
    vector = initial_vector(settings)
    for number in range(settings.rounds):
        for step in range(3):
            batches = [devices[k].batch() for k in picked(settings, 0, number, step)]
            vector = vector - np.float32(0.1) * gradient(vector, np.concatenate(batches))
    assert distance(simulated(settings).final, vector) <= TOLERANCE


# ---- devices are workers that need no process


@pytest.mark.parametrize("count", [3, 4])
def test_a_fleet_is_as_many_workers_of_one_center_to_the_bit(count):
    fsa = {"sync": "fsa", "rounds": 4, **ONE}
    fleet = simulated(as_fleet(count, sync__local_steps=None, **fsa))
    workers = simulated(as_workers(count, **fsa))
    assert fleet.final.tobytes() == workers.final.tobytes()
    assert fleet.reports["c1"]["totals"]["samples"] == count * 8 * 4


def test_fleets_of_three_centers_are_their_workers_to_the_bit():
    """Two devices a center: halves and their sums are exact."""
    fsa = {"sync": "fsa", "rounds": 4}
    fleet = simulated(as_fleet(2, sync__local_steps=None, **fsa))
    assert fleet.final.tobytes() == simulated(as_workers(2, **fsa)).final.tobytes()


def test_compound_steps_are_hfa_with_devices_as_workers():
    """A LAN round after every step, and T of them in a round: FedGS with real base stations."""
    hfa = {"sync": "hfa", "sync__local_steps": 1, "sync__lan_rounds": 3}
    by_hand = simulated(as_workers(2, **hfa)).final
    assert distance(simulated(as_fleet(2)).final, by_hand) <= TOLERANCE


def test_fleets_of_unequal_size_count_by_their_samples_in_a_mean_over_workers():
    uneven = {
        "devices__count": {"c1": 2, "c2": 3, "c3": 7}, "sync": "fsa", "rounds": 1,
        "sync__local_steps": None, "selection": "everyone", "selection__devices": None,
    }  # fmt: skip
    settings = config(**uneven)
    merged = simulated(settings).final
    gradient, start = gradient_of(settings), initial_vector(settings)
    counts, groups = settings.devices.count, []
    for center in CENTERS:
        settings.devices.count = counts[center]
        groups.append(fleets(settings)[CENTERS.index(center)])
    first = {"c1": 0, "c2": 2, "c3": 5}
    joined = []
    for center, devices in zip(CENTERS, groups, strict=True):
        for place, device in enumerate(devices):
            device.number = first[center] + place
            joined += device.batch()
    assert distance(merged, start - np.float32(0.1) * gradient(start, joined)) <= TOLERANCE


# ---- over every overlay and codec


MULTIGPS = {"overlay": "multigps", "overlay__servers": 2}


@pytest.mark.parametrize(
    "overlay", [{"overlay": "netstorm"}, {"overlay": "packing"}, {"overlay": "ring"}, MULTIGPS]
)
def test_any_overlay_brings_the_same_model(overlay):
    other = simulated(config(overlay__chunk_elements=500, **overlay))
    assert distance(other.final, fedgs().final) <= TOLERANCE
    assert len(set(other.finals.values())) == 1


def test_a_codec_compresses_what_crosses_the_wan_and_nothing_else():
    plain, half = fedgs(), simulated(config(compression="fp16"))
    assert distance(half.final, plain.final) <= 1e-3
    assert half.final.tobytes() != plain.final.tobytes()
    for node in CENTERS:
        totals = [run.reports[node]["totals"]["internal_bytes"] for run in (plain, half)]
        assert totals[0] == totals[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"overlay": "ring", "compression": "bisparse", "compression__ratio": 0.1},
        {"compression": "mpq", "compression__ratio": 0.1, **MULTIGPS},
        {"compression": "twobit", "compression__threshold": 0.01},
    ],
)
def test_sparse_and_coarse_codecs_bring_one_model_most_of_the_way(settings):
    """What they leave out follows later; internal traffic is the same."""
    plain, other = fedgs(), simulated(config(**settings))
    way = plain.final - initial_vector(config())
    assert 0.05 < distance(other.final - plain.final + way, way) < 0.6
    assert len(set(other.finals.values())) == 1
    for node in CENTERS:
        totals = [run.reports[node]["totals"]["internal_bytes"] for run in (plain, other)]
        assert totals[0] == totals[1]


def test_runs_are_deterministic():
    again = simulated(config())
    assert again.lines() == fedgs().lines()
    assert again.final.tobytes() == fedgs().final.tobytes()


# ---- cost


def test_internal_traffic_is_charged_from_the_table_and_counted_apart():
    slow = simulated(config(devices__rate=1.0, devices__rtt=100.0))
    elements = slow.final.size
    step = 2 * 32 * elements / 1e6 + 0.1
    for node in CENTERS:
        totals = slow.reports[node]["totals"]
        assert totals["internal_bytes"] == 9 * 3 * 2 * 4 * elements  # steps, devices, both ways
        assert totals["internal_s"] == pytest.approx(9 * step)
        assert totals["compute_s"] == pytest.approx(9 * 0.01)
        assert totals["samples"] == 9 * 3 * 8
    assert slow.final.tobytes() == fedgs().final.tobytes()
    assert slow.end > fedgs().end


def test_selections_by_counts_have_them_reported():
    by_counts = {"selection": "gbp_cs", "selection__random_devices": 1}
    totals = simulated(config(**by_counts)).reports["c1"]["totals"]
    without = fedgs().reports["c1"]["totals"]["internal_bytes"]
    assert totals["internal_bytes"] - without == (5 + 8 * 3) * 10 * 4


def test_divergence_is_told_for_every_round_and_falls_when_devices_are_chosen_by_it():
    means = {}
    for name, settings in {
        "random": {},
        "gbp_cs": {"selection": "gbp_cs", "selection__random_devices": 0},
    }.items():
        told = simulated(config(devices__count=9, rounds=2, **settings)).of("divergence")
        assert [(e["node"], e["round"], e["steps"]) for e in told if e["node"] == "c2"] == [
            ("c2", 0, 3),
            ("c2", 1, 3),
        ]
        assert all(0 < event["mean"] <= event["max"] < 1 for event in told)
        means[name] = np.mean([event["mean"] for event in told])
    assert means["gbp_cs"] < 0.8 * means["random"]
