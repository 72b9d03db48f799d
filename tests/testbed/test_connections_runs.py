"""Runs of real processes with several connections between centers."""

import json
import statistics

import numpy as np
import pytest
from simulated_runs import simulated, small_config

from geojax.config import RunConfig, WanConfig
from geojax.models.registry import SyntheticConfig
from geojax.telemetry.summary import sync_times
from testbed.run import run
from testbed.wan.build import load_preset


def events_of(run_dir):
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def test_the_model_is_that_of_one_connection_bit_for_bit(tmp_path):
    config = small_config(testbed__name="local", eval_every_s=100.0, rounds=3, wan__connections=3)
    summary = run(config, tmp_path)
    assert summary["connections"] == 3
    final = np.load(tmp_path / "models" / "final.npy")
    assert final.tobytes() == simulated(small_config(rounds=3)).final.tobytes()


def test_a_center_that_dies_and_comes_back_has_all_its_connections_again(tmp_path):
    config = RunConfig(rounds=40)
    config.wan = load_preset("three_centers")
    config.wan.connections = 3
    config.model = SyntheticConfig(bytes=300_000, pace_s=0.1)
    config.testbed.name = "local"
    config.testbed.faults = [
        {"at": 1.0, "kind": "kill", "node": "c2"},
        {"at": 1.5, "kind": "restart", "node": "c2"},
    ]
    summary = run(config, tmp_path)
    assert summary["rounds"] == 40
    held = {e["round"] for e in events_of(tmp_path) if e["event"] == "round" and e["node"] == "c2"}
    assert {0, 39} <= held
    logs = [path.read_text() for path in tmp_path.glob("nodes/*/log.txt")]
    assert not [line for log in logs for line in log.splitlines() if "refused what" in line]


@pytest.mark.emulated
@pytest.mark.timeout(240)
def test_four_connections_are_faster_on_a_lossy_link_as_simulated(tmp_path):
    mean = {}
    for testbed in ("simulated", "emulated"):
        for connections in (1, 4):
            config = RunConfig(rounds=3)
            link = {"between": ["a", "b"], "rate": 40, "rtt": 100, "loss": 0.005}
            config.wan = WanConfig(
                name="lossy", centers=["a", "b"], links=[link], connections=connections
            )
            config.model = SyntheticConfig(bytes=1_500_000, pace_s=0.1)
            config.overlay.chunk_elements = 16_384
            config.testbed.name = testbed
            folder = tmp_path / f"{testbed}{connections}"
            run(config, folder)
            mean[testbed, connections] = statistics.fmean(sync_times(events_of(folder)).values())
    assert mean["simulated", 1] == pytest.approx(4 * mean["simulated", 4], rel=0.15)
    assert 2 < mean["emulated", 1] / mean["emulated", 4] < 9
    for connections in (1, 4):  # the formula for one connection is off by as much
        assert 0.4 < mean["emulated", connections] / mean["simulated", connections] < 2
