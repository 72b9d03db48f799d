"""Every model by name, with what a run must know of it before JAX is imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from geojax.config import ModelConfig
from geojax.errors import ConfigError
from geojax.registry import Registry
from geojax.settings import key

if TYPE_CHECKING:
    from flax import linen as nn

SYNTHETIC = "synthetic"


class ModelInfo(NamedTuple):
    """What is known of a model without building it.

    Attributes:
      name: the configured name.
      pace_s: emulated seconds of one step of one batch, unless the configuration says otherwise.
        Chosen so that a small shared CPU keeps it (batch 32, one thread).
      input_shape: (height, width, channels) of one sample; None: any image.
      classes: number of classes; None: as many as the data has.
      smallest_side: fewest pixels of height and width that the layers can take.
      build: makes the Flax module for a number of classes; None: the model is no network.
      staged: the model can be trained stage by stage, which ``sync.p3`` needs: its module is a
        :class:`geojax.models.staged.StagedModule`, or it is no network.
    """

    name: str
    pace_s: float
    input_shape: tuple[int, ...] | None
    classes: int | None
    smallest_side: int = 1
    build: Callable[[int], nn.Module] | None = None
    staged: bool = False


MODELS: Registry[Callable[[], ModelInfo]] = Registry("model.name", ModelConfig)


@MODELS.register("demo_cnn")
def demo_cnn() -> ModelInfo:
    """The GeoMX demo CNN; 178,762 parameters on 28 × 28 × 1 images of ten classes."""

    def build(classes: int) -> nn.Module:
        from geojax.models.demo_cnn import DemoCnn

        return DemoCnn(classes=classes)

    return ModelInfo("demo_cnn", 0.05, None, None, smallest_side=16, build=build, staged=True)


@MODELS.register("mlp")
def mlp() -> ModelInfo:
    """One hidden layer; for small images and quick tests."""

    def build(classes: int) -> nn.Module:
        from geojax.models.mlp import Mlp

        return Mlp(classes=classes)

    return ModelInfo("mlp", 0.01, None, None, build=build, staged=True)


@MODELS.register("leaf_cnn")
def leaf_cnn() -> ModelInfo:
    """LEAF's CNN for FEMNIST; 6,603,710 parameters on 28 × 28 × 1 images of 62 classes."""

    def build(classes: int) -> nn.Module:
        from geojax.models.leaf_cnn import LeafCnn

        return LeafCnn(classes=classes)

    return ModelInfo("leaf_cnn", 0.3, None, None, smallest_side=4, build=build, staged=True)


@MODELS.register("alexnet")
def alexnet() -> ModelInfo:
    """AlexNet for small images; 20,321,994 parameters on 28 × 28 × 1 images of ten classes."""

    def build(classes: int) -> nn.Module:
        from geojax.models.alexnet import AlexNet

        return AlexNet(classes=classes)

    return ModelInfo("alexnet", 1.5, None, None, smallest_side=15, build=build, staged=True)


@MODELS.register("resnet18")
def resnet18() -> ModelInfo:
    """ResNet-18 with GroupNorm; 11,173,962 parameters on 32 × 32 × 3 images of ten classes."""
    return _resnet18("resnet18", "group")


@MODELS.register("resnet18_batchnorm")
def resnet18_batchnorm() -> ModelInfo:
    """ResNet-18 with BatchNorm: as many parameters, and 9,600 elements of float state."""
    return _resnet18("resnet18_batchnorm", "batch")


def _resnet18(name: str, norm: str) -> ModelInfo:
    def build(classes: int) -> nn.Module:
        from geojax.models.resnet import ResNet

        return ResNet(classes=classes, norm=norm)

    return ModelInfo(name, 5.0, None, None, smallest_side=8, build=build, staged=True)


@MODELS.register("cnn_batchnorm")
def cnn_batchnorm() -> ModelInfo:
    """A small CNN with float state (BatchNorm) and an integer leaf (a counter of batches)."""

    def build(classes: int) -> nn.Module:
        from geojax.models.cnn_batchnorm import CnnBatchNorm

        return CnnBatchNorm(classes=classes)

    return ModelInfo("cnn_batchnorm", 0.05, None, None, smallest_side=2, build=build, staged=True)


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
def synthetic() -> ModelInfo:
    """No network: a vector of ``model.bytes`` whose gradients are small integers."""
    return ModelInfo(SYNTHETIC, 0.0, (), 0, staged=True)


def model_info(name: str) -> ModelInfo:
    """What is known of the model ``name``; a wrong name is refused with the nearest valid one.

    >>> model_info("demo_cnn").pace_s
    0.05
    """
    return MODELS[name]()


def build_model(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The Flax module of a model for one kind of data.

    Args:
      name: the configured name of the model.
      input_shape: (height, width, channels) of one sample.
      classes: number of classes.

    Raises:
      ConfigError: the model does not exist, is no network, or cannot take such data.
    """
    info = model_info(name)
    if info.build is None:
        raise ConfigError("model.name", name, "has no network; choose another model for real data")
    wanted = info.input_shape
    if wanted is not None and wanted != tuple(input_shape):
        raise ConfigError(
            "model.name", name, f"takes samples of {wanted}, the data has {input_shape}"
        )
    if info.classes is not None and info.classes != classes:
        raise ConfigError("model.name", name, f"has {info.classes} classes, the data {classes}")
    if len(input_shape) != 3 or min(input_shape[:2]) < info.smallest_side:
        side = info.smallest_side
        fix = f"takes images of at least {side} x {side} pixels, the data has {tuple(input_shape)}"
        raise ConfigError("model.name", name, f"{fix}; choose another model or data set")
    return info.build(classes)
