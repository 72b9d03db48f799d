"""The experiments on ESync, made short: each runs from its configuration to its figures."""

from __future__ import annotations

import pytest

from testbed.run import run


@pytest.fixture
def made(composed, tmp_path):
    """Composes an experiment, changes some keys, and runs it."""

    def make(*words, **changes):
        config = composed(*words)
        for key, value in changes.items():
            setattr(config, key, value)
        return run(config, tmp_path / str(len(list(tmp_path.iterdir()))))

    return make


def test_hsweep_gives_every_row_the_same_time(made):
    """Also one without a barrier, whose fast centers would be done before the others."""
    words = ("experiment=esync_hsweep", "pace=h10")
    found = {sync: made(*words, f"sync={sync}", max_time_s=3.0) for sync in
             ("fsa", "esync", "tifl", "fedasync")}  # fmt: skip
    assert {each["time_s"] for each in found.values()} == {3.0}
    fsa, esync = found["fsa"], found["esync"]
    assert esync["samples_per_s"] > 4 * fsa["samples_per_s"]
    assert found["fedasync"]["samples_per_s"] > 2 * fsa["samples_per_s"]
    assert esync["balance"] > 0.9 > 0.6 > fsa["balance"]
    assert esync["shares"]["wait"] < 0.1 < fsa["shares"]["wait"]
    assert esync["questions"]["p99_s"] < 0.0025
    for each in found.values():
        assert all(sum(s.values()) == pytest.approx(1) for s in each["worker_shares"].values())


def test_dynamic_has_one_bad_round(made):
    found = made("experiment=esync_dynamic", max_time_s=60.0)
    prediction = found["prediction"]
    assert prediction["wrong"] * prediction["compared"] == pytest.approx(1)
    assert found["balance"] > 0.9


def test_noniid_trains(made):
    words = ("experiment=esync_noniid", "data=digits", "data.test_samples=null")
    found = {sync: made(*words, f"sync={sync}", max_time_s=11.0) for sync in ("fsa", "esync")}
    assert found["esync"]["samples"] > 30 * found["fsa"]["samples"]
    assert found["esync"]["final_accuracy"] > found["fsa"]["final_accuracy"] + 0.1
    assert found["esync"]["wan_offer_bytes_per_epoch"] < found["fsa"]["wan_offer_bytes_per_epoch"]


def test_both_levels_gain_over_one_and_predictions_are_told_by_level(made):
    def row(name):
        return made("experiment=esync_two_level", f"variant/esync_two_level={name}", rounds=5)

    fsa, workers, both = row("fsa"), row("workers"), row("both")
    assert both["samples_per_s"] > workers["samples_per_s"] > fsa["samples_per_s"]
    assert "center_prediction" not in workers
    assert both["center_prediction"]["compared"] <= both["rounds"] == 5
    assert "wan_offer_bytes_per_epoch" not in both, "no data, so no epoch"
    assert both["wan_offer_bytes"] > 0
