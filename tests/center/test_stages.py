"""The stages of models: where they lie, what they cost, and what P3 refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import linen as nn

from geojax.center.network import Network
from geojax.center.network_stages import StagedNetwork
from geojax.center.pace import step_seconds
from geojax.center.stages import build_stages, check_p3
from geojax.center.trainer import build_spec, build_trainer
from geojax.config import CompressionConfig, DataConfig, ModelConfig, RunConfig, SyncConfig
from geojax.errors import ConfigError
from geojax.hollow import is_hollow
from geojax.models.inputs import labelled
from geojax.models.registry import MODELS, SyntheticConfig, model_info
from geojax.models.staged import StagedModule
from geojax.sync.local_steps import LocalStepsConfig

NOTHING = np.zeros(0, np.float32)
IMAGE = labelled((2, 2, 1), 3)


def synthetic(**settings) -> RunConfig:
    return RunConfig(model=SyntheticConfig(**settings))


COUNTS = {
    "demo_cnn": 5, "leaf_cnn": 4, "mlp": 2, "alexnet": 8, "cnn_batchnorm": 4,
    "small_cnn": 3, "resnet18": 10, "resnet18_batchnorm": 11, "synthetic": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MODELS))
def test_stages_cover_the_vector_and_share_the_step(name):
    config = RunConfig(model=ModelConfig(name))
    stages, spec = build_stages(config), build_spec(config)
    assert len(stages) == COUNTS[name]
    assert [stage.start for stage in stages] == [0, *(stage.stop for stage in stages[:-1])]
    assert stages[-1].stop == spec.size
    for stage in stages:
        spec.part(stage.start, stage.stop)  # whole layers
    assert math.isclose(math.fsum(stage.forward + stage.backward for stage in stages), 1)
    with_state = spec.parameters < spec.size
    assert (stages[-1].name == "state") == with_state
    if with_state:
        assert stages[-1][1:] == (spec.parameters, spec.size, 0, 0)
    for stage in stages[: len(stages) - with_state]:
        assert stage.backward == pytest.approx(2 * stage.forward)
        assert stage.forward > 0
    assert len({stage.name for stage in stages}) == len(stages)
    assert build_stages(config) == stages


def test_shares_of_leaf_cnn_go_by_its_published_operations():
    data = DataConfig("fashion_mnist")  # ten classes: 20,480 products in the last layer
    stages = build_stages(RunConfig(model=ModelConfig("leaf_cnn"), data=data))
    products = [25 * 32 * 28**2, 25 * 32 * 64 * 14**2, 3136 * 2048, 20_480]
    for stage, count in zip(stages, products, strict=True):
        assert stage.forward == pytest.approx(count / sum(products) / 3)
    assert [stage.name for stage in stages] == ["Conv_0", "Conv_1", "Dense_0", "Dense_1"]


def test_operations_inside_compiled_functions_count_as_well():
    class Nested(StagedModule):
        @property
        def stages(self) -> int:
            return 1

        @nn.compact
        def stage(self, index: int, hidden: jax.Array, *, train: bool = False) -> jax.Array:
            kernel = self.param("kernel", nn.initializers.ones, (4, 3))
            return jax.jit(lambda flat: jax.lax.map(lambda row: row @ kernel, flat))(
                hidden.reshape((len(hidden), -1))
            )

    (stage,) = StagedNetwork(Network(Nested(), IMAGE)).stages
    assert stage.operations == 2 * 4 * 3


def test_stages_that_are_not_the_network_are_refused():
    class Reversed(StagedModule):
        @property
        def stages(self) -> int:
            return 2

        @nn.compact
        def stage(self, index: int, hidden: jax.Array, *, train: bool = False) -> jax.Array:
            return nn.Dense(3, name=f"Dense_{index}")(hidden.reshape((len(hidden), -1)))

        def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
            return self.stage(0, self.stage(1, images))

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
            return nn.Dense(3)(images.reshape((len(images), -1)))

    class Short(Reversed):
        def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
            return nn.relu(self.stage(1, self.stage(0, images)))

        @property
        def stages(self) -> int:
            return 1

    with pytest.raises(TypeError, match=r"stage 0 of Reversed makes the parameters \('Dense_0/"):
        StagedNetwork(Network(Reversed(), IMAGE))
    with pytest.raises(TypeError, match="Plain has no stages"):
        StagedNetwork(Network(Plain(), IMAGE))
    with pytest.raises(TypeError, match="stages of Short leave out"):
        StagedNetwork(Network(Short(), IMAGE))


@pytest.fixture
def plain_model(monkeypatch):
    """A registered model without stages."""
    info = model_info(ModelConfig("mlp"))._replace(staged=False)
    monkeypatch.setitem(MODELS._members, "plain", lambda _: info)


@pytest.mark.usefixtures("plain_model")
def test_a_model_without_stages_is_one_stage_and_no_p3():
    config = RunConfig(model=ModelConfig("plain"), data=DataConfig("digits"))
    (stage,) = build_stages(config)
    assert (stage.name, stage.start, stage.stop) == ("plain", 0, build_spec(config).size)
    assert stage.forward + stage.backward == pytest.approx(1)
    check_p3(config)
    config.sync.p3 = True
    with pytest.raises(ConfigError, match=r"sync\.p3 = True: model=plain .*alexnet, .*p3=false"):
        check_p3(config)


def test_what_couples_layers_is_refused_with_p3():
    check_p3(RunConfig(sync=SyncConfig(p3=True)))
    for key in ("optimizer", "outer_optimizer"):
        config = RunConfig(sync=SyncConfig(p3=True))
        getattr(config, key).clip_norm = 0.5
        with pytest.raises(ConfigError, match=rf"sync\.p3 = True: {key}\.clip_norm = 0\.5 .*null"):
            check_p3(config)
        config.sync.p3 = False
        check_p3(config)
    with pytest.raises(ConfigError, match=r"sync\.p3 = True: sync=local_steps .* sync=fsa"):
        check_p3(RunConfig(sync=LocalStepsConfig(local_steps=2, p3=True)))


def trainer_of(config: RunConfig, worker: int = 3):
    return build_trainer(
        config, features=NOTHING, labels=NOTHING, worker_index=worker, worker_count=9
    )


@pytest.mark.parametrize("sizes", [None, [4, 400_000, 1_040, 40_000]])
def test_slices_of_a_synthetic_gradient_are_its_parts(sizes):
    config = synthetic(bytes=441_044, stages=4, stage_bytes=sizes)
    config.sync.p3 = True
    whole, staged = trainer_of(synthetic(bytes=441_044)), trainer_of(config)
    stages = build_stages(config)
    expected_sizes = [110_260, 110_260, 110_260, 110_264] if sizes is None else sizes
    assert [4 * (stage.stop - stage.start) for stage in stages] == expected_sizes
    for _ in range(3):
        for index in range(4):
            staged.forward(index)
        gradient, parts = whole.gradient(), {}
        for index in (3, 2, 1, 0):
            parts[index] = staged.backward(index)
        joined = np.concatenate([parts[index] for index in range(4)])
        assert np.array_equal(joined, gradient)
        assert staged.steps == whole.steps
    staged.load_part(stages[1].start, stages[1].stop, parts[1])
    assert np.array_equal(staged.vector()[stages[1].start : stages[1].stop], parts[1])
    assert not staged.vector()[: stages[1].start].any()
    with pytest.raises(RuntimeError, match="out of turn"):
        staged.backward(2)


def test_a_hollow_model_has_stages_too():
    config = replace(synthetic(bytes=400, stages=2), compression=CompressionConfig("size_only"))
    trainer = trainer_of(config)
    trainer.forward(0)
    trainer.forward(1)
    gradients = [trainer.backward(1), trainer.backward(0)]
    assert all(is_hollow(gradient) and gradient.size == 50 for gradient in gradients)
    trainer.load_part(50, 100, gradients[0])
    assert trainer.steps == 1
    with pytest.raises(ValueError, match="cuts the layer"):
        trainer.load_part(0, 60, np.zeros(60, np.float32))


def test_paces_of_synthetic_stages_make_their_shares_and_the_step():
    paces = [[0.1, 0.3], [0.0, 0.2], [0.15, 0.25]]
    config = synthetic(bytes=120, stages=3, stage_paces=paces)
    assert step_seconds(config, "c1") == pytest.approx(1)
    stages = build_stages(config)
    for stage, (forward, backward) in zip(stages, paces, strict=True):
        assert (stage.forward, stage.backward) == pytest.approx((forward, backward))
    config.model.pace_s = 1.0
    assert build_stages(config) == stages
    equal = build_stages(synthetic(bytes=120, stages=4))
    assert [stage[3:] for stage in equal] == [pytest.approx((1 / 12, 1 / 6))] * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": 0}, r"model\.stages = 0: .*at least 1 "),
        ({"stages": 31}, r"model\.stages = 31: .*one per element \(30\)"),
        ({"bytes": 121}, r"model\.bytes = 121: .*124"),
        ({"stage_bytes": [60, 60, 0]}, r"stage_bytes = .*3 positive multiples of 4"),
        ({"stage_bytes": [60, 60, 60]}, r"stage_bytes = .*add up to model\.bytes = 120"),
        ({"stage_bytes": [58, 58, 4]}, r"model\.stage_bytes"),
        ({"stage_bytes": [60.0, 40, 20]}, r"model\.stage_bytes"),
        ({"stage_bytes": [60, 60]}, r"stage_bytes = .*a list of 3, one a stage"),
        ({"stage_bytes": "abc"}, r"stage_bytes = 'abc': write a list of 3"),
        ({"stage_paces": [[1, 2]] * 2}, r"stage_paces = .*a list of 3"),
        ({"stage_paces": [[1, 2], [1, 2], [1]]}, r"stage_paces = .*\[forward_s, backward_s\]"),
        ({"stage_paces": [[1, 2], [1, 2], [1, -2]]}, r"finite numbers of at least 0"),
        ({"stage_paces": [[1, 2], [1, 2], [1, math.nan]]}, r"finite numbers of at least 0"),
        ({"stage_paces": [[1, 2], [1, 2], [1, True]]}, r"finite numbers of at least 0"),
        ({"stage_paces": [[0, 0]] * 3}, r"some stage must take time"),
        ({"stage_paces": [[1, 2]] * 3, "pace_s": 8.9}, r"model\.pace_s = 8\.9: .*add up to 9 s"),
    ],
)
def test_wrong_synthetic_stages_are_refused(settings, message):
    config = synthetic(**{"bytes": 120, "stages": 3, **settings})
    for check in (build_stages, check_p3, trainer_of):
        with pytest.raises(ConfigError, match=message):
            check(config)


@pytest.mark.parametrize(
    "settings", [{"stages": 2}, {"stage_paces": [[1, 2]]}, {"stage_bytes": [4]}]
)
def test_only_a_synthetic_model_has_configured_stages(settings):
    with pytest.raises(ConfigError, match=rf"model\.{next(iter(settings))} = .*model=synthetic"):
        MODELS.settings("mlp", **settings)
