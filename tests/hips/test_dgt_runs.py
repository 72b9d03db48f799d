"""Whole simulated runs with DGT: they train, centers stay equal, deaths do no harm."""

import functools
import logging
from collections import defaultdict
from itertools import pairwise

import pytest
from simulated_runs import kill, simulated, small_config

from geojax.config import WanConfig
from geojax.errors import ConfigError
from geojax.telemetry.summary import summarize
from geojax.wire.message import Kind
from testbed.run import check

MODES = {
    "dense": {"name": "dense"},
    "all": {"k": 1.0},
    "tcp": {},
    "4bit": {"tail": "4bit", "k": 0.5},
    "udp": {"channel": "udp"},
    "last": {"channel": "udp", "lost": "last"},
}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def config(mode, loss=0.0, **settings):
    """Three centers and links so slow that late parts are late."""
    chosen = {"name": "dgt", **MODES[mode]}
    if chosen["name"] == "dgt":
        chosen["block_bytes"] = 256
    lossy = WanConfig(name="lossy", generator="uniform", centers=3, rate=3.0, rtt=20.0, loss=loss)
    return small_config(**{
        "wan": "three_centers", "rounds": 40, "model__name": "mlp", "data__name": "digits",
        "batch_size": 8, "lr": 0.3, "eval_every_s": 0.5, "overlay__chunk_elements": 1000,
        **{f"compression__{key}": value for key, value in chosen.items()}, **settings,
    }), lossy  # fmt: skip


@functools.cache
def outcome(mode, loss=0.0, seed=0):
    chosen, chosen.wan = config(mode, loss, seed=seed)
    return simulated(chosen)


def late_parts(found):
    """How many were sent, and how many came."""
    sent = sum(
        link["messages"].get(str(int(Kind.LATE)), 0)
        for report in found.reports.values()
        for link in report["sent"].values()
    )
    return sent, sum(report["totals"].get("late_parts", 0) for report in found.reports.values())


@pytest.mark.parametrize("mode", ["tcp", "4bit", "udp", "last"])
def test_it_trains_and_centers_stay_equal(mode):
    found = outcome(mode, 0.02)
    losses = [event["loss"] for event in found.of("evaluation")]
    dense = [event["loss"] for event in outcome("dense", 0.02).of("evaluation")]
    assert losses[-1] < 0.6 * losses[0]
    assert losses[-1] < 1.2 * dense[-1]
    assert len(found.finals) == 3
    assert len(set(found.finals.values())) == 1
    assert found.final.tobytes() != outcome("dense", 0.02).final.tobytes()
    sent, came = late_parts(found)
    assert 0 < came <= sent
    assert (came < 0.99 * sent) == ("udp" in MODES[mode].values()), "datagrams get lost"


def test_all_blocks_important_is_dense():
    assert outcome("all").final.tobytes() == outcome("dense").final.tobytes()
    assert late_parts(outcome("all")) == (0, 0)


def test_the_same_seed_loses_the_same_datagrams_and_another_does_not():
    chosen, chosen.wan = config("udp", 0.02)
    again = simulated(chosen)
    assert again.lines() == outcome("udp", 0.02).lines()
    assert outcome("udp", 0.02, 1).lines() != again.lines()


@pytest.mark.parametrize("mode", ["tcp", "last"])
def test_deaths_and_returns_leave_survivors_equal(mode):
    settings = {
        f"compression__{key}": value
        for key, value in {"name": "dgt", "block_bytes": 64, **MODES[mode]}.items()
    }
    faults = [kill("c2", 0.5), {"at": 4.0, "kind": "restart", "node": "c2"}]
    found = simulated(small_config(
        rounds=120, elements=3000, chunk_elements=1000, testbed__faults=faults, **settings,
    ))  # fmt: skip
    assert found.of("back")
    assert len(found.finals) == 3
    assert len(set(found.finals.values())) == 1


@pytest.mark.parametrize("channel", ["tcp", "udp"])
def test_on_a_link_that_is_always_full_every_chunk_s_late_parts_have_their_turn(channel):
    chosen = small_config(
        rounds=80, elements=100_000, chunk_elements=10_000, events="chunk", model__pace_s=0.004,
        overlay__name="star", overlay__root="c1",
        compression__name="dgt", compression__channel=channel,
    )  # fmt: skip
    slow, fast = {"from": "c2", "to": "c1", "rate": 10}, {"from": "c1", "to": "c2", "rate": 100}
    links = [{**link, "rtt": 10} for link in (slow, fast)]
    chosen.wan = WanConfig(name="uneven", centers=["c1", "c2"], links=links)
    found = simulated(chosen)
    came = [event for event in found.of("late") if event["node"] == "c1"]
    assert len(came) < 0.9 * 80 * 10, "there is room for some only"
    rounds = [{event["round"] for event in came if event["chunk"] == chunk} for chunk in range(10)]
    waits = [max(b - a for a, b in pairwise(sorted(numbers))) for numbers in rounds]
    assert max(waits) <= 10
    late = found_late_parts(found)
    assert late["offered"] == late["counted"] + late["dropped"]
    assert 0 < late["dropped"] < late["offered"]
    if channel == "tcp":
        own = found.reports["c1"]["totals"]["late_offered"]  # they cross no network
        assert own < late["counted"] <= own + len(came)


def found_late_parts(found):
    summary = summarize(
        found.events, found.reports, trainers=("c1/w1", "c2/w1"), hops=defaultdict(tuple),
        target=0.9, train_samples=None, data_kinds=(),
    )  # fmt: skip
    return summary["late_parts"]


@pytest.mark.parametrize("compensation", ["none", "constant"])
def test_servers_that_answer_every_push_at_once_are_refused(compensation):
    settings = {"sync__name": "mixed_sync", "sync__compensation": compensation}
    refused = r"^compression\.name = 'dgt': .*sync=mixed_sync .*use sync=fsa"
    with pytest.raises(ConfigError, match=refused):
        check(config("tcp", **settings)[0])
    check(small_config(**settings, compression__name="fp16"))  # what the message proposes
    check(config("tcp")[0])
