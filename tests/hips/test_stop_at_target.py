"""Runs that end when they have reached their target."""

import logging

import pytest
from simulated_runs import simulated, small_config

from geojax.errors import ConfigError
from geojax.telemetry.summary import time_to_target
from testbed.run import check


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def config(**settings):
    training = {
        "model__name": "mlp", "data__name": "digits", "rounds": 200, "batch_size": 16, "lr": 0.5,
        "eval_every_s": 0.2, "target_accuracy": 0.7, "stop_at_target": True,
    }  # fmt: skip
    return small_config(**{**training, **settings})


@pytest.mark.parametrize("sync", ["fsa", "mixed_sync"])
def test_a_run_ends_a_few_rounds_after_its_target_is_reached(sync):
    settings = {"sync__name": sync, "lr": 0.5 if sync == "fsa" else 0.2}
    outcome = simulated(config(**settings))
    reached, number = time_to_target(outcome.of("evaluation"), 0.7)
    assert reached is not None
    lasts = [last for last, _ in outcome.finals.values()]
    assert number <= max(lasts) + 1 <= number + 12
    whole = simulated(config(**settings, stop_at_target=False, rounds=max(lasts) + 1))
    assert time_to_target(whole.of("evaluation"), 0.7) == (reached, number)


def test_a_target_out_of_reach_changes_nothing():
    short = {"rounds": 10, "target_accuracy": 1.0}
    assert (
        simulated(config(**short)).finals == simulated(config(**short, stop_at_target=False)).finals
    )


def test_it_needs_evaluation_while_the_run_goes_on():
    with pytest.raises(ConfigError, match=r"stop_at_target.*testbed=simulated"):
        check(config(testbed__name="local"))
