"""NaN in the data of one worker: the run stops and says where, or goes on without its offers."""

import functools
import logging
import re

import numpy as np
import pytest
from simulated_runs import simulated, small_config

from geojax.assemble import setup
from geojax.center.mesh_trainer import MeshTrainer
from geojax.data.dataset import load_dataset
from geojax.data.dealing import partition
from geojax.errors import Diverged
from geojax.hips.storage.checkpoint import Checkpoints

BAD = {1: "c2", 2: "c2/w1"}  # with so many workers a center
LAYERS = ["Dense_0/kernel", "Dense_1/kernel", "Dense_1/bias"]  # ReLU passes no NaN back to a bias
SPARSE = {"compression__ratio": 0.05, "compression__bound": 100}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


@pytest.fixture
def spoil(monkeypatch):
    """``spoil(bad, workers)``: the samples of some workers hold NaN; those of the test do not."""

    def install(bad, workers):
        @functools.cache
        def spoiled(name):
            config = small_config(data__name=name)
            data = load_dataset(config.data)
            parts = partition(config.partition, data.train_y, trainers(workers), config.seed)
            features = data.train_x.copy()
            for one in bad:
                features[parts[one], 3, 3] = np.nan
            return data._replace(train_x=features)

        monkeypatch.setattr(setup, "load_dataset", lambda config: spoiled(config.name))

    return install


def trainers(workers):
    centers = ("c1", "c2", "c3")
    return [f"{c}/w{w}" for c in centers for w in range(workers)] if workers > 1 else list(centers)


def config(workers, codec, sync, **settings):
    return small_config(**{
        "workers": workers, "rounds": 12, "model__name": "mlp", "data__name": "digits", "lr": 0.2,
        "batch_size": 16, "eval_every_s": 0.5, "overlay__chunk_elements": 1000,
        "compression__name": codec, "sync__name": sync, **settings,
        **(SPARSE if codec in ("bisparse", "mpq") else {}),
    })  # fmt: skip


def each_run(test):
    for name, values in {
        "workers": BAD, "codec": ["dense", "bisparse", "fp16"], "sync": ["fsa", "mixed_sync"]
    }.items():  # fmt: skip
        test = pytest.mark.parametrize(name, values)(test)
    return test


@each_run
def test_it_stops_and_names_the_layers(spoil, workers, codec, sync):
    spoil([BAD[workers]], workers)
    found = simulated(config(workers, codec, sync), fails=True)
    assert isinstance(found.error, Diverged)
    assert found.error.layers == tuple(LAYERS)
    assert "Dense_0/kernel" in str(found.error)
    (event,) = found.of("nonfinite")
    assert event["node"] == BAD[workers]
    assert event["layers"] == LAYERS


@each_run
def test_it_goes_on_without_those_offers(spoil, workers, codec, sync):
    spoil([BAD[workers]], workers)
    found = simulated(config(workers, codec, sync, nonfinite="skip"))
    told = found.of("nonfinite")
    assert {event["node"] for event in told} == {BAD[workers]}
    assert [event["round"] for event in told] == list(range(12))
    assert all(event["layers"] == LAYERS for event in told)
    assert {last for last, _ in found.finals.values()} == {11}
    assert np.isfinite(found.final).all()
    losses = [event["loss"] for event in found.of("evaluation")]
    assert losses[-1] < 0.9 * losses[0]
    assert sync == "mixed_sync" or len(set(found.finals.values())) == 1


@each_run
def test_if_nobody_has_anything_finite_nothing_changes(spoil, workers, codec, sync):
    spoil(trainers(workers), workers)
    found = simulated(config(workers, codec, sync, nonfinite="skip", rounds=3))
    assert len(found.of("nonfinite")) == 3 * len(trainers(workers))
    assert len({digest for _, digest in found.finals.values()}) == 1
    untouched = simulated(config(workers, "dense", "fsa", nonfinite="skip", rounds=1))
    assert found.final.tobytes() == untouched.final.tobytes()
    losses = {event["loss"] for event in found.of("evaluation")}
    assert losses == {event["loss"] for event in untouched.of("evaluation")}


def test_it_stops_stage_by_stage_too(spoil):
    spoil(["c2"], 1)
    found = simulated(config(1, "dense", "fsa", sync__p3=True), fails=True)
    (event,) = found.of("nonfinite")
    assert event["layers"] == list(found.error.layers) == LAYERS[1:]


def test_local_steps_stop(spoil):
    spoil(["c2"], 1)
    found = simulated(config(1, "dense", "local_steps", sync__local_steps=2), fails=True)
    assert isinstance(found.error, Diverged)
    assert found.of("nonfinite")


def test_what_has_accumulated_stays_where_an_offer_counts_nothing(spoil, tmp_path):
    spoil(["c2"], 1)
    settings = {"nonfinite": "skip", "rounds": 4, "checkpoint_every": 2}
    simulated(config(1, "bisparse", "fsa", **settings), folder=tmp_path)
    encoded = {}
    for center in trainers(1):
        _, kept = Checkpoints(tmp_path / "checkpoints", center, 2, counters=dict).read(3)
        encoded[center] = int(kept["codec"][0][1])
    assert encoded == {"c1": 4, "c2": 0, "c3": 4}  # vectors that went through the residuals


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"overlay__name": "ring"}, "c., chunk .*the largest value is 3e.38, of c."),
        ({"workers": 2}, "c., chunk .*the largest value is 3e.38, of c./w0"),
        ({}, "c1, chunk .*the largest value is 3e.38, of c."),
        ({"sync__name": "mixed_sync", "lr": 1e10}, "not finite after version .* c. pushed"),
    ],
)
def test_a_sum_that_overflows_stops_the_run_and_nobody_is_accused(settings, said, monkeypatch):
    """Each offer is finite. To its receivers the sum would look like the lie of who summed it."""
    gradient = MeshTrainer.gradient

    def huge(self):
        vector = gradient(self)
        vector[:] = 3e38
        return vector

    monkeypatch.setattr(MeshTrainer, "gradient", huge)
    run = {"workers": 1, "codec": "dense", "sync": "fsa", "rounds": 3, "lr": 1e-38, **settings}
    outcome = simulated(config(**run), fails=True)
    assert isinstance(outcome.error, Diverged)
    assert re.search(said, str(outcome.error))
    assert not outcome.of("refused")
    assert not outcome.of("dead")
