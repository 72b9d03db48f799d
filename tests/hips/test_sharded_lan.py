"""Sums that are made at a center's workers: the same training, past the local server's port."""

import logging

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config

from geojax.errors import ConfigError
from geojax.wire.message import HEADER_BYTES, Kind

STEPS = {"sync__name": "local_steps", "sync__local_steps": 2}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def center_of(overlay, workers=4, **settings):
    """Eight chunks, so that each of four workers sums two; the LAN is what takes the time."""
    return small_config(**{
        "elements": 8000, "chunk_elements": 1000, "rounds": 4, "workers": workers,
        "overlay__lan": overlay, "lan__rate": 10.0, **settings,
    })  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {},
        STEPS,
        {**STEPS, "compression__name": "fp16"},
        {**STEPS, "overlay__pieces": 4},
        {"sync__name": "hfa", "sync__local_steps": 2, "sync__lan_rounds": 3},
        {"sync__name": "mixed_sync"},
    ],
    ids=str,
)
def test_the_same_training_in_less_time(settings):
    star, sharded = (simulated(center_of(overlay, **settings)) for overlay in ("star", "sharded"))
    assert star.final is not None
    assert sharded.final is not None
    assert np.ptp(star.final) > 0
    if "sync__name" not in settings or settings["sync__name"] != "mixed_sync":  # has another order
        assert len(set(sharded.finals.values())) == 1
        tolerance = 2e-3 if "compression__name" in settings else 1e-6
        np.testing.assert_allclose(sharded.final, star.final, rtol=tolerance, atol=tolerance)
    assert sharded.end < 0.75 * star.end


def test_the_local_servers_port_carries_one_vector_each_way():
    star, sharded = (simulated(center_of(overlay)) for overlay in ("star", "sharded"))
    offer, result = str(int(Kind.OFFER)), str(int(Kind.RESULT))

    def carried(run):
        """Bytes that the workers of c1 send their local server, and get from it."""
        inside = {name: run.reports[name]["sent"] for name in run.reports if name[:2] == "c1"}
        up = sum(inside[f"c1/w{at}"]["c1"]["bytes"][offer] for at in range(4))
        down = sum(inside["c1"][f"c1/w{at}"]["bytes"][result] for at in range(4))
        return up, down

    vector = 4 * (8 * HEADER_BYTES + 4 * 8000)  # in all rounds
    assert carried(star) == (4 * vector, 4 * vector)
    assert carried(sharded) == (vector, vector)


@pytest.mark.parametrize("at", [0.05, 0.15, 0.25, 0.4])
@pytest.mark.parametrize("workers", [2, 3])
def test_a_worker_that_sums_for_others_may_die_and_come_back(workers, at):
    config = center_of(
        "sharded", workers, rounds=8, timeouts__heartbeat=0.05, timeouts__dead=0.3,
        testbed__faults=[kill("c2/w1", at), {"at": at + 0.6, "kind": "restart", "node": "c2/w1"}],
    )  # fmt: skip
    outcome = simulated(config)
    assert {last for last, _ in outcome.finals.values()} == {7}
    assert len(set(outcome.finals.values())) == 1
    assert not outcome.accused
    assert outcome.of("dead")


def test_whose_speeds_differ_take_more_steps_as_before():
    """ESync among workers: its decisions rest on times, and a sum waits for the slowest anyway."""
    config = center_of("sharded", 2, sync__name="esync", sync__level="workers", model__pace_s=0.1)
    config.pace.profile = {"kind": "two_groups", "h": 10}
    outcome = simulated(config)
    assert len(set(outcome.finals.values())) == 1
    assert max(event["steps"] for event in outcome.of("steps")) > 1


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"workers": 1}, "no center has more than one worker"),
        ({"sync__name": "halos", "sync__local_steps": 2}, "sum nothing"),
        ({"overlay__lan": "ring"}, "overlay.lan"),
    ],
)
def test_what_has_no_such_sums_is_refused(settings, complaint):
    with pytest.raises(ConfigError, match=complaint):
        simulated(center_of(**{"overlay": "sharded", **settings}))
