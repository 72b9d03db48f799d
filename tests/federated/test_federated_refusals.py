"""What federated algorithms refuse, with the key, the value and the fix."""

import logging
import re

import numpy as np
import pytest
from simulated_runs import simulated
from small_runs import config

from geojax.errors import ConfigError, DataError
from geojax.federated.clients import Clients

SOME_CENTERS = {"center_selection__name": "random", "center_selection__devices": 1}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("fedavg", {"sync__epochs": 0}, "sync.epochs = 0: give a whole number: at least 1"),
        ("fedprox", {"sync__mu": -1.0}, "sync.mu = -1.0"),
        ("feddyn", {"sync__alpha": 0.0}, "sync.alpha = 0.0"),
        ("fedavg", {"sync__p3": True}, "sync.p3"),
        ("fedavg", {"model__name": "synthetic"}, "model.name = 'synthetic'"),
        ("fedfusion", {}, "model.name = 'mlp': sync=fedfusion needs .* use one of .*demo_cnn"),
        ("scaffold", {"optimizer__name": "adam"}, "optimizer.name = 'adam': .* optimizer=sgd"),
        ("scaffold", {"optimizer__momentum": 0.9}, "optimizer.momentum = 0.9"),
        (
            "fednova", {"optimizer__momentum": 0.9, "optimizer__nesterov": True},
            "optimizer.nesterov = True",
        ),
        (
            "fedadam", {"outer_optimizer__name": "sgd"},
            "outer_optimizer.name = 'sgd': .* use auto, or sync=fedavg",
        ),
        (
            "fedavg", {"sync__execution": "pmap", "testbed__devices": 3, "devices__count": 0},
            "batch_size = 8: must divide by testbed.devices = 3",
        ),
        ("fedavg", {"nonfinite": "skip"}, "nonfinite = 'skip'"),
        ("fedavg", {"devices__gradient": "each"}, "devices.gradient = 'each': clients of sync=fed"),
        (
            "ida", {"outer_optimizer__name": "adam"},
            "outer_optimizer.name = 'adam': .* distances are taken from; use auto",
        ),
        (
            "fedfusion", {
                "model__name": "cnn_batchnorm", "sync__frozen": True,
                "optimizer__weight_decay": 0.1,
            },
            "optimizer.weight_decay = 0.1: would move frozen fusion parameters",
        ),
        ("ida", SOME_CENTERS, "center_selection.name = 'random': sync=ida needs the same centers"),
        ("scaffold", SOME_CENTERS, "center_selection.name = 'random': sync=scaffold counts the"),
        ("feddyn", SOME_CENTERS, "center_selection.name = 'random': sync=feddyn counts the"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_by_name(name, settings, message):
    with pytest.raises((ConfigError, DataError)) as caught:
        simulated(config(name, **settings))
    assert re.search(message, str(caught.value)), str(caught.value)


def clients(parts, **changed):
    settings = {"batch_size": 4, "epochs": 1, "seed": 0, "worker_index": 2, **changed}
    return Clients([np.arange(size) for size in parts], **settings)


def test_a_client_without_samples_is_named():
    with pytest.raises(DataError, match=r"clients of worker 2 without samples: \[1\]; use fewer"):
        clients([3, 0, 2])
    with pytest.raises(DataError, match="without samples: all"):
        clients([])


def test_epochs_and_batches_have_something_in_them():
    with pytest.raises(ConfigError, match=r"sync\.epochs = 0"):
        clients([3], epochs=0)
    with pytest.raises(ConfigError, match="batch_size = 0"):
        clients([3], batch_size=0)


def test_every_epoch_has_every_sample_once_and_short_batches_are_filled_with_its_own():
    made = clients([10, 3], epochs=3)
    assert (made.steps(0), made.steps(1), made.most_steps) == (9, 3, 9)
    batches = made.batches(0, 5)
    assert batches.shape == (9, 4)
    for epoch in batches.reshape(3, 12):
        assert sorted(epoch[epoch >= 0]) == list(range(10))
        assert set(~epoch[epoch < 0]) <= set(range(10))
        assert (epoch[-2:] < 0).all()
    assert (made.batches(0, 5) == batches).all()
    assert not (made.batches(0, 6) == batches).all()
    assert (made.batches(1, 0).reshape(3, 4)[:, 3] < 0).all()


def test_a_model_that_diverges_is_named_with_its_client():
    outcome = simulated(config("fedavg", lr=1e30), fails=True)
    assert "client 0 of worker 0, step 0: its loss or its model is not finite" in str(outcome.error)
