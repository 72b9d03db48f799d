"""Random numbers of a step: functions of (seed, worker, step, device), and of nothing else."""

from __future__ import annotations

import logging
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn
from simulated_runs import kill, simulated, small_config

from geojax.center.evaluate import build_evaluator
from geojax.center.keys import worker_key
from geojax.center.network import Network, build_network, step_key
from geojax.center.trainer import build_trainer
from geojax.config import DataConfig, RunConfig, SyncConfig
from geojax.data.batches import BatchOrder
from geojax.models.inputs import labelled
from geojax.models.registry import MlpConfig

BATCH, SAMPLES = 8, 40


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def run_config(dropout: float = 0.5, **settings) -> RunConfig:
    model = MlpConfig("mlp", hidden=[16, 12], dropout=dropout)
    config = RunConfig(model=model, data=DataConfig("digits"), batch_size=BATCH, lr=0.1, seed=4)
    return replace(config, **settings)


def samples() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(7)
    return generator.random((SAMPLES, 8, 8, 1), np.float32), generator.integers(0, 10, SAMPLES)


def trainer_of(config: RunConfig, worker: int = 1):
    features, labels = samples()
    return build_trainer(
        config, features=features, labels=labels, worker_index=worker, worker_count=3
    )


def test_a_gradient_drops_what_the_key_of_the_step_says():
    """By hand: Flax's module, JAX's gradient, and the key as documented."""
    config = run_config()
    trainer, network = trainer_of(config), build_network(config)
    order = BatchOrder(SAMPLES, BATCH, config.seed, 1)
    parameters, _ = network.unflatten(trainer.vector())

    def loss(arrays, x, y, key):
        nested = network._variables(arrays, {}, {})
        logits = network.module.apply(nested, x, train=True, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    quickly = {"xla_backend_optimization_level": 0}
    differentiate = jax.jit(jax.grad(loss), compiler_options=quickly)
    for step in range(2):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(4), 1), step)
        key = jax.random.fold_in(key, 0)  # the only device
        x, y = (each[order(step)] for each in samples())
        expected = network.flatten(differentiate(parameters, x, y, key))
        np.testing.assert_allclose(trainer.gradient(), expected, rtol=1e-5, atol=1e-7)


def test_every_worker_step_seed_and_device_draws_its_own():
    addresses = [(s, w, k, d) for s in (0, 1) for w in (0, 1) for k in (0, 1) for d in (0, 1)]
    keys = {
        tuple(jax.random.key_data(step_key(np.append(worker_key(s, w), np.uint32(k)), d)).tolist())
        for s, w, k, d in addresses
    }
    assert len(keys) == len(addresses)


def test_training_with_dropout_is_repeatable_and_differs_from_without():
    vectors = {}
    for dropout in (0.0, 0.5):
        for attempt in range(2):
            trainer = trainer_of(run_config(dropout))
            if attempt:
                trainer.warm_up()  # leaves no trace
            for _ in range(3):
                trainer.step()
            vectors[dropout, attempt] = trainer.vector().tobytes()
    assert vectors[0.5, 0] == vectors[0.5, 1]
    assert vectors[0.0, 0] == vectors[0.0, 1] != vectors[0.5, 0]


def test_a_restored_trainer_draws_on():
    trainer, other = trainer_of(run_config()), trainer_of(run_config())
    for _ in range(3):
        trainer.step()
    other.load(trainer.vector())
    state = trainer.state_dict()
    assert "key" not in str(state)  # nothing to keep but the number of steps
    other.load_state(state)
    for each in (trainer, other):
        each.step()
    assert trainer.vector().tobytes() == other.vector().tobytes()


def test_stages_draw_what_the_whole_draws():
    """The backward part of a stage computes its forward part again, with the same numbers."""
    staged, whole = trainer_of(run_config(sync=SyncConfig(p3=True))), trainer_of(run_config())
    for _ in range(2):
        for index in range(3):
            staged.forward(index)
        gradient = np.concatenate([staged.backward(index) for index in (2, 1, 0)][::-1])
        np.testing.assert_allclose(gradient, whole.gradient(), rtol=1e-5, atol=1e-7)
        assert staged.last_loss == pytest.approx(whole.last_loss, rel=1e-6)


def test_evaluation_drops_nothing():
    features, labels = samples()
    vector = trainer_of(run_config()).vector() * 3
    found = [
        build_evaluator(run_config(dropout), features, labels)(vector)
        for dropout in (0.0, 0.5, 0.5)
    ]
    assert found[0] == found[1] == found[2]


def test_streams_of_any_name_have_numbers():
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, samples: jax.Array, *, train: bool = False) -> jax.Array:
            out = nn.Dense(10)(samples.reshape((len(samples), -1)))
            if train:
                out += jax.random.normal(self.make_rng("noise"), out.shape)
                out += jax.random.normal(self.make_rng("more_noise"), out.shape)
            return out

    network = Network(Noisy(), labelled((8, 8, 1), 10))
    parameters, _ = network.unflatten(network.initial(0)[0])
    features, labels = samples()
    keys = [jax.random.key(number) for number in (0, 0, 1)]
    loss = jax.jit(lambda key: network.loss(parameters, {}, {}, features, labels, key)[0])
    losses = [float(loss(key)) for key in keys]
    assert losses[0] == losses[1] != losses[2]


def whole_run(dropout: float = 0.5, **settings):
    settings = {"data__name": "digits", "batch_size": BATCH, "workers": 2, **settings}
    return small_config(model=run_config(dropout).model, **settings)


def test_a_resumed_run_draws_what_an_uninterrupted_one_draws(tmp_path):
    settings = {"rounds": 8, "checkpoint_every": 2, "eval_every_s": 100.0}
    whole, again = simulated(whole_run(**settings)), simulated(whole_run(**settings))
    assert whole.lines() == again.lines()
    assert whole.final.tobytes() == again.final.tobytes()
    assert whole.final.tobytes() != simulated(whole_run(0.0, **settings)).final.tobytes()
    broken_at = whole.of("round")[len(whole.of("round")) // 2]["held"]
    faults = [kill("scheduler", broken_at)]
    simulated(whole_run(testbed__faults=faults, **settings), fails=True, folder=tmp_path)
    resumed = simulated(whole_run(resume=True, **settings), folder=tmp_path)
    assert resumed.rounds_of("c1/w0")[0] > 0
    assert resumed.final.tobytes() == whole.final.tobytes()
