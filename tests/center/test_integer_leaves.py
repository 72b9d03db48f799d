"""Integer leaves never enter the vector, so no codec and no other center ever sees them."""

import logging

import numpy as np
import pytest
from networks import network_of
from simulated_runs import simulated, small_config

from geojax.assemble.agreement import Agreement


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


SPARSE = {"compression__ratio": 0.1, "compression__bound": 100}


def config(codec="dense", **settings):
    return small_config(**{
        "model__name": "cnn_batchnorm", "data__name": "digits", "rounds": 2, "batch_size": 8,
        "compression__name": codec, **(SPARSE if codec in ("bisparse", "mpq") else {}),
        **settings,
    })  # fmt: skip


def test_the_vector_holds_the_float_leaves_alone():
    network = network_of("cnn_batchnorm", (8, 8, 1), 10)
    assert list(network.initial(0)[1]) == ["counters/batches"]
    layers = Agreement.of(config()).spec.layers
    assert {layer.name for layer in layers if layer.kind == "state"} == {
        f"batch_stats/BatchNorm_{block}/{what}" for block in (0, 1) for what in ("mean", "var")
    }
    assert not [layer.name for layer in layers if "counters" in layer.name]


@pytest.mark.parametrize("codec", ["dense", "fp16", "bisparse", "mpq", "twobit", "dgt"])
def test_every_codec_trains_a_model_that_has_some(codec):
    found = simulated(config(codec))
    assert found.final.dtype == np.float32
    assert found.final.size == Agreement.of(config()).spec.size
    assert len({digest for _, digest in found.finals.values()}) == 1
