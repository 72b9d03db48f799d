"""A vector that is exchanged in pieces: the same training, sooner; what needs all is refused."""

import logging

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config

from geojax.errors import ConfigError, GeojaxError

EXTERNAL = {"wan__server_center": "external", "wan__external": {"rate": 100, "rtt": 20}}
MULTIGPS = {"overlay__name": "multigps", "overlay__servers": 2}
STREAMING = {"sync__name": "streaming_diloco", "sync__local_steps": 4}
STEPS = {"sync__name": "local_steps", "sync__local_steps": 2}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def in_pieces(pieces, **settings):
    """Chunks are the same in any number of pieces up to 8; a piece of 8 is two of them."""
    return small_config(**{
        "elements": 8000, "chunk_elements": 500, "rounds": 4, "workers": 2,
        "overlay__pieces": pieces, **settings,
    })  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"workers": 1},
        STEPS,
        {**STEPS, "compression__name": "fp16"},
        {**STEPS, "compression__lan": "fp16"},
        {**EXTERNAL, **STEPS},
        {**MULTIGPS, "overlay__placement": "geomx"},
        {"overlay__name": "packing", **STEPS},
        {"compression__name": "twobit"},
        {"sync__name": "diloco", "sync__local_steps": 2},
        {**STREAMING, "sync__overlap": 2, "sync__blend": 0.5, "model__pace_s": 0.001},
    ],
    ids=str,
)
def test_the_same_training_in_less_time(settings):
    whole, parts = (simulated(in_pieces(pieces, **settings)) for pieces in (1, 8))
    assert np.ptp(whole.final) > 0
    assert parts.final.tobytes() == whole.final.tobytes()
    assert len(set(parts.finals.values())) == 1
    assert parts.reports.keys() == whole.reports.keys()
    sooner = settings.get("workers") != 1
    assert parts.end < whole.end if sooner else parts.end <= whole.end * 1.001


def test_a_model_whose_layers_are_cut():
    settings = {
        "model__name": "cnn_batchnorm", "model__stages": None, "data__name": "digits", "rounds": 3,
        "batch_size": 8, "lr": 0.1, "chunk_elements": 256, **STEPS,
    }  # fmt: skip
    whole, parts = (simulated(in_pieces(pieces, **settings)) for pieces in (1, 5))
    np.testing.assert_array_equal(parts.final, whole.final)
    assert parts.end < whole.end


def test_sizes_alone_take_the_same_time():
    size_only = {"compression__name": "size_only", **STEPS}
    hollow, real = (simulated(in_pieces(8, **each)) for each in (size_only, STEPS))
    assert hollow.end == real.end


def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    whole = simulated(in_pieces(8, rounds=6, **STEPS))
    settings = {"rounds": 6, "checkpoint_every": 2, **STEPS}
    faults = [kill(name, 0.6 * whole.end) for name in ("c1", "c2", "c3")]
    simulated(in_pieces(8, testbed__faults=faults, **settings), fails=True, folder=tmp_path)
    resumed = simulated(in_pieces(8, resume=True, **settings), folder=tmp_path)
    assert resumed.final.tobytes() == whole.final.tobytes()


def test_after_a_death_all_agree_or_the_run_ends_and_says_why():
    agreed, errors = 0, []
    for at in np.arange(0.0007, 0.6, 0.05):
        try:
            outcome = simulated(in_pieces(4, testbed__faults=[kill("c3", float(at))], **STEPS))
        except GeojaxError as error:
            errors.append(str(error))
            continue
        assert len(set(outcome.finals.values())) == 1
        agreed += 1
    assert agreed > 3
    assert all("applied in part" in text and "overlay.pieces" in text for text in errors), errors


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sync__p3": True, "model__stages": 8}, "sync.p3=true"),
        ({**STREAMING, "sync__fragments": 2, "model__stages": 8}, "fragments"),
        ({"sync__name": "fedasync"}, "global servers"),
        ({"sync__name": "hfa", "sync__lan_rounds": 2}, "within a center"),
        ({"optimizer__clip_norm": 1.0}, "optimizer.clip_norm"),
        ({"outer_optimizer__name": "sgd", "outer_optimizer__clip_norm": 1.0}, "outer_optimizer"),
        ({"overlay__pieces": 17}, "use at most 16"),
        ({"overlay__pieces": 0}, "at least 1"),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_refused_at_start(settings, says):
    with pytest.raises(ConfigError) as caught:
        simulated(in_pieces(**{"pieces": 8, **settings}))
    assert "overlay.pieces" in str(caught.value)
    assert says in str(caught.value)
