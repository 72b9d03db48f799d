"""A broken run that is continued from its checkpoints ends as if it had never been broken."""

import logging

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("sync", ["fsa", "local_steps"])
@pytest.mark.parametrize("broken_at", [0.06, 0.21, 0.3])
def test_a_resumed_run_ends_with_the_same_model(workers, sync, broken_at, tmp_path):
    settings = {
        "rounds": 8, "workers": workers, "checkpoint_every": 2, "sync__name": sync,
        **({} if sync == "fsa" else {"sync__local_steps": 2}),
    }  # fmt: skip
    whole = simulated(small_config(**settings))
    faults = [kill("scheduler", broken_at)]
    simulated(small_config(testbed__faults=faults, **settings), fails=True, folder=tmp_path)
    resumed = simulated(small_config(resume=True, **settings), folder=tmp_path)
    np.testing.assert_array_equal(resumed.final, whole.final)
    assert resumed.finals == whole.finals
    assert (resumed.rounds_of("c1") or resumed.rounds_of("c1/w0"))[-1] == 7
    first = (resumed.rounds_of("c1") or resumed.rounds_of("c1/w0"))[0]
    assert first % 2 == 0
    assert (first > 0) == (broken_at > 0.2)


def test_a_resumed_run_counts_on_from_where_it_broke(tmp_path):
    settings = {"rounds": 8, "checkpoint_every": 2}
    whole = simulated(small_config(**settings))
    faults = [kill("scheduler", 0.3)]
    simulated(small_config(testbed__faults=faults, **settings), fails=True, folder=tmp_path)
    resumed = simulated(small_config(resume=True, **settings), folder=tmp_path)
    for node in ("c1", "c2", "c3"):
        assert resumed.reports[node]["steps"] == whole.reports[node]["steps"] == 8
        samples = resumed.reports[node]["totals"]["samples"]
        assert samples == whole.reports[node]["totals"]["samples"]
    starts = [event["at"] if "at" in event else event["t"] for event in resumed.of("start")]
    assert starts[0] > 0.1, "experiment time goes on"


def test_a_run_without_checkpoints_starts_anew(tmp_path):
    whole = simulated(small_config())
    resumed = simulated(small_config(resume=True), folder=tmp_path)
    assert resumed.rounds_of("c1") == list(range(6))
    np.testing.assert_array_equal(resumed.final, whole.final)
