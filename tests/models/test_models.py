"""The models: their layouts, what they accept, and what is known of them without JAX."""

from __future__ import annotations

import numpy as np
import pytest
from networks import module_of, network_of

from geojax.config import ModelConfig
from geojax.errors import ConfigError
from geojax.models.registry import MODELS, model_info

IMAGE = (28, 28, 1)


def test_demo_cnn_has_the_published_layout():
    spec = network_of("demo_cnn", IMAGE, 10).spec
    sizes = [layer.size for layer in spec.layers]
    assert sizes == [400, 16, 12_800, 32, 131_072, 256, 32_768, 128, 1_280, 10]
    assert spec.size == spec.parameters == 178_762
    assert [layer.shape for layer in spec.layers[:4]] == [
        (5, 5, 1, 16),
        (16,),
        (5, 5, 16, 32),
        (32,),
    ]


def test_demo_cnn_starts_xavier_uniform_with_zero_biases():
    network = network_of("demo_cnn", IMAGE, 10)
    layers = network.spec.split(network.initial(3)[0])
    for name, values in layers.items():
        if name.endswith("bias"):
            assert not values.any()
            continue
        receptive = np.prod(values.shape[:-2], dtype=int)
        bound = np.sqrt(6 / (receptive * (values.shape[-2] + values.shape[-1])))
        assert np.abs(values).max() <= bound
        assert np.isclose(values.std(), bound / np.sqrt(3), rtol=0.15)


@pytest.mark.parametrize("shape", [(8, 8, 1), IMAGE, (32, 32, 3)])
@pytest.mark.parametrize(("name", "last"), [("mlp", "Dense_1"), ("cnn_batchnorm", "Dense_0")])
def test_small_models_take_any_image(name, last, shape):
    layers = network_of(name, shape, 7).spec.layers
    *_, kernel, bias = [layer for layer in layers if layer.kind == "parameter"]
    assert (kernel.name, bias.name) == (f"{last}/kernel", f"{last}/bias")
    assert bias.shape == (7,)


COLOUR = (32, 32, 3)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "parameters", "state"),
    [
        ("small_cnn", IMAGE, 10, 9_226, 0),
        ("leaf_cnn", IMAGE, 62, 6_603_710, 0),  # LEAF's FEMNIST
        ("leaf_cnn", IMAGE, 10, 6_497_162, 0),  # Fashion-MNIST
        ("alexnet", IMAGE, 10, 20_321_994, 0),
        ("alexnet", COLOUR, 10, 23_468_874, 0),
        ("resnet18", IMAGE, 10, 11_172_810, 0),
        ("resnet18", COLOUR, 10, 11_173_962, 0),
        ("resnet18_batchnorm", COLOUR, 10, 11_173_962, 9_600),
    ],
)
def test_large_models_have_the_stated_sizes(name, shape, classes, parameters, state):
    spec = network_of(name, shape, classes).spec
    assert (spec.parameters, spec.size) == (parameters, parameters + state)


def test_leaf_cnn_has_the_published_layers():
    sizes = [layer.size for layer in network_of("leaf_cnn", IMAGE, 62).spec.layers]
    pairs = [kernel + bias for kernel, bias in zip(sizes[::2], sizes[1::2], strict=True)]
    assert pairs == [832, 51_264, 6_424_576, 127_038]


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("leaf_cnn", IMAGE),
        ("leaf_cnn", (4, 4, 1)),
        ("alexnet", (15, 15, 1)),
        ("resnet18", (8, 8, 3)),
        ("resnet18_batchnorm", (8, 8, 3)),
    ],
)
def test_large_models_map_images_to_logits(name, image):
    import jax

    network = network_of(name, image, 7)
    shapes = jax.eval_shape(network.module.init, jax.random.key(0), np.zeros((1, *image)))
    for train in (False, True):
        made = jax.eval_shape(
            lambda arrays, images, train=train: network.module.apply(
                arrays, images, train=train, mutable=["batch_stats"] if train else False
            ),
            shapes,
            np.zeros((3, *image), np.float32),
        )
        assert (made[0] if train else made).shape == (3, 7)


def test_leaf_cnn_computes():
    import jax

    network = network_of("leaf_cnn", (4, 4, 1), 62)
    parameters, _ = network.unflatten(network.initial(0)[0])
    images = np.random.default_rng(0).random((2, 4, 4, 1), np.float32)
    labels = np.array([0, 61])
    loss, _ = jax.jit(network.loss)(parameters, {}, {}, images, labels)
    assert 3 < float(loss) < 6  # log 62 = 4.1 before any training


def test_residual_blocks_halve_the_image_between_groups():
    shapes = {
        layer.name: layer.shape
        for layer in network_of("resnet18", IMAGE, 10).spec.layers
        if "Conv_2" in layer.name
    }
    assert shapes == {
        "Block_2/Conv_2/kernel": (1, 1, 64, 128),
        "Block_4/Conv_2/kernel": (1, 1, 128, 256),
        "Block_6/Conv_2/kernel": (1, 1, 256, 512),
    }


def test_layers_are_in_order_of_execution_not_of_names():
    import jax
    from flax import linen as nn

    from geojax.center.network import Network
    from geojax.models.inputs import labelled

    class Named(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
            hidden = nn.Dense(5, name="zebra")(images.reshape((len(images), -1)))
            return nn.Dense(3, name="ant")(nn.Dense(4, name="10")(hidden))

    names = [layer.name for layer in Network(Named(), labelled((2, 2, 1), 3)).spec.layers]
    expected = ["zebra", "10", "ant"]
    assert names == [f"{layer}/{leaf}" for layer in expected for leaf in ("kernel", "bias")]


def test_too_small_images_are_refused():
    with pytest.raises(ConfigError, match=r"model\.name = 'demo_cnn'.*16 x 16.*\(8, 8, 1\)"):
        module_of("demo_cnn", (8, 8, 1), 10)
    network_of("demo_cnn", (16, 16, 1), 10)  # the smallest
    with pytest.raises(ConfigError, match=r"15 x 15"):
        module_of("alexnet", (14, 14, 1), 10)


def test_a_wrong_name_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'demo_cnn'"):
        model_info(ModelConfig("demo_cn"))


def test_the_synthetic_model_is_no_network():
    with pytest.raises(ConfigError, match="has no network"):
        module_of("synthetic", IMAGE, 10)


def test_every_model_has_a_pace():
    paces = {name: model_info(ModelConfig(name)).pace_s for name in MODELS}
    assert paces == {
        "demo_cnn": 0.05, "mlp": 0.01, "cnn_batchnorm": 0.05, "synthetic": 0.0,
        "small_cnn": 0.02, "leaf_cnn": 0.3, "alexnet": 1.5,
        "resnet18": 5.0, "resnet18_batchnorm": 5.0,
    }  # fmt: skip
