"""What devices cannot go with is refused by name, with something that works."""

import logging
from pathlib import Path

import numpy as np
import pytest
from simulated_runs import simulated, small_config

from geojax.assemble.fleets import build_fleet, check_fleets, device_counts
from geojax.errors import ConfigError, DataError
from testbed.run import prepare

FEDGS = {"sync": "fedgs", "sync__local_steps": 2, "devices__count": 4}
TRAINED = {"model__name": "mlp", "data__name": "digits", "batch_size": 8, "rounds": 1}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def prepared(**settings):
    return prepare(small_config(**{**TRAINED, **FEDGS, **settings}), Path())[0]


NO_DEVICES = {"devices__count": 0, "sync": "fsa", "sync__local_steps": None}
SYNTHETIC = {"model": "synthetic", "model__name": None, "data__name": None}
REFUSED = {
    "no devices": ({"devices__count": 0}, "sync.name = 'fedgs': there are no devices; set "
                   "devices.count, e.g. to 20, or use sync=local_steps with sync.local_steps=2"),
    "workers": ({"workers": 2}, "lan.workers = 2: devices.count puts devices behind each center, "
                "which is their base station; use lan.workers=1, or devices.count=0"),
    "synthetic": (SYNTHETIC, "model.name = 'synthetic': devices.count puts devices behind each "
                  "center, and this model trains on no data; use model=mlp, or devices.count=0"),
    "size_only": ({**SYNTHETIC, "compression": "size_only"}, "model.name = 'synthetic': devices"),
    "p3": ({"sync": "fsa", "sync__local_steps": None, "sync__p3": True}, "sync.p3 = True: "
           "devices.count puts devices behind each center, and a super node trains in one piece"),
    "grid": ({"pace__grid_s": 0.5}, "pace.grid_s = 0.5: devices.count puts devices behind"),
    "too many chosen": ({"selection": "random", "selection__devices": 5}, "selection.devices = 5: "
                        "c1 has 4 devices; use from 1 to 4, or more devices for it"),
    "mesh": ({"selection": "random", "selection__devices": 3, "testbed__devices": 16},
             "testbed.devices = 16: must divide the 24 samples of a step (3 devices of a super"),
    "mesh, each": ({"devices__gradient": "each", "testbed__devices": 3}, "batch_size = 8: must be "
                   "a multiple of the 3 local devices (testbed.devices); try 9"),
    "negative": ({"devices__count": -1}, "devices.count = -1: give a whole number of at least 1"),
    "a share": ({"devices__count": 1.5}, "devices.count = 1.5: give a whole number"),
    "a text": ({"devices__count": "many"}, "devices.count = 'many': give a whole number"),
    "unknown center": ({"devices__count": {"c1": 2, "c2": 2, "c4": 2}}, "devices.count = 'c4': did "
                       "you mean"),
    "missing center": ({"devices__count": {"c1": 2, "c2": 2}}, "says nothing of c3; give a whole"),
    "none in a center": ({"devices__count": {"c1": 2, "c2": 2, "c3": 0}}, "devices.count.c3 = 0: "
                         "give a whole number of at least 1 (0: no devices at all)"),
    "unread selection": ({**NO_DEVICES, "selection": "random"}, "selection.name = 'random': there "
                         "are no devices; set devices.count, e.g. to 20, or use everyone"),
    "unread partition": ({**NO_DEVICES, "device_partition": "shards"}, "device_partition.name = "
                         "'shards': there are no devices"),
    "unread link": ({**NO_DEVICES, "devices__rate": 10.0}, "devices.rate = 10.0: there are no "
                    "devices; set devices.count, e.g. to 20, or leave it at 100.0"),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "told"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_before_anything_starts(settings, told):
    with pytest.raises(ConfigError) as caught:
        prepared(**settings)
    assert told in str(caught.value)


def test_what_the_messages_advise_works():
    for advised in (
        {"devices__count": 20}, {"sync": "fsa", "sync__local_steps": None, "sync__p3": False},
        {"selection": "random", "selection__devices": 4}, {"devices__count": {"c1": 2, "c2": 2,
        "c3": 1}}, {**NO_DEVICES, "selection": "everyone"}, {"testbed__devices": 8},
    ):  # fmt: skip
        prepared(**advised)


def test_what_only_the_data_tells_is_refused_before_any_node_starts():
    with pytest.raises(
        DataError, match=r"c1: device \d+ of 200 has \d samples, fewer than half a b"
    ):
        check_fleets(prepared(devices__count=200))
    setup = prepared()
    setup.config.devices.count = None
    with pytest.raises(
        ConfigError, match=r"devices\.count = None: null is one device a writer, for"
    ):
        check_fleets(setup)


def test_devices_of_all_centers_share_out_the_data_and_are_numbered_on():
    setup = prepared(devices__count={"c1": 3, "c2": 5, "c3": 4})
    assert device_counts(setup) == {"c1": 3, "c2": 5, "c3": 4}
    fleets = [build_fleet(setup, name) for name in ("c1", "c2", "c3")]
    dealt = [fleet.sizes.sum() for fleet in fleets]
    assert dealt == [len(setup.part(name)) for name in ("c1", "c2", "c3")]
    for fleet, name in zip(fleets, ("c1", "c2", "c3"), strict=True):
        assert np.isin(fleet.next(), setup.part(name)).all()
    every = sum(fleet.class_counts().sum(axis=0) for fleet in fleets)
    assert np.array_equal(every, np.bincount(setup.dataset().train_y, minlength=10))


def test_targets_count_test_labels_only_when_asked_to():
    means = {}
    for faithful in (False, True):
        config = small_config(
            **TRAINED, **FEDGS, selection="gbp_cs", selection__devices=2,
            selection__random_devices=1, selection__faithful=faithful,
        )  # fmt: skip
        means[faithful] = [event["mean"] for event in simulated(config).of("divergence")]
    assert means[False] != means[True]
    np.testing.assert_allclose(means[False], means[True], atol=0.01)
