"""The models of the tree for data that no data set has to hold."""

from __future__ import annotations

from flax import linen as nn

from geojax.center.network import Network
from geojax.config import ModelConfig
from geojax.models.inputs import labelled
from geojax.models.registry import build_model


def module_of(name: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    return build_model(ModelConfig(name), labelled(shape, classes))


def network_of(name: str, shape: tuple[int, ...], classes: int) -> Network:
    return Network(module_of(name, shape, classes), labelled(shape, classes))
