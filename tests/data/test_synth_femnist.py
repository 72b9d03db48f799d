"""The drawn stand-in for FEMNIST: the same bytes everywhere, writers that differ, its cache."""

import hashlib
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from geojax.data import load_dataset, synth_femnist
from geojax.data.handwriting import Draws, new_hand, write
from geojax.data.idx import cache_folder
from geojax.data.label_mixture import mean_shares
from geojax.data.streams import stream
from geojax.data.strokes import CHARACTERS, FACES, POINTS, REACH, bank
from geojax.data.synth_femnist import SynthFemnistConfig, draw
from geojax.errors import ConfigError, DataError

SMALL = {"writers": 4, "test_writers": 2, "size": 0.1}


@pytest.fixture(autouse=True)
def own_cache(nowhere):
    """Nothing of these tests stays in the user's cache."""


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def images(letters, seed=0, style=1.0):
    def draws(what):
        return Draws(stream("handwriting", seed, what))

    return write(new_hand(draws(0), style), np.asarray(letters), draws(1))


def test_images_are_the_same_bytes_everywhere():
    # by exact arithmetic: this hash may change only with VERSION
    assert (
        sha256(images(np.arange(62)))
        == "febcc8d23761c9e580411d66b5c78508cc0bf2997d80eb4a3e6b06d34780fb44"
    )
    assert (
        sha256(images([3, 3, 40], seed=7, style=2.0))
        == "05f2528a85243b6c86b3d6fd50e4aca9f62f45cd71d2c556cf13236395791727"
    )


def test_a_small_set_has_these_bytes():
    # classes rest on NumPy's gamma draws: a NumPy that changes those changes "train_y" and more
    arrays = draw(SynthFemnistConfig(**SMALL))
    assert (
        sha256(arrays["train_y"])
        == "1964cb532b3fc9ccf97995059055c05ff6f02c550ed7ee368b961ba14c2998f1"
    )
    assert (
        sha256(arrays["train_x"])
        == "2fe3fe894506b07e9d283a4a17126482a9cdebbc3fdb13da13744eef72afeab3"
    )
    assert arrays["train_writer"].tolist() == sorted(arrays["train_writer"].tolist())


def test_a_distance_map_is_the_distance_to_the_strokes():
    # l of the first face is one straight stroke, from (0, -1) to (0, 1)
    line = bank()[0, CHARACTERS.index("l")]
    axis = np.linspace(-REACH, REACH, POINTS)
    beyond = np.maximum(np.abs(axis) - 1, 0)
    np.testing.assert_allclose(line, np.hypot(axis[None, :], beyond[:, None]), atol=1e-6)
    assert bank().shape == (len(FACES), 62, POINTS, POINTS)
    assert (bank().min(axis=(2, 3)) < 2 * REACH / (POINTS - 1)).all()  # every letter has a stroke


def test_without_variation_a_letter_lies_where_its_strokes_are(monkeypatch):
    for name in ("SLANT", "TURN", "STRETCH", "SCALE", "SHIFT", "BEND", "RADIUS"):
        monkeypatch.setattr(f"geojax.data.handwriting.{name}", (0, 0, 0))
    image = images([CHARACTERS.index("l")], style=0.0)[0].astype(float)
    inked = np.argwhere(image > image.max() / 2)
    assert 18 <= np.ptp(inked[:, 0]) <= 22  # 20 of 28 pixels high, centered
    assert abs(inked[:, 0].mean() - 13.5) < 0.6
    assert abs(inked[:, 1].mean() - 13.5) < 0.6


def test_every_class_is_drawn_and_test_writers_are_others():
    data = load_dataset(SynthFemnistConfig(writers=12, test_writers=3))
    assert data.classes == 62
    assert data.train_x.shape[1:] == (28, 28, 1)
    assert (data.train_x.min(), data.train_x.max() > 0.9) == (0, True)
    assert 0.08 < data.train_x.mean() < 0.18
    assert data.train_groups is not None
    sizes = np.bincount(data.train_groups)
    assert len(sizes) == 12
    assert 20 <= sizes.min() <= sizes.max() <= 470
    more = load_dataset(SynthFemnistConfig(writers=13, test_writers=3))
    np.testing.assert_array_equal(more.test_x, data.test_x)
    np.testing.assert_array_equal(more.train_x[: len(data.train_x)], data.train_x)
    known = {image.tobytes() for image in data.train_x}
    assert not known & {image.tobytes() for image in data.test_x}


def mean_distance(one, other):
    return float(((one.astype(float) - other.astype(float)) ** 2).sum(axis=(1, 2)).mean())


def ratio(style, writers=20):
    """Mean distance of a writer's images of a digit, over that of two writers' images."""
    digits = np.repeat(np.arange(10), 4)
    own = [images(digits, seed, style) for seed in range(writers)]
    same = [mean_distance(x[0::2], x[1::2]) for x in own]
    different = [mean_distance(x, y) for x, y in pairwise(own)]
    return np.mean(same) / np.mean(different)


def test_style_says_how_far_writers_differ():
    none, usual, strong = ratio(0.0), ratio(1.0), ratio(2.0)
    assert none == pytest.approx(1, abs=0.05)
    assert strong + 0.1 < usual < 0.75


def test_class_shares_follow_the_mixture_or_a_dirichlet_draw():
    def shares(alpha):
        config = SynthFemnistConfig(writers=60, test_writers=1, size=0.4, label_alpha=alpha)
        data = load_dataset(config)
        counts = np.zeros((60, 62))
        np.add.at(counts, (data.train_groups, data.train_y), 1)
        mix = counts / counts.sum(axis=1, keepdims=True)
        whole = counts.sum(axis=0) / counts.sum()
        return np.abs(mix - whole).sum(axis=1).mean() / 2, np.abs(whole - mean_shares()).sum() / 2

    skew = {alpha: shares(alpha) for alpha in (None, 0.1, 10.0)}
    assert skew[0.1][0] > 0.5 > skew[10.0][0]
    assert skew[None][0] < 0.45
    assert skew[None][1] < 0.1
    assert skew[10.0][1] < 0.1


def test_a_set_is_drawn_once(monkeypatch):
    first = load_dataset(SynthFemnistConfig(**SMALL))
    files = list(cache_folder("synth-femnist").iterdir())
    assert [file.suffix for file in files] == [".npz"]
    with monkeypatch.context() as patched:
        patched.setattr(synth_femnist, "draw", None)
        again = load_dataset(SynthFemnistConfig(**SMALL))
    np.testing.assert_array_equal(first.train_x, again.train_x)
    np.testing.assert_array_equal(first.train_groups, again.train_groups)
    other = load_dataset(SynthFemnistConfig(**SMALL, seed=1))
    assert other.train_x.shape != first.train_x.shape or (other.train_x != first.train_x).any()
    for change in (files[0].read_bytes()[:1000], b""):
        files[0].write_bytes(change)
        with pytest.raises(DataError, match=r"npz is damaged .*delete it, it is made anew"):
            load_dataset(SynthFemnistConfig(**SMALL))


def test_processes_that_miss_the_same_set_draw_it_once(nowhere):
    code = """
import pathlib, sys
from geojax.data import load_dataset, synth_femnist
def noted(config, draw=synth_femnist.draw):
    with open(sys.argv[1], "a") as file:
        file.write("drawn ")
    return draw(config)
synth_femnist.draw = noted
Config = synth_femnist.SynthFemnistConfig
print(load_dataset(Config(writers=6, test_writers=2)).train_x.sum())
"""
    told = nowhere / "told"
    command = [sys.executable, "-c", code, str(told)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sums = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(sums) == 1
    assert told.read_text() == "drawn "


def test_a_cache_that_cannot_be_written_says_so(nowhere, monkeypatch):
    (nowhere / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(nowhere / "file"))
    with pytest.raises(DataError, match=r"cannot be written .*XDG_CACHE_HOME"):
        load_dataset(SynthFemnistConfig(**SMALL))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"writers": 0}, r"data\.writers = 0: give"),
        ({"style": -1.0}, r"data\.style = -1\.0: give"),
        ({"size": 0.0}, r"data\.size = 0\.0: give"),
        ({"label_alpha": 0.0}, r"data\.label_alpha = 0\.0: give"),
    ],
)
def test_wrong_settings_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        load_dataset(SynthFemnistConfig(**keys))
