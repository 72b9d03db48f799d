"""What needs a fresh process: another device count, and the same bits everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str, **environment: str) -> str:
    """Runs a script in a fresh interpreter with warnings as errors; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


TRAIN = """
import sys
import jax
import numpy as np
from geojax.center.optimizers import SgdConfig
from geojax.center.trainer import build_trainer
from geojax.config import DataConfig, ModelConfig, RunConfig, SyncConfig, TestbedConfig
from geojax.errors import ConfigError


def build(model, devices, **settings):
    config = RunConfig(
        model=ModelConfig(name=model), data=DataConfig(name="digits"), batch_size=8, lr=0.05,
        optimizer=SgdConfig(momentum=0.9), testbed=TestbedConfig(devices=devices),
    )
    for key, value in settings.items():
        setattr(config, key, value)
    generator = np.random.default_rng(0)
    features = generator.random((40, 8, 8, 1), np.float32)
    features *= generator.random((40, 1, 1, 1), np.float32)
    return build_trainer(
        config,
        features=features,
        labels=generator.integers(0, 10, 40),
        worker_index=0,
        worker_count=1,
    )


def train(devices):
    found = {}
    trainer = build("mlp", devices)
    assert jax.device_count() == devices
    found["gradient"] = trainer.gradient()
    for _ in range(3):
        trainer.step()
    found["vector"] = trainer.vector()
    for array in jax.tree.leaves((trainer._parameters, trainer._optimizer)):
        held = [np.array(shard.data) for shard in array.addressable_shards]
        assert len(held) == devices
        assert all(np.array_equal(held[0], other) for other in held)
    state = trainer.state_dict()
    trainer.load(found["vector"])
    trainer.load_state(state)
    trainer.step()
    found["resumed"] = trainer.vector()

    batchnorm = build("cnn_batchnorm", devices)
    found["samples"] = batchnorm._features[batchnorm._order(0)]
    found["kernel"] = batchnorm.spec.split(batchnorm.vector())["Conv_0/kernel"]
    state = batchnorm.spec.split(batchnorm.gradient())
    found["mean"] = state["batch_stats/BatchNorm_0/mean"]
    found["var"] = state["batch_stats/BatchNorm_0/var"]
    assert batchnorm.state_dict()["integers"] == {"['counters/batches']": 1}
    return found
"""

ON_TWO_DEVICES = """
from geojax.center.keys import worker_key
from geojax.center.network import build_network, step_key
from geojax.models.registry import MlpConfig


def stages():
    trainer = build("cnn_batchnorm", 2, sync=SyncConfig(p3=True))
    trainer.warm_up(step=False)
    start, state = trainer.vector(), trainer.state_dict()
    for index in range(3):
        trainer.forward(index)
    found = np.concatenate([trainer.backward(index) for index in (3, 2, 1, 0)][::-1])
    assert trainer.state_dict()["integers"] == {"['counters/batches']": 1}
    trainer.load(start)
    trainer.load_state(state)
    return {"staged": found, "whole": trainer.gradient()}


def dropout():
    config = RunConfig(
        model=MlpConfig("mlp", dropout=0.5), data=DataConfig("digits"), batch_size=8,
        testbed=TestbedConfig(devices=2),
    )
    generator = np.random.default_rng(0)
    features, labels = generator.random((40, 8, 8, 1), np.float32), np.full(40, 3)
    features[:] = features[0]  # both devices see the same
    trainer = build_trainer(
        config, features=features, labels=labels, worker_index=0, worker_count=1
    )
    network = build_network(config)
    parameters, _ = network.unflatten(trainer.vector())
    draw = np.append(worker_key(0, 0), np.uint32(0))
    differentiate = jax.jit(jax.grad(network.loss, has_aux=True))
    halves = [
        network.flatten(
            differentiate(parameters, {}, {}, features[:4], labels[:4], step_key(draw, device))[0]
        )
        for device in range(2)
    ]
    return {"halves": halves, "dropped": trainer.gradient()}


np.savez(sys.argv[1], **train(2), **stages(), **dropout())
try:
    build("mlp", 2, batch_size=9)
except ConfigError as error:
    print(error)
"""


def convolved_statistics(images: np.ndarray, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance per channel of a 3 x 3 convolution that keeps the size."""
    padded = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    side = images.shape[1]
    out = np.zeros((*images.shape[:3], kernel.shape[-1]))
    for i in range(3):
        for j in range(3):
            out += padded[:, i : i + side, j : j + side] @ kernel[i, j]
    return out.mean(axis=(0, 1, 2)), out.var(axis=(0, 1, 2))


@pytest.fixture(scope="module")
def on_two_devices(tmp_path_factory):
    """What a process with two devices says, and what it finds."""
    found = tmp_path_factory.mktemp("found") / "two.npz"
    message = run(TRAIN + ON_TWO_DEVICES, str(found))
    return message, np.load(found)


def test_two_devices_train_as_one(on_two_devices):
    message, two = on_two_devices
    assert message.startswith("batch_size = 9: must be a multiple of the 2 devices")
    assert "testbed.devices" in message
    here: dict = {}
    exec(TRAIN, here)
    one = here["train"](1)
    assert np.abs(one["gradient"] - two["gradient"]).max() <= 1e-6
    assert not np.array_equal(one["gradient"], two["gradient"])  # two devices add differently
    for name in ("vector", "resumed"):
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5, atol=1e-6)
    # Each device normalizes its own part; the running statistics are the devices' mean.
    for found, devices in ((one, 1), (two, 2)):
        parts = [
            convolved_statistics(part, found["kernel"])
            for part in np.split(found["samples"], devices)
        ]
        mean, var = (np.mean(each, axis=0) for each in zip(*parts, strict=True))
        np.testing.assert_allclose(found["mean"], 0.1 * mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found["var"], 0.9 + 0.1 * var, rtol=1e-5)
    assert not np.allclose(one["var"], two["var"], rtol=1e-4)


def test_stages_on_two_devices_make_the_unstaged_gradient(on_two_devices):
    _, found = on_two_devices
    np.testing.assert_allclose(found["staged"], found["whole"], rtol=1e-5, atol=1e-6)


def test_two_devices_drop_other_outputs(on_two_devices):
    _, found = on_two_devices
    first, second = found["halves"]
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(found["dropped"], (first + second) / 2, rtol=1e-5, atol=1e-7)


SAME_BITS = """
import hashlib, json
import numpy as np
from geojax.center.outer import FlatOptimizer
from geojax.center.trainer import build_trainer
from geojax.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig

generator = np.random.default_rng(0)
features = generator.random((64, 8, 8, 1), np.float32)
labels = generator.integers(0, 10, 64)
hashes = {}
for name, model in (("sgd", "mlp"), ("adam", "cnn_batchnorm")):
    config = RunConfig(
        model=ModelConfig(name=model), data=DataConfig(name="digits"), batch_size=16,
        lr=0.01, optimizer=OptimizerConfig(name=name),
    )
    trainer = build_trainer(
        config, features=features, labels=labels, worker_index=0, worker_count=1
    )
    start = trainer.vector()
    hashes["start"] = hashlib.sha256(start).hexdigest()
    for _ in range(5):
        trainer.step()
    hashes[name] = hashlib.sha256(trainer.vector()).hexdigest()
outer = FlatOptimizer(config.optimizer, 0.01, trainer.spec)
moved = outer.apply(outer.apply(start, trainer.vector()), start)
hashes["outer"] = hashlib.sha256(moved).hexdigest()
print(json.dumps(hashes))
"""


def test_fresh_processes_get_the_same_bits_with_and_without_compile_cache(tmp_path):
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    filling = json.loads(run(SAME_BITS, PYTHONHASHSEED="1", **cache))
    assert any(tmp_path.iterdir()), "nothing was cached"
    cached = json.loads(run(SAME_BITS, PYTHONHASHSEED="2", **cache))
    without = json.loads(run(SAME_BITS, PYTHONHASHSEED="3", JAX_COMPILATION_CACHE_DIR=""))
    assert filling == cached == without
    assert len(set(filling.values())) == len(filling) == 4


NO_JAX = """
import sys
import numpy as np
from geojax.center.evaluate import build_evaluator
from geojax.center.optimizers import check_optimizer
from geojax.center.outer import build_outer_optimizer
from geojax.center.pace import step_seconds
from geojax.center.stages import build_stages
from geojax.center.trainer import build_spec, build_trainer, initial_vector
from geojax.config import ModelConfig, OptimizerConfig, RunConfig
from geojax.models.registry import MODELS, SyntheticConfig, model_info

config = RunConfig(model=SyntheticConfig(bytes=4000))
nothing = np.zeros((0, 28, 28, 1), np.float32)
trainer = build_trainer(
    config, features=nothing, labels=nothing, worker_index=0, worker_count=1
)
trainer.load(initial_vector(config))
check_optimizer(config.optimizer, config.lr)
outer = build_outer_optimizer(OptimizerConfig(), 0.1, build_spec(config), synthetic=True)
trainer.load(outer.apply(trainer.vector(), trainer.gradient()))
trainer.warm_up()
assert build_evaluator(config, nothing, nothing)(trainer.vector()) == {}
config.sync.p3, config.model.stages = True, 3
staged = build_trainer(
    config, features=nothing, labels=nothing, worker_index=0, worker_count=1
)
stages = build_stages(config)
for index in range(3):
    staged.forward(index)
for index in reversed(range(3)):
    staged.load_part(stages[index].start, stages[index].stop, staged.backward(index))
for name in MODELS:
    step_seconds(RunConfig(model=ModelConfig(name=name)), "c1")
loaded = sorted({"jax", "jaxlib", "flax", "optax"} & set(sys.modules))
assert not loaded, loaded
"""


def test_a_synthetic_model_never_loads_jax():
    run(NO_JAX)


CONFIGURE = """
import os
from geojax.center import devices
from geojax.errors import ConfigError

devices.configure(2)
devices.configure(3)  # the backend is not up yet: the last count holds
import jax
assert len(devices.local_devices()) == 3
devices.configure(3)
assert devices.host_device() == jax.devices("cpu")[0]
try:
    devices.configure(2)
except ConfigError as error:
    print(error)
print(os.environ["NPROC"])
"""


@pytest.mark.parametrize("threads", ["", "2"])
def test_devices_are_configured_once_per_process(threads, monkeypatch):
    monkeypatch.delenv("NPROC")
    environment = {"NPROC": threads} if threads else {}
    refusal, nproc = run(CONFIGURE, **environment).splitlines()
    assert refusal == (
        "testbed.devices = 2: JAX already runs with 3 CPU devices; "
        "call configure() before using JAX"
    )
    assert nproc == (threads or "1")
