"""Training stage by stage makes what training in one piece makes."""

from __future__ import annotations

import math

import jax
import numpy as np
import optax
import pytest

from geojax.center.mesh import Mesh
from geojax.center.mesh_trainer import MeshTrainer
from geojax.center.network import Network
from geojax.center.network_stages import StagedNetwork
from geojax.center.staged_mesh import StagedMesh
from geojax.center.stages import build_stages
from geojax.center.trainer import build_trainer
from geojax.config import DataConfig, ModelConfig, RunConfig, SyncConfig
from geojax.data.batches import BatchOrder
from geojax.errors import ConfigError, Diverged
from geojax.models.alexnet import AlexNet
from geojax.models.cnn_batchnorm import CnnBatchNorm
from geojax.models.demo_cnn import DemoCnn
from geojax.models.inputs import labelled
from geojax.models.leaf_cnn import LeafCnn
from geojax.models.mlp import Mlp
from geojax.models.resnet import ResNet

BATCH, SAMPLES = 6, 20
NIGHTLY = ("leaf_cnn", "alexnet", "resnet18")  # they differ from the others in widths alone
SMALL = {  # every staged module, narrowed where it may be, on the smallest images
    "demo_cnn": (DemoCnn(), 16),
    "leaf_cnn": (LeafCnn(classes=10, hidden=16), 8),
    "mlp": (Mlp(), 8),
    "cnn_batchnorm": (CnnBatchNorm(), 8),
    "alexnet": (AlexNet(hidden=(16, 8)), 16),
    "resnet18": (ResNet(blocks=(1, 1), width=32), 8),
    "resnet18_batchnorm": (ResNet(norm="batch", blocks=(1, 1), width=32), 8),
}


def samples(side: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(7)
    features = generator.random((SAMPLES, side, side, 1), np.float32)
    return features, generator.integers(0, 10, SAMPLES).astype(np.int32)


def small_trainer(name: str) -> MeshTrainer:
    module, side = SMALL[name]
    network, devices = Network(module, labelled((side, side, 1), 10)), tuple(jax.local_devices())
    return MeshTrainer(
        Mesh(network, optax.sgd(0.1), devices),
        *samples(side),
        BatchOrder(SAMPLES, BATCH, 0, 0),
        *network.initial(0),
        staged=StagedMesh(StagedNetwork(network), devices),
    )


def run_config(**settings) -> RunConfig:
    return RunConfig(
        model=ModelConfig("cnn_batchnorm"), data=DataConfig("digits"), batch_size=BATCH,
        sync=SyncConfig(p3=True), **settings,
    )  # fmt: skip


def built(config: RunConfig):
    features, labels = samples(8)
    return build_trainer(config, features=features, labels=labels, worker_index=0, worker_count=1)


def staged_gradient(trainer, count: int) -> np.ndarray:
    """One staged step; ``count`` stages, with that of the float state if there is one."""
    computing = count - (trainer.spec.parameters < trainer.spec.size)
    for index in range(computing):
        trainer.forward(index)
    return np.concatenate([trainer.backward(index) for index in reversed(range(count))][::-1])


def stages_of(trainer: MeshTrainer) -> list[tuple[int, int]]:
    assert trainer._staged is not None
    return trainer._staged.ranges


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.nightly if name in NIGHTLY else ()) for name in SMALL],
)
def test_stages_make_the_unstaged_gradient(name):
    trainer = small_trainer(name)
    count = len(stages_of(trainer))
    start, state = trainer.vector(), trainer.state_dict()
    staged = staged_gradient(trainer, count)
    loss, integers = trainer.last_loss, trainer.state_dict()["integers"]
    after = trainer.vector()
    assert trainer.steps == 1
    trainer.load(start)
    trainer.load_state(state)
    whole = trainer.gradient()
    np.testing.assert_allclose(staged, whole, rtol=1e-5, atol=1e-6)
    for begin, stop in stages_of(trainer):
        assert staged[begin:stop].any()
    assert math.isclose(loss, trainer.last_loss, rel_tol=1e-6)
    assert integers == trainer.state_dict()["integers"]
    np.testing.assert_allclose(after, trainer.vector(), rtol=1e-6, atol=1e-7)


def test_a_staged_run_is_a_run_of_plain_gradient_descent():
    """Each stage's parameters are loaded at once, while earlier stages are still to come."""
    staged, plain = built(run_config()), built(run_config())
    stages = build_stages(run_config())
    staged.warm_up(step=False)
    assert (staged.steps, math.isnan(staged.last_loss)) == (0, True)
    vector = staged.vector()
    expected = vector.copy()
    for _ in range(3):
        for index in range(3):
            staged.forward(index)
        for index in (3, 2, 1, 0):
            start, stop = stages[index].start, stages[index].stop
            made = staged.backward(index)
            vector[start:stop] = made if index == 3 else vector[start:stop] - 0.1 * made
            buffer = vector[start:stop].copy()
            staged.load_part(start, stop, buffer)
            buffer[:] = np.nan  # it was copied
        made = plain.gradient()
        trained = plain.spec.parameters
        expected = np.concatenate([expected[:trained] - 0.1 * made[:trained], made[trained:]])
        plain.load(expected.astype(np.float32))
    np.testing.assert_allclose(staged.vector(), expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(staged.vector(), vector)
    assert staged.steps == plain.steps == 3
    assert staged.state_dict()["integers"] == {"['counters/batches']": 3}


def test_loading_a_part_leaves_all_other_buffers_alone():
    trainer = built(run_config())
    before = {**trainer._parameters, **trainer._state}
    first, _, dense, state = build_stages(run_config())
    for stage in (first, dense, state):
        wanted = np.linspace(1, 2, stage.stop - stage.start, dtype=np.float32)
        trainer.load_part(stage.start, stage.stop, wanted)
        assert np.array_equal(trainer.vector()[stage.start : stage.stop], wanted)
    after = {**trainer._parameters, **trainer._state}
    kept = {name for name, array in after.items() if array is before[name]}
    assert kept == {"Conv_1/kernel", "BatchNorm_1/scale", "BatchNorm_1/bias"}
    with pytest.raises(ValueError, match="cuts the layer Conv_0/kernel"):
        trainer.load_part(0, 5, np.zeros(5, np.float32))
    with pytest.raises(ValueError, match=r"load_part: expected float32 of shape \(72,\)"):
        trainer.load_part(0, 72, np.zeros(71, np.float32))


def test_inputs_of_stages_are_given_up_by_their_backward_parts():
    trainer = built(run_config())
    for index in range(3):
        trainer.forward(index)
    assert trainer._staged is not None
    hidden = [kept.hidden for kept in trainer._staged._kept[1:]]
    for index in (2, 1, 0):
        trainer.backward(index)
    assert [array.is_deleted() for array in hidden] == [True, True]
    assert not trainer._staged._kept


def test_divergence_is_found_at_the_end_of_the_step():
    trainer = built(run_config())
    vector = trainer.vector()
    vector[5] = np.nan
    trainer.load(vector)
    for index in range(3):
        trainer.forward(index)
    for index in (2, 1):
        trainer.backward(index)
    assert trainer.steps == 0
    with pytest.raises(Diverged, match=r"worker 0, step 1: .*not finite"):
        trainer.backward(0)
    assert trainer.steps == 1
    assert math.isnan(trainer.last_loss)


def test_parts_out_of_turn_are_refused():
    trainer = built(run_config())
    with pytest.raises(RuntimeError, match="forward of stage 1 out of turn: forward of stage 0"):
        trainer.forward(1)
    trainer.forward(0)
    with pytest.raises(RuntimeError, match="float state"):
        trainer.backward(3)
    trainer.forward(1)
    trainer.forward(2)
    trainer.backward(3)
    with pytest.raises(RuntimeError, match="backward of stage 1 out of turn: backward of stage 2"):
        trainer.backward(1)
    trainer.forward(0)  # gives the unfinished step up
    assert trainer.steps == 0
    unstaged = run_config()
    unstaged.sync.p3 = False
    with pytest.raises(RuntimeError, match=r"set sync\.p3"):
        built(unstaged).forward(0)
    with pytest.raises(ValueError, match="no stage 2: the model has no float state"):
        small_trainer("mlp").backward(2)


def test_a_trainer_that_cannot_be_staged_is_refused():
    config = run_config()
    config.optimizer.clip_norm = 1.0
    with pytest.raises(ConfigError, match=r"sync\.p3"):
        built(config)
