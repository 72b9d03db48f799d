"""Runs that end when they have reached their target."""

import json
import logging

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config

from geojax.errors import ConfigError, GeojaxError
from geojax.telemetry.recorder import traced_spans
from geojax.telemetry.summary import time_to_target
from testbed.run import check, prepare, run
from testbed.simulated.run import AT_TARGET


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


@pytest.mark.parametrize("sync", ["fsa", "fedbuff"])
def test_nothing_counts_after_the_evaluation_that_reached_the_target(tmp_path, sync):
    """Steps last 0.5 s and evaluations are 0.4 s apart: rounds are under way at each of them."""
    made = config(sync__name=sync, model__pace_s=0.5, eval_every_s=0.4, lr=0.2, seed=1)
    if sync == "fedbuff":
        made.sync.local_steps = 1
    summary = run(made, tmp_path)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    evaluations = [event for event in events if event["event"] == "evaluation"]
    reached, _ = time_to_target(evaluations, 0.7)
    assert reached == summary["time_to_target_s"] == summary["time_s"] == evaluations[-1]["t"]
    assert max(e["held"] for e in events if e["event"] == "round") > reached + 0.5
    traced = traced_spans(json.loads((tmp_path / "trace.json").read_text()))
    computed = [s for spans in traced.values() for s in spans if s.name == "compute"]
    assert summary["steps"] == sum(span.end < reached for span in computed)
    assert summary["samples"] == 16 * summary["steps"]
    sent = [s for spans in traced.values() for s in spans if s.name == "send"]
    assert all(s.end <= reached or s.start >= reached for s in sent), "none is cut in two"
    begun = sum(span.args["bytes"] for span in sent if span.start < reached)
    assert summary["wan_bytes"] == begun < sum(span.args["bytes"] for span in sent)
    setup, *_ = prepare(made, tmp_path)
    figures = setup.evaluator()(np.load(tmp_path / "models" / "final.npy"))
    assert figures["accuracy"] == evaluations[-1]["accuracy"] == summary["final_accuracy"]


def test_a_continued_run_reaches_its_target_where_the_whole_one_does(tmp_path):
    """The last evaluations before the checkpoint count among the three, and counters go on."""
    settings = {"model__pace_s": 0.5, "eval_every_s": 0.4, "checkpoint_every": 2}
    whole = run(config(**settings), tmp_path / "whole")
    faults = [kill("scheduler", whole["time_s"] - 0.5)]
    with pytest.raises(GeojaxError):
        run(config(**settings, testbed__faults=faults), tmp_path / "broken")
    resumed = run(config(**settings, resume=True), tmp_path / "broken")
    same = ("time_to_target_s", "rounds_to_target", "final_accuracy", "steps", "samples", "rounds")
    assert {key: resumed[key] for key in same} == {key: whole[key] for key in same}


def test_a_run_that_is_continued_after_its_target_has_the_same_figures(tmp_path):
    """Its checkpoint lies after the target; the counters of that instant were kept."""
    settings = {"model__pace_s": 0.5, "eval_every_s": 0.4, "checkpoint_every": 1}
    whole = run(config(**settings), tmp_path)
    resumed = run(config(**settings, resume=True), tmp_path)

    def figures(summary):  # spans are kept to a microsecond
        changes = ("wall_s", "peak_memory_bytes", "incidents")
        same = {key: each for key, each in summary.items() if key not in changes}
        return json.loads(json.dumps(same), parse_float=lambda text: round(float(text), 6))

    assert figures(resumed) == figures(whole)
    (tmp_path / "checkpoints" / AT_TARGET).unlink()
    with pytest.raises(ConfigError, match=r"resume = True: the run reached this target at .* anew"):
        run(config(**settings, resume=True), tmp_path)
