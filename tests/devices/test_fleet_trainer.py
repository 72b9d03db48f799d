"""A base station as a trainer: the union batch, the devices one by one, and what it promises."""

import math
from dataclasses import replace

import numpy as np
import pytest

from geojax.center.optimizers import SgdConfig
from geojax.center.trainer import build_trainer
from geojax.config import DataConfig, DevicesConfig, ModelConfig, RunConfig, TestbedConfig
from geojax.data.dataset import load_dataset
from geojax.devices.fleet import Fleet
from geojax.devices.super_node import SuperNode
from geojax.devices.trainer import build_fleet_trainer, check_split
from geojax.errors import ConfigError, DataError, Diverged
from geojax.selection.registry import build_selection
from geojax.selection.sampling import RandomConfig

DATA = load_dataset(DataConfig(name="digits", train_samples=200))
BATCH, CHOSEN, DEVICES = 6, 3, 5


def run_config(model="mlp", gradient="union", **settings):
    return RunConfig(
        model=ModelConfig(name=model), data=DataConfig(name="digits"), lr=0.1, batch_size=BATCH,
        devices=DevicesConfig(count=DEVICES, gradient=gradient), **settings,
    )  # fmt: skip


def trainer_of(config, features=DATA.train_x, **settings):
    parts = np.array_split(np.arange(200), DEVICES)
    fleet = Fleet(DATA.train_y, parts, batch_size=BATCH, classes=10, seed=0)
    selection = build_selection(RandomConfig(devices=CHOSEN))
    node = SuperNode(fleet, selection, np.full(10, 0.1), seed=0, worker_index=0)
    options = {"features": features, "labels": DATA.train_y, "reports": True, **settings}
    return build_fleet_trainer(config, node, **options)


def union_of(config, trainer):
    """A trainer whose only batch is the next one of the super node."""
    node = trainer.node
    positions = node.fleet.next()[node.chosen].ravel()
    settings = replace(config, batch_size=len(positions), devices=DevicesConfig())
    return build_trainer(
        settings, features=DATA.train_x[positions], labels=DATA.train_y[positions],
        worker_index=0, worker_count=1,
    )  # fmt: skip


@pytest.mark.parametrize("gradient", ["union", "each"])
def test_a_gradient_is_that_of_the_union_batch(gradient):
    trainer = trainer_of(config := run_config(gradient=gradient))
    for _ in range(3):
        plain = union_of(config, trainer)
        np.testing.assert_allclose(trainer.gradient(), plain.gradient(), rtol=1e-4, atol=1e-6)
        assert math.isclose(trainer.last_loss, plain.last_loss, rel_tol=1e-5)
    assert trainer.steps == 3


def test_steps_of_the_union_and_of_each_device_agree():
    momentum = SgdConfig(momentum=0.9)
    union = trainer_of(run_config(optimizer=momentum))
    each = trainer_of(run_config(gradient="each", optimizer=momentum))
    before = union.vector()
    for _ in range(5):
        union.step()
        each.step()
    assert np.array_equal(union.node.fleet.taken, each.node.fleet.taken)
    moved = np.linalg.norm(union.vector() - before)
    assert np.linalg.norm(union.vector() - each.vector()) <= 1e-6 * moved


def test_devices_normalize_their_own_batches_and_their_statistics_are_averaged():
    each, union = (trainer_of(run_config("cnn_batchnorm", kind)) for kind in ("each", "union"))
    split = each.spec.parameters
    alone = []
    for device in each.node.chosen:
        positions = each.node.fleet.next()[device]
        settings = replace(run_config("cnn_batchnorm"), devices=DevicesConfig())
        own = build_trainer(
            settings, features=DATA.train_x[positions], labels=DATA.train_y[positions],
            worker_index=0, worker_count=1,
        )  # fmt: skip
        alone.append(own.gradient())
    made = each.gradient()
    np.testing.assert_allclose(made, np.mean(alone, axis=0), rtol=1e-3, atol=1e-5)
    assert np.array_equal(each.vector()[split:], made[split:]), "the state moves on"
    assert not np.allclose(made[split:], union.gradient()[split:], rtol=1e-3)
    assert each.state_dict()["integers"] == {"['counters/batches']": 1}


@pytest.mark.parametrize("gradient", ["union", "each"])
def test_a_state_brings_trainer_and_devices_back(gradient):
    config = run_config(gradient=gradient, optimizer=SgdConfig(momentum=0.9))
    trainer = trainer_of(config)
    trainer.warm_up()
    assert (trainer.steps, trainer.node.step) == (0, 0)
    assert trainer.node.fleet.taken.tolist() == [0] * DEVICES
    for _ in range(3):
        trainer.step()
    kept, vector = trainer.state_dict(), trainer.vector()
    trainer.step()
    other = trainer_of(config)
    other.load(vector)
    other.load_state(kept)
    other.step()
    assert np.array_equal(other.vector(), trainer.vector())
    assert other.steps == other.node.step == 4


def test_who_comes_back_repeats_the_choices_without_training():
    walked, back = trainer_of(run_config()), trainer_of(run_config())
    for _ in range(4):
        walked.step()
    before = back.vector()
    back.skip_to(4)
    assert np.array_equal(back.vector(), before)
    back.load(walked.vector())
    assert np.array_equal(back.gradient(), walked.gradient())
    assert np.array_equal(back.node.fleet.taken, walked.node.fleet.taken)


def test_a_step_lasts_as_long_as_one_batch_and_its_transfers():
    trainer = trainer_of(run_config(), weight=1.25)
    size, planned = trainer.spec.size, trainer.planned()
    assert (planned.batches, planned.samples) == (1.0, CHOSEN * BATCH)
    assert planned.seconds == pytest.approx(32 * (2 * size + 10) / 100e6 + 0.005)
    assert planned.internal_bytes == 4 * (CHOSEN * 2 * size + DEVICES * 10)
    assert planned == trainer.planned()
    assert planned.divergence == trainer.node.facts(0).divergence
    trainer.step()
    assert trainer.planned().internal_bytes == 4 * (CHOSEN * 2 * size + CHOSEN * 10)
    assert trainer.weight == 1.25
    with pytest.raises(RuntimeError, match="built to train unstaged"):
        trainer.forward(0)


@pytest.mark.parametrize("gradient", ["union", "each"])
def test_what_is_not_finite_is_found(gradient):
    features = DATA.train_x.copy()
    features[:] = np.inf
    with pytest.raises(Diverged, match="not finite"):
        trainer_of(run_config(gradient=gradient), features).step()
    with pytest.raises(DataError, match=r"digits: samples of shape \(8, 8\)"):
        trainer_of(run_config(), DATA.train_x[..., 0])


def test_a_step_is_split_evenly_over_local_devices():
    config = run_config(testbed=TestbedConfig(devices=4))
    with pytest.raises(ConfigError, match=r"testbed\.devices = 4: must divide the 18 samples of a"):
        check_split(config, 3, 4)
    check_split(config, 2, 4)  # 12 samples
    with pytest.raises(ConfigError, match=r"batch_size = 6: must be a multiple of the 4 .* try 8"):
        check_split(run_config(gradient="each"), 2, 4)
