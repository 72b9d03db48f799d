"""What every data set comes out as, and what its limits keep; scikit-learn's digits."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from idx_samples import assert_sound

from geojax.config import DataConfig
from geojax.data import DATASETS, balanced_order, digits, load_dataset
from geojax.data.idx import cache_folder
from geojax.errors import ConfigError, DataError


def test_digits():
    from sklearn.datasets import load_digits  # slow to load, and every process reads this file

    data = load_dataset(DataConfig("digits"))
    assert data.name == "digits"
    assert_sound(data, 1437, 360, (8, 8, 1))
    assert np.bincount(data.test_y).min() >= 30
    stored, (pixels, labels) = digits.digits(DataConfig()), load_digits(return_X_y=True)
    for found, expected in (
        ((stored.train_x, stored.test_x), pixels.reshape(-1, 8, 8)),
        ((stored.train_y, stored.test_y), labels),
    ):
        together = np.concatenate(found)
        assert together.dtype == expected.dtype
        np.testing.assert_array_equal(together, expected)
    again = load_dataset(DataConfig("digits"))
    np.testing.assert_array_equal(data.train_x, again.train_x)


def test_digits_without_their_file_are_refused(monkeypatch):
    monkeypatch.setattr(digits, "_FILE", "datasets/data/none.csv.gz")
    with pytest.raises(DataError, match=r"scikit-learn with its .*none\.csv\.gz is not installed"):
        load_dataset(DataConfig("digits"))


def test_an_unknown_data_set_is_refused():
    assert set(DATASETS) == {
        "digits",
        "fashion_mnist",
        "femnist",
        "mnist",
        "npz",
        "synth_femnist",
    }
    with pytest.raises(ConfigError, match=r"data\.name = 'digit': did you mean 'digits'"):
        load_dataset(DataConfig("digit"))


def test_limits_keep_whole_samples_in_their_order_and_nested():
    whole = load_dataset(DataConfig("digits"))
    some = load_dataset(DataConfig("digits", train_samples=300, test_samples=50))
    few = load_dataset(DataConfig("digits", train_samples=100))
    assert_sound(some, 300, 50, (8, 8, 1))
    rows = {image.tobytes(): i for i, image in enumerate(whole.train_x)}
    places = {}
    for name, data in (("some", some), ("few", few)):
        places[name] = [rows[image.tobytes()] for image in data.train_x]
        assert places[name] == sorted(places[name])
        np.testing.assert_array_equal(whole.train_y[places[name]], data.train_y)
    assert set(places["few"]) < set(places["some"])
    assert max(places["few"]) > 1300  # from everywhere, not from the front
    assert np.bincount(few.train_y).tolist() == pytest.approx([10] * 10, abs=1)


@given(labels=st.lists(st.integers(0, 20), max_size=200).map(lambda x: np.array(x, int)))
def test_every_prefix_of_the_balanced_order_has_the_shares_of_the_whole(labels):
    order = balanced_order(labels)
    assert sorted(order) == list(range(len(labels)))
    np.testing.assert_array_equal(order, balanced_order(labels))
    classes, sizes = np.unique(labels, return_counts=True)
    for prefix in range(1, len(labels) + 1):
        taken = labels[order[:prefix]]
        for label, size in zip(classes, sizes, strict=True):
            share = size / len(labels)
            rounding = 0.5 + 0.5 * len(classes) * share
            assert abs((taken == label).sum() - prefix * share) <= rounding + 1e-9


@pytest.mark.parametrize("key", ["train_samples", "test_samples"])
def test_limits_outside_the_data_are_refused(key):
    with pytest.raises(ConfigError, match=f"data.{key} = 0: give a whole number: at least 1"):
        load_dataset(DataConfig("digits", **{key: 0}))
    with pytest.raises(DataError, match=f"data.{key} = 5000: .* has (1437|360) samples"):
        load_dataset(DataConfig("digits", **{key: 5000}))


def test_the_cache_folder_follows_the_xdg_rules(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    for root, folder in (
        ("/caches", "/caches/geojax/mnist"),
        ("", "/home/someone/.cache/geojax/mnist"),
        ("relative/is/ignored", "/home/someone/.cache/geojax/mnist"),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", root)
        assert cache_folder("mnist") == Path(folder)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("mnist") == Path("/home/someone/.cache/geojax/mnist")
