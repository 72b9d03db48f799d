"""Whole runs over fleets: broken and continued, with centers that come back, on every testbed."""

import json
import logging

import numpy as np
import pytest
from plain_fedgs import ONE, as_fleet, as_workers, config
from simulated_runs import kill, simulated

from geojax.hips.storage.checkpoint import Checkpoints
from testbed.run import run

BY_COUNTS = {"selection": "gbp_cs", "selection__random_devices": 1}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def test_a_resumed_run_ends_as_if_it_had_never_been_broken(tmp_path):
    settings = {"rounds": 6, "checkpoint_every": 2, "sync__local_steps": 2, **BY_COUNTS}
    whole = simulated(config(**settings))
    broken = [kill("scheduler", 0.7 * whole.end)]
    simulated(config(testbed__faults=broken, **settings), fails=True, folder=tmp_path)
    resumed = simulated(config(resume=True, **settings), folder=tmp_path)
    assert resumed.rounds_of("c1")[0] > 0
    np.testing.assert_array_equal(resumed.final, whole.final)
    for node in ("c1", "c2", "c3"):
        totals = [run.reports[node]["totals"] for run in (resumed, whole)]
        assert totals[0]["internal_bytes"] == totals[1]["internal_bytes"]
        assert totals[0]["samples"] == totals[1]["samples"]


def test_a_checkpoint_holds_where_every_device_is(tmp_path):
    simulated(config(rounds=2, checkpoint_every=2, **BY_COUNTS), folder=tmp_path)
    kept = Checkpoints(tmp_path / "checkpoints", "c2", 2, counters=dict).read(1)[1]
    taken = kept["trainer"]["fleet"]["taken"]
    assert taken.shape == (5,)
    assert taken.sum() == 2 * 3 * 3  # rounds, steps, devices


def test_a_center_that_comes_back_goes_on_where_its_devices_would_be():
    settings = {"rounds": 8, "sync__local_steps": 2, **BY_COUNTS}
    whole = simulated(config(**settings))
    round_s = whole.end / 8
    faults = [
        kill("c3", 2.2 * round_s),
        {"at": 4.2 * round_s, "kind": "restart", "node": "c3"},
    ]
    back = simulated(config(testbed__faults=faults, **settings))
    assert set(back.finals) == {"c1", "c2", "c3"}
    assert len(set(back.finals.values())) == 1
    first = [e for e in whole.of("divergence") if e["node"] == "c3"]
    again = [e for e in back.of("divergence") if e["node"] == "c3"]
    late = {event["round"]: event["mean"] for event in again if event["t"] > faults[1]["at"]}
    assert late
    assert max(late) == 7
    expected = {event["round"]: event["mean"] for event in first}
    assert late == {number: expected[number] for number in late}, "the same devices as without it"


@pytest.mark.parametrize(
    ("fleet", "workers"),
    [("local", "simulated"), pytest.param("simulated", "local", marks=pytest.mark.nightly)],
)
def test_a_fleet_is_as_many_worker_processes_to_the_bit(tmp_path, fleet, workers):
    fsa = {"sync": "fsa", "sync__local_steps": None, "rounds": 3, **ONE}
    summaries = [
        run(as_fleet(2, testbed__name=fleet, **fsa), tmp_path / "fleet"),
        run(as_workers(2, testbed__name=workers, **fsa), tmp_path / "workers"),
    ]
    models = [tmp_path / name / "models" / "final.npy" for name in ("fleet", "workers")]
    assert models[0].read_bytes() == models[1].read_bytes()
    assert [summary["workers"] for summary in summaries] == [1, 2]
    assert summaries[0]["internal_bytes"] == 3 * 2 * 2 * 4 * np.load(models[0]).size
    assert "internal_bytes" not in summaries[1]


@pytest.mark.emulated
@pytest.mark.timeout(240)
def test_on_the_emulated_wan_it_ends_with_the_simulated_parameters(tmp_path):
    found = {}
    for testbed in ("simulated", "emulated"):
        folder = tmp_path / testbed
        summary = run(config(testbed__name=testbed, rounds=2, **BY_COUNTS), folder)
        lines = (folder / "events.jsonl").read_text().splitlines()
        told = [each for each in map(json.loads, lines) if each["event"] == "divergence"]
        assert len(told) == 6
        model = (folder / "models" / "final.npy").read_bytes()
        figures = [summary[name] for name in ("internal_bytes", "steps", "rounds", "divergence")]
        found[testbed] = model, figures, pytest.approx(summary["internal_s"])
    assert found["emulated"] == found["simulated"]
