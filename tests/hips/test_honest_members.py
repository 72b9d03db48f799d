"""Whatever happens to honest members, nobody accuses one: drawn runs with faults, and no liar."""

import logging
import random
from typing import Any

import pytest
from simulated_runs import kill, simulated, small_config

from geojax.config import WanConfig

ROWS = {
    "fsa": {"sync__name": "fsa"},
    "fsa, ring": {"sync__name": "fsa", "overlay__name": "ring"},
    "local_steps": {"sync__name": "local_steps", "sync__local_steps": 3},
    "diloco": {"sync__name": "diloco", "sync__local_steps": 3},
    "streaming_diloco": {"sync__name": "streaming_diloco", "sync__local_steps": 4},
    "hfa": {"sync__name": "hfa"},
    "fsa, sharded": {"sync__name": "fsa", "workers": 3, "overlay__lan": "sharded"},
    "hfa, sharded": {"sync__name": "hfa", "workers": 3, "overlay__lan": "sharded"},
    "hierfavg": {"sync__name": "hierfavg", "sync__lan_rounds": 2},
    "esync, centers": {"sync__name": "esync", "sync__level": "centers", "workers": 1},
    "esync, workers": {"sync__name": "esync", "sync__level": "workers", "workers": 2},
    "esync, sharded": {
        "sync__name": "esync",
        "sync__level": "both",
        "workers": 2,
        "overlay__lan": "sharded",
    },
    "esync, both": {"sync__name": "esync", "sync__level": "both", "workers": 2},
    "tifl": {"sync__name": "tifl", "sync__profiling_rounds": 1, "sync__local_steps": 2},
    "quorum": {"sync__name": "quorum", "sync__local_steps": 2},
    "fedat": {"sync__name": "fedat", "sync__local_steps": 2},
    "fedasync": {"sync__name": "fedasync", "sync__local_steps": 2},
    "fedbuff": {"sync__name": "fedbuff", "sync__buffer": 2, "sync__local_steps": 2},
    "mixed_sync": {"sync__name": "mixed_sync", "overlay__name": "sharded_star"},
    "dc_aha": {"sync__name": "dc_aha", "sync__local_steps": 2},
    "ssp": {"sync__name": "ssp", "sync__s": 1},
    "halos": {"sync__name": "halos", "sync__offers": 2, "workers": 2},
}
# By day: runs in which somebody was accused once, and a few others.
DAY = [
    (3, "esync, workers"), (30, "fsa, ring"), (27, "esync, both"), (38, "hierfavg"), (47, "halos"),
    (40, "fedat"), (41, "mixed_sync"), (42, "hfa"), (43, "local_steps"),
]  # fmt: skip
REAL = [(103, "esync, both"), (210, "esync, both"), (219, "diloco")]


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def faults_of(rng, centers, workers, until):
    """Deaths, returns and freezes of any nodes but those of one center, up to a time, s."""
    spared = rng.choice(centers)
    nodes = [c for c in centers if c != spared]
    if workers > 1:
        nodes += [f"{c}/w{w}" for c in centers for w in range(workers) if c != spared or w]
    faults, free = [], dict.fromkeys(nodes, 0.0)
    for _ in range(rng.randint(1, 5)):
        node = rng.choice(nodes)
        at = round(free[node] + rng.uniform(0.02, until), 3)
        if rng.random() < 0.3:
            faults.append(
                {
                    "at": at,
                    "kind": "freeze",
                    "node": node,
                    "duration": round(rng.uniform(0.05, 0.6), 3),
                }
            )
            free[node] = at + 0.7
            continue
        faults.append(kill(node, at))
        back = round(at + rng.uniform(0.05, 1.0), 3)
        if rng.random() < 0.3:
            free[node] = float("inf")
            nodes.remove(node)
            if not nodes:
                break
        else:
            faults.append({"at": back, "kind": "restart", "node": node})
            free[node] = back + 0.05
    return sorted(faults, key=lambda fault: fault["at"])


def drawn(seed, row, *, trains=False):
    """A run of an algorithm with drawn paces, links and faults; ``trains``: on unequal data."""
    rng = random.Random(seed)
    workers = ROWS[row].get("workers", rng.choice((1, 2)))
    centers = ["c1", "c2", "c3", "c4"][: rng.randint(2, 4)]
    settings = {
        **ROWS[row], "workers": workers, "rounds": 20,
        "timeouts__dead": 0.3, "timeouts__heartbeat": 0.05, "timeouts__round": 60.0,
        "pace__centers": {name: rng.choice((1.0, 1.0, 2.0, 5.0)) for name in centers},
        "testbed__faults": faults_of(rng, centers, workers, 0.8),
    }  # fmt: skip
    alpha = 0.3 + rng.random()
    if trains:  # else all weigh the same
        settings |= {
            "model__name": "mlp", "model__hidden": [8], "data__name": "digits", "batch_size": 4,
            "data__train_samples": 120, "data__test_samples": 10, "eval_every_s": 100.0,
            "partition__name": "dirichlet", "partition__alpha": alpha,
            "overlay__chunk_elements": 400,
        }  # fmt: skip
    config = small_config(**settings)
    rtt = rng.choice((2.0, 20.0, 80.0))
    config.wan = WanConfig(
        name="drawn", generator="uniform", centers=len(centers), rate=1000.0, rtt=rtt
    )
    return config


def check(seed, row, *, trains=False):
    outcome = simulated(drawn(seed, row, trains=trains), fails=None)
    accused = [(e["node"], e["peer"], e.get("why", e.get("reason"))) for e in outcome.of("refused")]
    assert not accused, (seed, row, trains)
    assert outcome.error is None, (seed, row, trains, outcome.error)
    assert not outcome.of("owed"), "nothing is lost but what is sent again"
    assert {last for last, _ in outcome.finals.values()} == {19}
    if not outcome.of("applied"):  # centers go together
        assert len(set(outcome.finals.values())) == 1


@pytest.mark.parametrize(("seed", "row"), DAY)
def test_whoever_dies_freezes_and_comes_back_nobody_is_accused(seed, row):
    check(seed, row)


@pytest.mark.parametrize(("seed", "row"), REAL)
def test_nor_where_data_are_unequal(seed, row):
    check(seed, row, trains=True)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("row", ROWS)
def test_nobody_is_accused_in_many_drawn_runs(row):
    for seed in range(300, 340):
        check(seed, row)
        if seed % 4 == 0:
            check(seed, row, trains=True)


@pytest.mark.parametrize("name", ["esync", "hfa", "local_steps", "fsa"])
@pytest.mark.parametrize("second", [0.005, 0.061, 0.3])
def test_two_deaths_shortly_after_each_other_make_nobody_accused(name, second):
    """Both workers of a center die: the others' rounds stand for others meanwhile (ESync)."""
    level: dict[str, Any] = {"sync__level": "both"} if name == "esync" else {}
    faults = [kill("c2/w0", 0.5), kill("c2/w1", 0.5 + second)]
    config = small_config(
        sync__name=name, workers=2, rounds=10 if level else 30, timeouts__dead=0.3,
        timeouts__heartbeat=0.05, pace__centers={"c2": 5.0}, testbed__faults=faults, **level,
    )  # fmt: skip
    config.wan = WanConfig(name="two", generator="uniform", centers=2, rate=1000.0, rtt=20.0)
    outcome = simulated(config)
    assert not outcome.of("refused")
    assert {"c2/w0", "c2/w1"} <= {name for e in outcome.of("dead") for name in e["nodes"]}
    assert set(outcome.finals) == {"c1"}


@pytest.mark.parametrize("name", ["fsa", "mixed_sync"])
def test_a_chunk_that_takes_longer_than_a_fifth_of_a_round_makes_nobody_accused(name):
    for at in (0.8, 1.3, 2.4):
        config = small_config(
            sync__name=name, rounds=4, elements=30000, chunk_elements=30000, timeouts__dead=0.3,
            timeouts__heartbeat=0.05, timeouts__round=4.8 if name == "fsa" else 9.0,
            testbed__faults=[kill("c3", at)],
        )  # fmt: skip
        config.wan = WanConfig(name="slow", generator="uniform", centers=3, rate=1.0, rtt=10.0)
        outcome = simulated(config)
        assert not outcome.of("refused")
        assert set(outcome.finals) == {"c1", "c2"}


@pytest.mark.parametrize("second", [9.74, 9.92])
def test_who_cannot_be_heard_while_a_link_is_out_is_not_accused(second):
    """Twice c2 and c3 owe each other what came of the epoch before, for longer than round / 5."""
    times = {"c4": 0.5, "c5": second}
    outages = [
        {"kind": "outage", "between": ["c2", "c3"], "at": at + 0.05, "duration": 8.0}
        for at in times.values()
    ]
    config = small_config(
        sync__name="fsa", overlay__name="sharded_star", rounds=60, timeouts__dead=0.5,
        timeouts__heartbeat=0.05, timeouts__round=10.0,
        testbed__faults=[kill(name, at) for name, at in times.items()],
    )  # fmt: skip
    config.wan = WanConfig(
        name="out", generator="uniform", centers=5, rate=5.0, rtt=80.0, dynamics=outages
    )
    outcome = simulated(config)
    assert outcome.accused == {"c2", "c3"}, "by each other"
    assert [event["nodes"] for event in outcome.of("dead")] == [["c4"], ["c5"]]
    assert set(outcome.finals) == {"c1", "c2", "c3"}
