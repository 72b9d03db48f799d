"""The mesh trainer against plain JAX, and what it promises about buffers and copies."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from networks import module_of

from geojax.center import transfer
from geojax.center.optimizers import SgdConfig
from geojax.center.planned import Planned
from geojax.center.trainer import build_spec, build_trainer, initial_vector
from geojax.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig, TestbedConfig
from geojax.data.batches import BatchOrder
from geojax.errors import ConfigError, DataError, Diverged

BATCH = 6
SAMPLES = 20
ADAM = OptimizerConfig(name="adam", lr=0.01, clip_norm=0.5)  # one, so that it is compiled once
QUICKLY = {"xla_backend_optimization_level": 0}
SHAPES = {"demo_cnn": (28, 28, 1), "cnn_batchnorm": (8, 8, 1), "mlp": (8, 8, 1)}


def run_config(model: str = "mlp", **settings) -> RunConfig:
    data = "fashion_mnist" if model == "demo_cnn" else "digits"
    config = RunConfig(model=ModelConfig(name=model), data=DataConfig(name=data), seed=4)
    return replace(config, **{"batch_size": BATCH, "lr": 0.1, **settings})


def samples(model: str = "mlp") -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(7)
    features = generator.random((SAMPLES, *SHAPES[model]), np.float32)
    return features, generator.integers(0, 10, SAMPLES)


def trainer_of(config: RunConfig, worker: int = 1):
    features, labels = samples(config.model.name)
    return build_trainer(
        config, features=features, labels=labels, worker_index=worker, worker_count=3
    )


class Plain:
    """The same training without mesh, vector or donation: nested dictionaries and `jax.grad`."""

    def __init__(self, config: RunConfig, optimizer: optax.GradientTransformation | None = None):
        self.config, self.spec = config, build_spec(config)
        self.module = module_of(config.model.name, SHAPES[config.model.name], 10)
        arrays = self.spec.split(initial_vector(config))
        named = {
            ("params/" if self.spec.layers[i].kind == "parameter" else "") + name: jnp.array(value)
            for i, (name, value) in enumerate(arrays.items())
        }
        if config.model.name == "cnn_batchnorm":
            named["counters/batches"] = jnp.zeros((), jnp.int32)
        self.variables = unflatten_dict(named, sep="/")
        compiled = functools.partial(jax.jit, compiler_options=QUICKLY)
        self.compiled = compiled(jax.value_and_grad(self.loss, has_aux=True))
        self.optimizer = optimizer or optax.identity()
        self.optimizer_state = compiled(self.optimizer.init)(self.variables["params"])
        self.updated = compiled(self.update)

    def differentiate(self, step: int):
        order = BatchOrder(SAMPLES, BATCH, self.config.seed, 1)
        features, labels = (each[order(step)] for each in samples(self.config.model.name))
        state = {key: value for key, value in self.variables.items() if key != "params"}
        return self.compiled(self.variables["params"], state, features, labels)

    def loss(self, parameters, state, features, labels):
        logits, changed = self.module.apply(
            {"params": parameters, **state}, features, train=True, mutable=list(state)
        )
        shifted = logits - logits.max(axis=1, keepdims=True)
        chances = jnp.exp(shifted) / jnp.exp(shifted).sum(axis=1, keepdims=True)
        return -jnp.log(chances[jnp.arange(BATCH), labels]).mean(), changed

    def update(self, gradient, state, parameters):
        updates, state = self.optimizer.update(gradient, state, parameters)
        return optax.apply_updates(parameters, updates), state

    def step(self, step: int) -> float:
        (loss, changed), gradient = self.differentiate(step)
        moved, self.optimizer_state = self.updated(
            gradient, self.optimizer_state, self.variables["params"]
        )
        self.variables = {"params": moved, **changed}
        return float(loss)

    def flat(self, parameters, state) -> np.ndarray:
        named = {**flatten_dict(parameters, sep="/"), **flatten_dict(state, sep="/")}
        return self.spec.join({layer.name: named[layer.name] for layer in self.spec.layers})

    def vector(self) -> np.ndarray:
        state = {key: value for key, value in self.variables.items() if key != "params"}
        return self.flat(self.variables["params"], state)


@pytest.mark.parametrize("model", ["demo_cnn", "cnn_batchnorm"])
def test_gradient_is_that_of_plain_jax(model):
    config = run_config(model)
    trainer, plain = trainer_of(config), Plain(config)
    before = trainer.vector()
    assert np.array_equal(before, initial_vector(config))
    (loss, changed), gradient = plain.differentiate(0)
    found = trainer.gradient()
    np.testing.assert_allclose(found, plain.flat(gradient, changed), rtol=1e-6, atol=1e-6)
    assert math.isclose(trainer.last_loss, loss, rel_tol=1e-5)
    assert found.flags.writeable
    trained = trainer.spec.parameters
    assert np.array_equal(trainer.vector()[:trained], before[:trained])  # parameters stay
    assert np.array_equal(trainer.vector()[trained:], found[trained:])  # the state moves on
    assert trainer.steps == 1
    assert not np.array_equal(trainer.gradient()[:trained], found[:trained])  # the next batch


def test_a_step_costs_one_batch_and_counts_once():
    trainer = trainer_of(config := run_config("mlp"))
    assert trainer.planned() == Planned(1.0, 0.0, 0, config.batch_size)
    assert trainer.weight == 1.0
    walked = [trainer.gradient() for _ in range(3)]
    trainer.skip_to(1)
    assert np.array_equal(trainer.gradient(), walked[1])


OPTIMIZERS = {
    "sgd": ("mlp", OptimizerConfig(), optax.sgd(0.1)),
    "momentum": ("mlp", SgdConfig(momentum=0.9), optax.sgd(0.1, momentum=0.9)),
    "clipped adam": (
        "cnn_batchnorm",
        ADAM,
        optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.01)),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_a_plain_optax_loop(name):
    model, settings, optimizer = OPTIMIZERS[name]
    config = run_config(model, optimizer=settings)
    trainer, plain = trainer_of(config), Plain(config, optimizer)
    for step in range(5):  # more than one epoch
        trainer.step()
        assert math.isclose(trainer.last_loss, plain.step(step), rel_tol=1e-4)
    np.testing.assert_allclose(trainer.vector(), plain.vector(), rtol=1e-4, atol=2e-5)
    integers = {"['counters/batches']": 5} if model == "cnn_batchnorm" else {}
    assert trainer.state_dict()["integers"] == integers
    assert trainer.steps == 5


def test_load_copies_and_keeps_inner_optimizer_and_integers():
    trainer = trainer_of(run_config("cnn_batchnorm", optimizer=ADAM))
    trainer.step()
    kept = trainer.state_dict()
    aligned = np.zeros(trainer.spec.size + 16, np.float32)  # an aligned buffer may be aliased
    offset = -(aligned.ctypes.data // 4) % 16
    buffer = aligned[offset : offset + trainer.spec.size]
    assert buffer.ctypes.data % 64 == 0
    buffer[:] = wanted = np.linspace(0.1, 1, trainer.spec.size, dtype=np.float32)
    trainer.load(buffer)
    buffer[:] = -1
    assert np.array_equal(trainer.vector(), wanted)
    gradient = trainer.gradient()
    buffer[:] = np.nan
    trainer.load(wanted)
    trainer.load_state(kept)
    assert np.array_equal(trainer.gradient(), gradient)
    assert kept["integers"] == {"['counters/batches']": 1}
    assert any(leaf.any() for leaf in kept["optimizer"].values())


def buffers(trainer) -> dict[str, list[jax.Array]]:
    groups = {
        "parameters": trainer._parameters,
        "optimizer": trainer._optimizer,
        "state": trainer._state,
        "integers": trainer._integers,
    }
    return {name: jax.tree.leaves(group) for name, group in groups.items()}


def addresses(trainer) -> dict[str, set[int]]:
    return {
        name: {leaf.addressable_shards[0].data.unsafe_buffer_pointer() for leaf in leaves}
        for name, leaves in buffers(trainer).items()
    }


def donating_trainer():
    config = run_config("cnn_batchnorm", optimizer=ADAM)
    trainer = trainer_of(config)
    trainer.step()
    return trainer


def test_a_step_works_in_the_buffers_of_the_one_before():
    trainer = donating_trainer()
    for between in (trainer.vector, trainer.gradient, trainer.state_dict):
        kept = between()  # host copies, so they hold no buffer
        old, at = buffers(trainer), addresses(trainer)
        assert all(at.values())
        trainer.step()
        assert addresses(trainer) == at, between
        assert all(leaf.is_deleted() for leaves in old.values() for leaf in leaves)
        del kept


def test_a_gradient_works_in_the_buffers_of_state_and_integers():
    trainer = donating_trainer()
    at = addresses(trainer)
    parameters = trainer._parameters
    trainer.gradient()
    assert addresses(trainer) == at
    assert trainer._parameters is parameters


def test_a_host_view_would_end_donation():
    """Why every copy goes through `to_host`; also shows that the tests above can fail."""
    trainer = donating_trainer()
    at = addresses(trainer)
    views = [np.asarray(leaf) for leaf in buffers(trainer)["parameters"]]
    trainer.step()
    assert addresses(trainer)["parameters"] != at["parameters"]
    del views


def test_an_exchange_costs_one_host_copy_of_the_vector(monkeypatch):
    copied: list[int] = []
    plain_copy = transfer.to_host

    def counting(array):
        copied.append(array.size)
        return plain_copy(array)

    trainer = donating_trainer()
    monkeypatch.setattr(transfer, "to_host", counting)
    vector = trainer.gradient()
    assert copied == [1, trainer.spec.size]  # the loss, and the vector once
    copied.clear()
    trainer.load(vector)
    assert copied == []
    for _ in range(3):
        trainer.step()
    assert copied == [1, 1, 1]
    trainer.vector()
    assert copied[3:] == [trainer.spec.size]


def test_a_restored_trainer_goes_on_with_the_same_bits():
    config = run_config("cnn_batchnorm", optimizer=ADAM)
    trainer, other = trainer_of(config), trainer_of(config)
    for _ in range(3):
        trainer.step()
    vector, state = trainer.vector(), trainer.state_dict()
    other.load(vector)
    other.load_state(state)
    for each in (trainer, other):
        each.step()
        each.step()
    assert trainer.vector().tobytes() == other.vector().tobytes()
    assert trainer.steps == other.steps == 5
    assert state["steps"] == 3  # the saved state is a copy


def test_a_state_of_another_optimizer_is_refused():
    trainer = trainer_of(run_config())
    state = donating_trainer().state_dict()
    with pytest.raises(ValueError, match="inner optimizer: leaves missing or unknown"):
        trainer.load_state(state)


@pytest.mark.parametrize("calls", [{}, {"gradient": False}, {"step": False}])
def test_warm_up_leaves_no_trace(calls):
    config = run_config("cnn_batchnorm", optimizer=ADAM)
    warm, cold = trainer_of(config), trainer_of(config)
    warm.warm_up(**calls)
    assert warm.steps == 0
    assert math.isnan(warm.last_loss)
    for each in (warm, cold):
        each.step()
    assert warm.vector().tobytes() == cold.vector().tobytes()
    assert warm.state_dict()["integers"] == cold.state_dict()["integers"]


def test_workers_and_seeds_see_other_batches():
    gradients = [trainer_of(run_config(), worker).gradient() for worker in (0, 1)]
    gradients.append(trainer_of(run_config(seed=5)).gradient())
    assert len({gradient.tobytes() for gradient in gradients}) == 3


def test_initial_vector_depends_on_the_seed_alone():
    assert np.array_equal(initial_vector(run_config()), initial_vector(run_config(lr=0.5)))
    assert not np.array_equal(initial_vector(run_config()), initial_vector(run_config(seed=5)))
    initial_vector(run_config())[:] = 0  # a copy of the caller's own
    assert initial_vector(run_config()).any()


def test_load_never_hands_its_argument_to_the_devices(monkeypatch):
    """JAX may alias a host array until it has computed with it, which is after `load` returns."""
    trainer = trainer_of(run_config())
    handed = []
    load = trainer._mesh.load
    monkeypatch.setattr(trainer._mesh, "load", lambda each: handed.append(each) or load(each))
    vector = trainer.vector()
    trainer.load(vector)
    assert [np.shares_memory(each, vector) for each in handed] == [False]


def test_an_infinite_gradient_of_a_finite_loss_is_divergence():
    trainer = trainer_of(run_config())
    vector = np.zeros(trainer.spec.size, np.float32)
    layers = trainer.spec.split(vector)
    layers["Dense_0/bias"][:] = 1e-30
    signs = np.random.default_rng(0).choice([-1, 1], (64, 10))
    layers["Dense_1/kernel"][:] = 3e38 * signs
    trainer.load(vector)
    with pytest.raises(Diverged, match="gradient is not finite"):
        trainer.gradient()


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_divergence_is_an_error(poison):
    trainer = trainer_of(run_config())
    vector = trainer.vector()
    vector[5] = poison
    for advance in (trainer.gradient, trainer.step):
        trainer.load(vector)
        with pytest.raises(Diverged, match=r"worker 1, step \d: .*lower lr"):
            advance()


def test_wrong_vectors_are_refused():
    trainer = trainer_of(run_config())
    with pytest.raises(ValueError, match=r"load: expected float32 of shape \(4810,\).*\(4809,\)"):
        trainer.load(np.zeros(4809, np.float32))
    with pytest.raises(ValueError, match="got float64"):
        trainer.load(np.zeros(4810))


def test_samples_must_fit_the_data_set():
    features, labels = samples()
    wrong = {
        "19 samples with 20 labels": (features[1:], labels),
        "0 samples": (features[:0], labels[:0]),
        "samples of shape": (features[:, 1:], labels),
        "labels from 0 to 10, expected 0 to 9": (features, np.arange(SAMPLES) % 11),
    }
    for message, (x, y) in wrong.items():
        with pytest.raises(DataError, match=message):
            build_trainer(run_config(), features=x, labels=y, worker_index=0, worker_count=1)


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match=r"batch_size = 0"):
        trainer_of(run_config(batch_size=0))
    with pytest.raises(ConfigError, match=r"testbed\.devices = 0"):
        trainer_of(run_config(testbed=TestbedConfig(devices=0)))
    with pytest.raises(ConfigError, match=r"testbed\.devices = 3: JAX already runs with 1"):
        trainer_of(run_config(testbed=TestbedConfig(devices=3)))
    with pytest.raises(ConfigError, match=r"optimizer\.lr = -1"):
        trainer_of(run_config(optimizer=OptimizerConfig(lr=-1)))
    with pytest.raises(ConfigError, match=r"data\.name.*did you mean 'digits'"):
        trainer_of(run_config(data=DataConfig(name="digit")))
    features, labels = samples()
    with pytest.raises(ValueError, match="worker 3 of 3"):
        build_trainer(
            run_config(), features=features, labels=labels, worker_index=3, worker_count=3
        )
