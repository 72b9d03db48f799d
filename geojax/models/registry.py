"""Every model by name, with what a run must know of it before JAX is imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from geojax.config import ModelConfig
from geojax.errors import ConfigError
from geojax.models.inputs import Inputs
from geojax.registry import Registry
from geojax.settings import key

if TYPE_CHECKING:
    from flax import linen as nn

SYNTHETIC = "synthetic"


class ModelInfo(NamedTuple):
    """What is known of a model without building it.

    Attributes:
      pace_s: emulated seconds of one step of one batch, unless the configuration says otherwise.
        Chosen so that a small shared CPU keeps it (batch 32, one thread).
      build: makes the Flax module for one kind of data; None: the model is no network. The module
        is called with samples (batch, ...) and ``train``, and makes ``outputs`` numbers of each.
        It may draw random numbers in training (dropout), and keep state beside its parameters, see
        :class:`geojax.center.network.Network`.
      smallest_side: fewest pixels of height and width that the layers can take; 0: it takes any
        samples, not only images.
      staged: the model can be trained stage by stage, which ``sync.p3`` needs: its module is a
        :class:`geojax.models.staged.StagedModule`, or it is no network.
      scans: on a CPU a step costs no more inside a loop of XLA than outside. That is measured, and
        not so of convolutions, unless they are in the forms of :mod:`geojax.models.cpu_forms`.
    """

    pace_s: float
    build: Callable[[Inputs], nn.Module] | None = None
    smallest_side: int = 0
    staged: bool = False
    scans: bool = False


MODELS: Registry[Callable[[Any], ModelInfo]] = Registry("model.name", ModelConfig)
"""Factories of models. An own one has a dataclass of its keys, which YAML sets (``model.width=8``),
and imports Flax inside ``build``, since some processes of a run must not load it::

    @dataclass
    class TinyConfig(ModelConfig):
        name: str = "tiny"
        width: int = key(16, "units of its hidden layer", least=1)

    @MODELS.register("tiny", TinyConfig)
    def tiny(config: TinyConfig) -> ModelInfo:
        def build(inputs: Inputs) -> nn.Module:
            from my_package.tiny import Tiny

            return Tiny(width=config.width, outputs=inputs.outputs)

        return ModelInfo(pace_s=0.01, build=build)
"""


@MODELS.register("demo_cnn")
def demo_cnn(_: ModelConfig) -> ModelInfo:
    """The GeoMX demo CNN; 178,762 parameters on 28 × 28 × 1 images of ten classes."""
    return ModelInfo(0.05, _network("demo_cnn.DemoCnn"), smallest_side=16, staged=True, scans=True)


@dataclass
class MlpConfig(ModelConfig):
    """Keys of a multi-layer perceptron."""

    name: str = "mlp"
    hidden: list[int] = key([64], "widths of the hidden layers")
    dropout: float = key(
        0.0, "share of every hidden layer's outputs that a training step drops", least=0, below=1
    )


@MODELS.register("mlp", MlpConfig)
def mlp(config: MlpConfig) -> ModelInfo:
    """Dense layers on samples of any shape; by default one hidden layer, for quick tests."""
    build = _network("mlp.Mlp", hidden=_widths(config.hidden), dropout=config.dropout)
    return ModelInfo(0.01, build, staged=True, scans=True)


@MODELS.register("small_cnn")
def small_cnn(_: ModelConfig) -> ModelInfo:
    """Two convolutions of stride 2; 9,226 parameters on 28 × 28 × 1 images of ten classes."""
    build = _network("small_cnn.SmallCnn")
    return ModelInfo(0.02, build, smallest_side=4, staged=True, scans=True)


@MODELS.register("leaf_cnn")
def leaf_cnn(_: ModelConfig) -> ModelInfo:
    """LEAF's CNN for FEMNIST; 6,603,710 parameters on 28 × 28 × 1 images of 62 classes."""
    return ModelInfo(0.3, _network("leaf_cnn.LeafCnn"), smallest_side=4, staged=True, scans=True)


@dataclass
class AlexNetConfig(ModelConfig):
    """Keys of AlexNet."""

    name: str = "alexnet"
    hidden: list[int] = key([4096, 4096], "widths of the hidden dense layers")
    dropout: float = key(
        0.0, "share of their outputs that a training step drops; the original has 0.5",
        least=0, below=1,
    )  # fmt: skip


@MODELS.register("alexnet", AlexNetConfig)
def alexnet(config: AlexNetConfig) -> ModelInfo:
    """AlexNet for small images; 20,321,994 parameters on 28 × 28 × 1 images of ten classes."""
    build = _network("alexnet.AlexNet", hidden=_widths(config.hidden), dropout=config.dropout)
    return ModelInfo(1.5, build, smallest_side=15, staged=True)


@MODELS.register("resnet18")
def resnet18(_: ModelConfig) -> ModelInfo:
    """ResNet-18 with GroupNorm; 11,173,962 parameters on 32 × 32 × 3 images of ten classes."""
    return _resnet18("group")


@MODELS.register("resnet18_batchnorm")
def resnet18_batchnorm(_: ModelConfig) -> ModelInfo:
    """ResNet-18 with BatchNorm: as many parameters, and 9,600 elements of float state."""
    return _resnet18("batch")


def _resnet18(norm: str) -> ModelInfo:
    return ModelInfo(5.0, _network("resnet.ResNet", norm=norm), smallest_side=8, staged=True)


@MODELS.register("cnn_batchnorm")
def cnn_batchnorm(_: ModelConfig) -> ModelInfo:
    """A small CNN with float state (BatchNorm) and an integer leaf (a counter of batches)."""
    return ModelInfo(0.05, _network("cnn_batchnorm.CnnBatchNorm"), smallest_side=2, staged=True)


@dataclass
class SyntheticConfig(ModelConfig):
    """Keys of ``model=synthetic``."""

    name: str = SYNTHETIC
    bytes: int = key(10_000_000, "of the vector, 4 an element", unit="B", least=4)
    stages: int = key(1, "parts in which it is trained under sync.p3", least=1)
    stage_paces: Any = key(
        None, "[forward, backward] of each stage; null: equal, 1:2 of pace_s", unit="s"
    )
    stage_bytes: Any = key(None, "of each stage; null: equal", unit="B")


@MODELS.register(SYNTHETIC, SyntheticConfig)
def synthetic(_: SyntheticConfig) -> ModelInfo:
    """No network: a vector of ``model.bytes`` whose gradients are small integers."""
    return ModelInfo(0.0, staged=True)


def _network(name: str, **settings: Any) -> Callable[[Inputs], nn.Module]:
    """Makes ``module.Class`` of this package, which imports Flax and so is imported when called."""

    def build(inputs: Inputs) -> nn.Module:
        module, _, kind = name.partition(".")
        made = getattr(importlib.import_module(f"geojax.models.{module}"), kind)
        return made(classes=inputs.outputs, **settings)

    return build


def model_info(config: ModelConfig) -> ModelInfo:
    """What is known of the configured model.

    >>> model_info(ModelConfig("demo_cnn")).pace_s
    0.05

    Raises:
      ConfigError: there is no such model (names the nearest), or one of its keys is wrong.
    """
    return MODELS.build(config)


def build_model(config: ModelConfig, inputs: Inputs) -> nn.Module:
    """The Flax module of a configured model for one kind of data.

    Raises:
      ConfigError: the model does not exist, is no network, or cannot take such data.
    """
    info, shape = model_info(config), inputs.sample.shape
    if info.build is None:
        fix = "has no network; choose another model for real data"
        raise ConfigError("model.name", config.name, fix)
    side = info.smallest_side
    images = len(shape) == 3 and not inputs.sample.classes
    if side and (not images or min(shape[:2]) < side):
        fix = (
            f"takes images of at least {side} x {side} pixels, the data has {inputs.sample.dtype} "
            f"samples of shape {shape}; choose another model or data set"
        )
        raise ConfigError("model.name", config.name, fix)
    return info.build(inputs)


def _widths(values: list[int]) -> tuple[int, ...]:
    if not all(isinstance(value, int) and value > 0 for value in values):
        raise ConfigError("model.hidden", values, "write a list of widths above 0, e.g. [128, 64]")
    return tuple(values)
