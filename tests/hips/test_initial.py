"""The master's initial parameters win everywhere before the first step."""

import logging

import numpy as np
import pytest
from simulated_runs import simulated, small_config

from geojax.assemble.setup import Setup


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def differing(monkeypatch, *turns):
    """The nodes of these turns, in the order in which they are built, begin elsewhere."""
    initial, built = Setup.initial, []

    def elsewhere(self):
        built.append(None)
        vector = initial(self)
        return vector + np.float32(len(built)) if len(built) - 1 in turns else vector

    monkeypatch.setattr(Setup, "initial", elsewhere)


@pytest.mark.parametrize("sync", ["fsa", "local_steps"])
@pytest.mark.parametrize(("workers", "turns"), [(1, (1,)), (1, (1, 2)), (2, (2, 4, 6)), (2, (1,))])
def test_who_begins_elsewhere_gets_the_master_s(sync, workers, turns, monkeypatch):
    config = small_config(workers=workers, sync__name=sync)
    whole = simulated(config)
    differing(monkeypatch, *turns)
    outcome = simulated(config)
    assert outcome.finals == whole.finals
    assert len(outcome.of("initial")[0]["sources"]) == len(turns)
    assert whole.of("initial") == []


def test_all_follow_a_master_who_is_alone(monkeypatch):
    differing(monkeypatch, 0)
    outcome = simulated(small_config())
    assert outcome.of("initial")[0]["sources"] == {"c2": "c1", "c3": "c1"}
    assert len(set(outcome.finals.values())) == 1


def test_with_global_servers_that_hold_parameters_the_run_ends_with_a_reason(monkeypatch):
    differing(monkeypatch, 1)
    outcome = simulated(small_config(sync__name="mixed_sync"), fails=True)
    assert "other parameters than the first center" in str(outcome.error)
