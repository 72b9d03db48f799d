"""The bounds in ``summary.json``, on events made by hand and in a simulated run."""

import json

import pytest
from commands_here import command
from simulated_runs import small_config

from geojax.axes import change
from geojax.config import RunConfig
from geojax.hips.cluster import Cluster, NodeSpec
from geojax.overlay.view import NetworkView
from testbed.figures.efficiency import efficiency
from testbed.run import run

ELEMENTS = 250_000  # 8 Mbit
VIEW = NetworkView(
    ("c1", "c2"),
    rate={("c1", "c2"): 8e6, ("c2", "c1"): 8e6},
    delay={("c1", "c2"): 0.01, ("c2", "c1"): 0.03},
)
PLACES = Cluster(
    (
        NodeSpec("scheduler", "c1", "scheduler"),
        NodeSpec("c1", "c1", "server"),
        NodeSpec("c2", "c2", "server"),
    )
)
START = {"t": 0.0, "node": "scheduler", "event": "start", "elements": ELEMENTS}


def rates(t, rate):
    return {"t": t, "node": "wan", "event": "rates", "rates": [["c1", "c2", rate]]}


def both(number, offered, held):
    return [
        {"t": held, "node": name, "event": "round", "round": number, "offered": offered,
         "held": held}
        for name in ("c1", "c2")
    ]  # fmt: skip


def figures(
    *events, compression="size_only", testbed="simulated", goodput=0.5, warmup=0, settings=()
):
    config = RunConfig(warmup_rounds=warmup)
    change(config, dict(settings))
    config.compression.name, config.testbed.name = compression, testbed
    listed = sorted([START, *events], key=lambda event: event["t"])
    return efficiency(config, VIEW, listed, PLACES, goodput)


@pytest.mark.parametrize(
    "settings",
    [
        {"sync": "streaming_diloco", "sync.local_steps": 4, "sync.fragments": 2},
        {"sync": "tifl"},
        {"sync": "fedasync"},
        {"center_selection": "random", "center_selection.devices": 1},
    ],
)
def test_rounds_that_do_not_exchange_everything_have_no_bound(settings):
    """A half of the vector, or of one center, may be faster than the bound of all."""
    found = figures(*both(0, 1.0, 1.1), settings=settings)
    assert found == {"latency_bound_s": pytest.approx(0.04)}
    assert "bound_s" in figures(*both(0, 1.0, 1.1), settings={"sync": "esync"})


def test_efficiency_is_the_bound_over_goodput_and_sync_time():
    found = figures(*both(0, 1.0, 5.0), *both(1, 6.0, 10.0))
    assert found == {
        "latency_bound_s": pytest.approx(0.04),
        "bound_s": pytest.approx(1.0),
        "bound_efficiency": pytest.approx(1.0 / (0.5 * 4.0)),
        "bound_ratio": pytest.approx(2.0),
    }


def test_each_round_has_the_bound_of_its_rates_and_rounds_with_a_change_do_not_count():
    found = figures(
        *both(0, 1.0, 2.0),  # 8 Mbit/s: 1 s
        *both(1, 3.0, 9.0), rates(5.0, 4e6),  # changes under way
        *both(2, 10.0, 13.0),  # 4 Mbit/s: 2 s
        rates(13.5, 1e6), rates(13.6, 2e6),  # in between: 2 Mbit/s
        *both(3, 14.0, 22.0),  # 4 s
    )  # fmt: skip
    assert found["bound_s"] == pytest.approx((1 + 2 + 4) / 3)
    assert found["bound_efficiency"] == pytest.approx(7 / 3 / (0.5 * 4.0))  # sync: 1, 3, 8


def test_rounds_of_the_warm_up_do_not_count():
    later = both(1, 6.0, 9.0)
    assert figures(*both(0, 1.0, 5.0), *later, warmup=1) == figures(*later)
    assert figures(*both(0, 1.0, 5.0), warmup=1).keys() == {"latency_bound_s"}


def test_a_round_without_all_trainers_does_not_count():
    whole, (alone, _) = both(0, 1.0, 5.0), both(1, 6.0, 7.0)
    assert figures(*whole, alone) == figures(*whole)
    assert figures(alone).keys() == {"latency_bound_s"}


def test_what_is_not_known_is_absent():
    rounds = both(0, 1.0, 5.0)
    assert figures(*rounds, goodput=None).keys() == {"latency_bound_s", "bound_s"}
    assert figures().keys() == {"latency_bound_s"}
    assert figures(*rounds, compression="bisparse") == {}
    assert figures(*rounds, testbed="local") == {}


def test_of_very_many_changes_evenly_spaced_ones_are_taken(monkeypatch):
    monkeypatch.setattr("testbed.figures.efficiency.TOTAL_WORK", 2 * 2 * 2)  # two linear programs
    events = []
    for number in range(4):  # 1, 2, 4, 8 s
        events += [rates(10.0 * number, 8e6 / 2**number)]
        events += both(number, 10.0 * number + 1, 10.0 * number + 9)
    assert figures(*events)["bound_s"] == pytest.approx((1 + 4) / 2)


@pytest.mark.parametrize(("overlay", "least", "most"), [("packing", 0.9, 1.0), ("star", 0.1, 0.4)])
def test_a_simulated_run_tells_how_near_it_came(tmp_path, overlay, least, most):
    config = small_config(
        wan="netstorm9_draw", elements=400_000, chunk_elements=2048, rounds=2,
        overlay__name=overlay,
        compression__name="size_only", testbed__goodput_factor=1.0, wan__delay_scale=0.0,
        pace__encode_gbps=1e9, pace__sum_gbps=1e9, pace__outer_gbps=1e9, hash_every=0,
        timeouts__heartbeat=1e9, timeouts__dead=1e9, timeouts__round=1e9,
    )  # fmt: skip
    summary = run(config, tmp_path)
    assert least < summary["bound_efficiency"] < most
    assert summary["bound_s"] == pytest.approx(
        summary["bound_efficiency"] * summary["sync_s"]["mean"]
    )
    assert summary["latency_bound_s"] == 0
    json.dumps(summary, allow_nan=False)


def test_the_benchmark_runs():
    small = ["--seeds", "1", "--bytes", "400000", "--chunk-elements", "1000"]
    done = command("experiments.bench.packing", "wan=three_centers", *small)
    assert done.returncode == 0, done.stderr
    assert "three_centers: 3 centers, 6 links; 400,000 bytes" in done.stdout
    assert "sharded_star" in done.stdout
