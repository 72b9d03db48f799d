"""Hierarchical averaging against a loop that is too simple to be wrong."""

import logging

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config

from geojax.center.trainer import build_trainer, initial_vector
from geojax.data.dataset import load_dataset
from geojax.data.dealing import partition
from geojax.errors import ConfigError
from geojax.sync.registry import SYNCS, build_sync

TOLERANCE = 1e-5
CENTERS = {"c1": 2, "c2": 3, "c3": 1}  # workers


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def config(sync="hfa", **settings):
    training = {
        "model__name": "mlp", "data__name": "digits", "rounds": 3, "batch_size": 8, "lr": 0.1,
        "eval_every_s": 100.0, "overlay__chunk_elements": 1000, "sync__name": sync,
        "sync__local_steps": 2, "sync__lan_rounds": 3, "optimizer__momentum": 0.9,
        "partition__name": "size_skew", "partition__skew": 4.0,
        "wan__centers": [{"name": n, "workers": w} for n, w in CENTERS.items()],
    }  # fmt: skip
    return small_config(**{**training, **settings})


def clients(config, names):
    """The data and the trainer of each worker."""
    data = load_dataset(config.data)
    parts = partition(config.partition, data.train_y, names, config.seed)
    trainers = {
        name: build_trainer(
            config, features=data.train_x[parts[name]], labels=data.train_y[parts[name]],
            worker_index=index, worker_count=len(names),
        )
        for index, name in enumerate(names)
    }  # fmt: skip
    return parts, trainers


def fedavg_by_hand(config, names):
    """w = Σ_k (n_k / n) w_k after every E local steps of each client, from one common w."""
    parts, trainers = clients(config, names)
    size = {name: len(parts[name]) for name in names}
    agreed = initial_vector(config).astype(np.float64)
    for _ in range(config.rounds):
        for trainer in trainers.values():
            trainer.load(agreed.astype(np.float32))
            for _ in range(config.sync.local_steps):
                trainer.step()
        moved = sum(size[name] * trainers[name].vector().astype(np.float64) for name in names)
        agreed = moved / sum(size.values())
    return agreed


def by_hand(config):
    """Averages in centers and over centers, in plain loops; uses the trainers alone."""
    names = [
        f"{center}/w{worker}" if count > 1 else center
        for center, count in CENTERS.items()
        for worker in range(count)
    ]
    parts, trainers = clients(config, names)
    by_size = config.sync.name == "hierfavg"
    size = {name: len(parts[name]) if by_size else 1 for name in names}
    agreed = initial_vector(config).astype(np.float64)
    for _ in range(config.rounds):
        means, masses = [], []
        for center in CENTERS:
            mine = [name for name in names if name.split("/")[0] == center]
            mean = agreed
            for _ in range(config.sync.lan_rounds):
                for name in mine:
                    trainers[name].load(mean.astype(np.float32))
                    for _ in range(config.sync.local_steps):
                        trainers[name].step()
                mean = sum(size[n] * trainers[n].vector().astype(np.float64) for n in mine)
                mean = mean / sum(size[n] for n in mine)
            means.append(mean)
            masses.append(sum(size[n] for n in mine) if by_size else 1)
        agreed = sum(m * w for m, w in zip(means, masses, strict=True)) / sum(masses)
    return agreed


def distance(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("sync", ["hfa", "hierfavg"])
def test_it_is_the_plain_loop(sync):
    outcome = simulated(config(sync))
    assert len(set(outcome.finals.values())) == 1
    assert distance(outcome.final, by_hand(config(sync))) <= TOLERANCE


def test_the_loops_differ_by_their_weights():
    assert distance(by_hand(config("hfa")), by_hand(config("hierfavg"))) > 10 * TOLERANCE


def test_one_lan_round_with_equal_centers_is_local_steps():
    same = {"wan__centers": ["c1", "c2", "c3"], "workers": 2}
    once = simulated(config(**same, sync__lan_rounds=1)).final
    flat = simulated(config("local_steps", **same, sync__lan_rounds=None)).final
    assert distance(once, flat) <= TOLERANCE


ONE_EDGE = {"wan": "single_center", "wan__centers": [{"name": "c1", "workers": 6}]}


@pytest.mark.parametrize("edges", ["one", "three"])
def test_with_one_lan_round_hierfavg_is_fedavg_over_all_workers(edges):
    """κ2 = 1: n_edge/n times n_k/n_edge is n_k/n, so edges make no difference."""
    found = config("hierfavg", sync__lan_rounds=1, **(ONE_EDGE if edges == "one" else {}))
    names = [f"c1/w{worker}" for worker in range(6)]
    if edges == "three":
        names = ["c1/w0", "c1/w1", "c2/w0", "c2/w1", "c2/w2", "c3"]
    flat = fedavg_by_hand(found, names)
    assert distance(simulated(found).final, flat) <= TOLERANCE
    assert distance(by_hand(config("hfa", sync__lan_rounds=1)), flat) > 10 * TOLERANCE


def test_with_one_lan_round_on_one_edge_hierfavg_is_the_runs_of_sync_fedavg():
    """Batches hold all that a client has, so a local step is an epoch."""
    same = {
        **ONE_EDGE, "partition__name": "iid", "partition__skew": None, "batch_size": 25,
        "data__train_samples": 150, "optimizer__momentum": None, "rounds": 4,
    }  # fmt: skip
    edge = simulated(config("hierfavg", **same, sync__lan_rounds=1, sync__local_steps=3))
    given = {"sync__local_steps": None, "sync__lan_rounds": None, "sync__epochs": 3}
    flat = simulated(config("fedavg", **same, **given))
    assert distance(edge.final, flat.final) <= TOLERANCE
    start = initial_vector(config("hierfavg", **same))
    assert distance(start, edge.final) > 1000 * TOLERANCE


def test_with_equal_sizes_both_are_one():
    same = {
        "wan__centers": ["c1", "c2", "c3"], "workers": 2, "partition__name": "iid",
        "partition__skew": None, "data__train_samples": 1200,
    }  # fmt: skip
    assert distance(simulated(config("hfa", **same)).final,
                    simulated(config("hierfavg", **same)).final) <= TOLERANCE  # fmt: skip


def test_centers_alone_use_no_wan():
    few = simulated(config(rounds=2))
    often = simulated(config(rounds=2, sync__lan_rounds=6))
    offers = [
        sum(link["messages"]["2"] for link in outcome.reports["c2"]["sent"].values()
            if "2" in link["messages"])
        for outcome in (few, often)
    ]  # fmt: skip
    assert offers[0] == offers[1]
    assert often.reports["c2/w0"]["steps"] == 2 * few.reports["c2/w0"]["steps"]


@pytest.mark.parametrize("node", ["c2/w1", "c2", "c3", "c1"])
@pytest.mark.parametrize("at", [0.03, 0.11, 0.2])
def test_it_survives_deaths_between_and_within_lan_rounds(node, at):
    faults = [kill(node, at), {"at": at + 0.5, "kind": "restart", "node": node}]
    outcome = simulated(
        config(rounds=8, timeouts__heartbeat=0.05, timeouts__dead=0.3, testbed__faults=faults)
    )
    assert len(set(outcome.finals.values())) == 1
    assert all(last == 7 for last, _ in outcome.finals.values())
    assert outcome.of("back")
    assert set(outcome.finals) >= set(CENTERS) - {node.split("/")[0]}


def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    settings = {"rounds": 6, "checkpoint_every": 2}
    whole = simulated(config(**settings))
    half = whole.end / 2
    broken = config(**settings, testbed__faults=[kill("scheduler", half)])
    simulated(broken, fails=True, folder=tmp_path)
    resumed = simulated(config(**settings, resume=True), folder=tmp_path)
    assert resumed.finals == whole.finals
    assert min(event["round"] for event in resumed.of("round")) > 0


@pytest.mark.parametrize("name", ["hfa", "hierfavg"])
@pytest.mark.parametrize("key", ["local_steps", "lan_rounds"])
def test_bad_numbers_are_refused(name, key):
    with pytest.raises(ConfigError, match=rf"sync\.{key} = 0: give a whole number: at least 1"):
        build_sync(SYNCS.settings(name, **{key: 0}))
