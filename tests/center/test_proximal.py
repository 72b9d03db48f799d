"""The proximal term of local steps: its anchor is what was loaded last."""

import numpy as np
import pytest

from geojax.center.trainer import build_trainer
from geojax.config import DataConfig, ModelConfig, RunConfig
from geojax.models.registry import SyntheticConfig

RHO, LR = 0.3, 0.1


def trainer_of(proximal, model="mlp"):
    chosen = SyntheticConfig(bytes=400) if model == "synthetic" else ModelConfig(name=model)
    config = RunConfig(model=chosen, data=DataConfig(name="digits"), seed=4, batch_size=6, lr=LR)
    generator = np.random.default_rng(7)
    features = generator.random((20, 8, 8, 1), np.float32)
    return build_trainer(
        config, features=features, labels=generator.integers(0, 10, 20), worker_index=1,
        worker_count=3, proximal=proximal,
    )  # fmt: skip


@pytest.mark.parametrize("model", ["mlp", "synthetic"])
def test_a_step_also_goes_back_towards_what_was_loaded(model):
    """Gradients come from a trainer without the term, at the same parameters."""
    lr = 1.0 if model == "synthetic" else LR
    trainer, plain = trainer_of(RHO, model), trainer_of(0.0, model)
    start = anchor = trainer.vector()
    for turn in range(6):
        if turn == 4:  # a new round begins somewhere else
            start = anchor = start + np.float32(0.01)
            trainer.load(start)
        plain.load(start)
        plain.steps = trainer.steps
        gradient = plain.gradient() + np.float32(RHO) * (start - anchor)
        trainer.step()
        expected = start - np.float32(lr) * gradient
        np.testing.assert_allclose(trainer.vector(), expected, rtol=1e-5, atol=1e-6)
        start = trainer.vector()
    assert trainer.last_loss == plain.last_loss or model == "synthetic"


def test_without_it_steps_are_what_they_were():
    one, two = trainer_of(0.0), trainer_of(1e-30)
    for trainer in (one, two):
        trainer.warm_up()
        trainer.step()
        trainer.step()
    np.testing.assert_array_equal(one.vector(), two.vector())
