"""The model that costs nothing to train."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from geojax.center.planned import Planned
from geojax.center.trainer import build_spec, build_trainer, initial_vector
from geojax.config import RunConfig
from geojax.errors import ConfigError
from geojax.models.registry import SyntheticConfig

NOTHING = np.zeros(0, np.float32)


def trainer_of(worker: int = 0, size: int = 100_000, **settings):
    config = RunConfig(model=SyntheticConfig(bytes=4 * size), **settings)
    return build_trainer(
        config, features=NOTHING, labels=NOTHING, worker_index=worker, worker_count=9
    )


def test_gradients_are_small_integers_so_any_order_of_addition_agrees():
    gradients = [trainer_of(worker).gradient() for worker in range(4)]
    for gradient in gradients:
        assert gradient.dtype == np.float32
        assert gradient.shape == (100_000,)
        assert np.array_equal(gradient, np.rint(gradient))
        assert np.abs(gradient).max() == 8
    sums = {sum(order[1:], start=order[0]).tobytes() for order in itertools.permutations(gradients)}
    assert len(sums) == 1


def test_gradients_depend_on_seed_worker_and_step_alone():
    trainer = trainer_of(2)
    first, second = trainer.gradient(), trainer.gradient()
    again = trainer_of(2)
    assert np.array_equal(again.gradient(), first)
    others = [first, second, trainer_of(3).gradient(), trainer_of(2, seed=1).gradient()]
    assert len({gradient.tobytes() for gradient in others}) == 4
    resumed = trainer_of(2)
    resumed.load_state({"steps": 1})
    assert np.array_equal(resumed.gradient(), second)
    resumed.skip_to(1)
    assert np.array_equal(resumed.gradient(), second)
    assert resumed.planned() == Planned(1.0, 0.0, 0, resumed.samples_per_step)
    assert resumed.weight == 1.0
    assert resumed.state_dict() == {"steps": 2}


def test_chunks_of_one_gradient_differ():
    gradient = trainer_of(size=200_000).gradient()
    assert not np.array_equal(gradient[:65_536], gradient[65_536 : 2 * 65_536])


def test_load_copies_and_a_step_subtracts_the_gradient():
    trainer, other = trainer_of(), trainer_of()
    buffer = np.full(100_000, 3, np.float32)
    trainer.load(buffer)
    buffer[:] = -1
    assert (trainer.vector() == 3).all()
    trainer.step()
    assert np.array_equal(trainer.vector(), 3 - other.gradient())
    trainer.vector()[:] = 0  # a copy
    assert trainer.vector().any()
    assert trainer.steps == 1
    trainer.warm_up()
    assert trainer.steps == 1


def test_sizes():
    config = RunConfig(model=SyntheticConfig(bytes=4000))
    assert build_spec(config).size == build_spec(config).parameters == 1000
    assert np.array_equal(initial_vector(config), np.zeros(1000, np.float32))
    for wrong, better in ((0, 4), (-8, 4), (4001, 4004)):
        with pytest.raises(ConfigError, match=rf"model\.bytes = {wrong}: .* {better}"):
            build_spec(RunConfig(model=SyntheticConfig(bytes=wrong)))
    with pytest.raises(ValueError, match=r"load: expected float32 of shape \(10,\)"):
        trainer_of(size=10).load(np.zeros(11, np.float32))
