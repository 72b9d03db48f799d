"""The conformance table of synchronization algorithms: one row each; all meet every check."""

import functools
import logging
from typing import Any, NamedTuple

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config

from geojax.center.trainer import build_trainer
from geojax.data.dataset import load_dataset
from geojax.data.dealing import partition
from geojax.errors import ConfigError
from geojax.federated.registry import FEDERATED
from geojax.sync.registry import SYNCS, build_sync


class Row(NamedTuple):
    """One algorithm with settings under which it learns the digits in a few rounds.

    Attributes:
      settings: configuration keys, ``__`` for the dot.
      rounds: rounds of the training run.
      exact: all centers hold the same model after every round; else each goes at its own pace.
      several: further settings where a center has several workers.
    """

    settings: dict[str, Any]
    rounds: int
    exact: bool = True
    several: dict[str, Any] = {}  # noqa: RUF012  nobody writes into it


SYNC_ROWS = {
    "fsa": Row({"sync__name": "fsa", "lr": 0.3}, rounds=24),
    "fsa, Adam": Row({"sync__name": "fsa", "optimizer__name": "adam", "lr": 0.01}, rounds=24),
    "local_steps": Row(
        {"sync__name": "local_steps", "sync__local_steps": 4, "lr": 0.3}, rounds=8
    ),
    "local_steps, momentum inside, Nesterov outside": Row(
        {
            "sync__name": "local_steps", "sync__local_steps": 4, "lr": 0.05,
            "optimizer__momentum": 0.9, "outer_optimizer__name": "sgd",
            "outer_optimizer__lr": 0.7, "outer_optimizer__momentum": 0.9,
            "outer_optimizer__nesterov": True,
        },
        rounds=8,
    ),
    "diloco": Row({"sync__name": "diloco", "sync__local_steps": 4, "lr": 0.3}, rounds=8),
    "MuLoCo": Row(
        {"sync__name": "diloco", "sync__local_steps": 4, "optimizer__name": "muon", "lr": 0.01},
        rounds=8,
    ),
    "SparseLoCo": Row(
        {
            "sync__name": "local_steps", "sync__local_steps": 4, "lr": 0.3,
            "compression__name": "topk2bit", "compression__ratio": 0.1,
        },
        rounds=12,
    ),
    "streaming_diloco": Row(
        {
            "sync__name": "streaming_diloco", "sync__local_steps": 4, "sync__fragments": 2,
            "lr": 0.3,
        },
        rounds=16,
    ),
    "streaming_diloco, overlapped, blended, 4 bits": Row(
        {
            "sync__name": "streaming_diloco", "sync__local_steps": 4, "sync__fragments": 2,
            "sync__overlap": 1, "sync__blend": 0.5, "lr": 0.3, "compression__name": "e3m0",
        },
        rounds=20,
    ),
    "hfa": Row(
        {"sync__name": "hfa", "sync__local_steps": 2, "sync__lan_rounds": 2, "lr": 0.3}, rounds=8
    ),
    "hierfavg": Row(
        {
            "sync__name": "hierfavg", "sync__local_steps": 2, "sync__lan_rounds": 2, "lr": 0.3,
            "partition__name": "size_skew",
        },
        rounds=8,
    ),
    "fedgs": Row(
        {
            "sync__name": "fedgs", "sync__local_steps": 4, "lr": 0.3, "devices__count": 4,
            "device_partition__name": "shards", "selection__name": "gbp_cs",
            "selection__devices": 3, "selection__random_devices": 1,
        },
        rounds=8,
    ),
    "esync": Row(
        {"sync__name": "esync", "lr": 0.3, "pace__centers": {"c1": 1.0, "c2": 4.0, "c3": 9.0}},
        rounds=8, several={"sync__level": "workers"},
    ),
    "esync, preprint, in flight": Row(
        {
            "sync__name": "esync", "sync__variant": "preprint", "sync__guard_s": 0.01,
            "sync__query": "in_flight", "sync__max_local_steps": 4, "lr": 0.3,
            "pace__centers": {"c1": 1.0, "c2": 4.0, "c3": 9.0},
        },
        rounds=16, several={"sync__level": "workers"},
    ),
    "mixed_sync": Row({"sync__name": "mixed_sync", "lr": 0.3}, rounds=24, exact=False),
    "mixed_sync, Adam, bounded": Row(
        {
            "sync__name": "mixed_sync", "sync__staleness": 2, "optimizer__name": "adam",
            "lr": 0.01,
        },
        rounds=24, exact=False,
    ),
    "mixed_sync, one round together": Row(
        {"sync__name": "mixed_sync", "sync__staleness": 0, "lr": 0.3}, rounds=24
    ),
    "dcasgd": Row(
        {"sync__name": "mixed_sync", "sync__compensation": "constant", "lr": 0.3},
        rounds=24, exact=False,
    ),
    "dcasgd_adaptive, sharded": Row(
        {
            "sync__name": "mixed_sync", "sync__compensation": "adaptive", "lr": 0.1,
            "overlay__name": "sharded_star",
        },
        rounds=24, exact=False,
    ),
    "ssp": Row({"sync__name": "ssp", "sync__s": 1, "lr": 0.3}, rounds=24, exact=False),
    "fedasync": Row(
        {"sync__name": "fedasync", "sync__local_steps": 4, "sync__rho": 0.05, "lr": 0.3},
        rounds=8, exact=False,
    ),
    "fedbuff, sharded": Row(
        {
            "sync__name": "fedbuff", "sync__local_steps": 4, "lr": 0.3,
            "overlay__name": "sharded_star",
        },
        rounds=10, exact=False,
    ),
    "async_diloco": Row(
        {"sync__name": "async_diloco", "sync__local_steps": 4, "lr": 0.1,
         "pace__centers": {"c1": 2.0}},
        rounds=10, exact=False,
    ),
    "halos": Row(
        {"sync__name": "halos", "sync__local_steps": 2, "sync__offers": 4, "lr": 0.3,
         "sync__share": 0.5, "sync__local_lr": 0.5, "sync__local_buffer": 4,
         "sync__global_lr": 0.5, "lan__workers": 2},
        rounds=5, exact=False,
    ),
    "fedat": Row(
        {"sync__name": "fedat", "sync__local_steps": 4, "lr": 0.3, "pace__centers": {"c3": 2.0}},
        rounds=10, exact=False,
    ),
    "quorum": Row(
        {"sync__name": "quorum", "sync__local_steps": 4, "sync__grace_s": 0.02, "lr": 0.1},
        rounds=10, exact=False,
    ),
    "quorum, adaptive grace": Row(
        {
            "sync__name": "quorum", "sync__local_steps": 4, "sync__grace_s": 0.1,
            "sync__margin": 0.5, "lr": 0.1,
        },
        rounds=10, exact=False,
    ),
    "tifl": Row(
        {"sync__name": "tifl", "sync__local_steps": 4, "lr": 0.3, "pace__centers": {"c3": 2.0}},
        rounds=12,
    ),
    "tifl, adaptive": Row(
        {
            "sync__name": "tifl", "sync__local_steps": 4, "lr": 0.3, "sync__policy": "adaptive",
            "sync__profiling_rounds": 1, "sync__interval": 2, "pace__centers": {"c3": 2.0},
        },
        rounds=12,
    ),
    "dc_aha (reconstructed)": Row(
        {"sync__name": "dc_aha", "sync__local_steps": 4, "lr": 0.3}, rounds=12, exact=False
    ),
}  # fmt: skip

each_row = pytest.mark.parametrize("row", SYNC_ROWS.values(), ids=SYNC_ROWS.keys())


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def config(row, **settings):
    training = {
        "model__name": "mlp", "data__name": "digits", "rounds": row.rounds, "eval_every_s": 0.5,
        "overlay__chunk_elements": 1000, "batch_size": 16,
    }  # fmt: skip
    return small_config(**{**training, **row.settings, **settings})


@functools.cache
def trained(name):
    return simulated(config(SYNC_ROWS[name]))


def test_every_registered_algorithm_has_a_row():
    federated = set(FEDERATED)  # have a table of their own, tests/federated/test_conformance.py
    assert {row.settings["sync__name"] for row in SYNC_ROWS.values()} == set(SYNCS) - federated


@each_row
def test_it_bears_its_configured_name(row):
    assert build_sync(config(row).sync).name == row.settings["sync__name"]


@pytest.mark.parametrize("name", SYNC_ROWS)
def test_it_learns(name):
    evaluations = trained(name).of("evaluation")
    losses = [event["loss"] for event in evaluations]
    assert all(np.isfinite(losses))
    assert losses[0] > 2.0, "the first model guesses: ln 10 = 2.3"
    assert losses[-1] < 0.6 * losses[0]
    assert evaluations[-1]["accuracy"] > 0.7


@pytest.mark.parametrize("name", SYNC_ROWS)
def test_all_centers_end_after_the_last_round_with_the_same_model_if_they_go_together(name):
    finals = trained(name).finals
    assert set(finals) == {"c1", "c2", "c3"}
    assert {last for last, _ in finals.values()} == {SYNC_ROWS[name].rounds - 1}
    assert (len(set(finals.values())) == 1) == SYNC_ROWS[name].exact


@each_row
def test_runs_with_one_seed_write_the_same_events_and_with_another_others(row):
    one, two, other = (simulated(config(row, rounds=3, seed=seed)) for seed in (0, 0, 1))
    assert one.lines() == two.lines()
    assert one.final.tobytes() == two.final.tobytes() != other.final.tobytes()


@pytest.mark.parametrize("name", SYNC_ROWS)
def test_it_survives_the_death_of_the_root(name):
    row = SYNC_ROWS[name]
    outcome = simulated(config(row, rounds=6, testbed__faults=[kill("c1", 0.25)]))
    assert set(outcome.finals) == {"c2", "c3"}
    assert not row.exact or len(set(outcome.finals.values())) == 1
    losses = [event["loss"] for event in outcome.of("evaluation")]
    assert losses[-1] < losses[0]


@each_row
def test_it_runs_with_several_workers_in_a_center(row):
    if "devices__count" in row.settings:  # these are its workers
        with pytest.raises(ConfigError, match=r"lan\.workers = 2: .*use lan\.workers=1"):
            simulated(config(row, rounds=4, workers=2))
        return
    outcome = simulated(config(row, rounds=4, workers=2, **row.several))
    assert not row.exact or len(set(outcome.finals.values())) == 1
    losses = [event["loss"] for event in outcome.of("evaluation")]
    assert losses[-1] < losses[0]


def test_fedasync_with_all_of_one_centers_model_is_that_center_training_alone():
    """α = 1, no proximal term: the worker's own steps, with no rounding in between."""
    row = Row({"sync__name": "fedasync", "sync__local_steps": 3, "sync__alpha": 1.0,
               "sync__rho": 0.0, "wan": "single_center", "lr": 0.3}, rounds=4)  # fmt: skip
    settings = config(row)
    data = load_dataset(settings.data)
    (mine,) = partition(settings.partition, data.train_y, ["c1"], settings.seed).values()
    alone = build_trainer(
        settings, features=data.train_x[mine], labels=data.train_y[mine], worker_index=0,
        worker_count=1,
    )  # fmt: skip
    for _ in range(12):
        alone.step()
    np.testing.assert_array_equal(simulated(settings).final, alone.vector())
