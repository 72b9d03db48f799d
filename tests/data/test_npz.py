"""Own data from .npz files: what is kept, what is counted, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from geojax.config import PartitionConfig
from geojax.data import PARTITIONS, load_dataset, partition
from geojax.data.__main__ import main
from geojax.data.npz import NpzConfig
from geojax.errors import ConfigError, DataError

DRAW = np.random.default_rng(0)


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    return DRAW.random((count, 6, 5)), DRAW.integers(0, 4, count).astype(np.uint8)


def written(path, **arrays) -> NpzConfig:
    np.savez(path / "data.npz", **arrays)
    return NpzConfig(path=str(path / "data.npz"))


def labelled_arrays() -> dict[str, np.ndarray]:
    train_x, train_y = images(20)
    test_x, test_y = images(8)
    train_y[0] = 3
    return {"train_x": train_x, "train_y": train_y, "test_x": test_x, "test_y": test_y}


def test_floats_and_labels(tmp_path):
    arrays = labelled_arrays()
    data = load_dataset(written(tmp_path, **arrays))
    assert (data.classes, data.tokens) == (4, 0)
    assert (data.train_x.dtype, data.train_y.dtype) == (np.float32, np.int32)
    for name, array in arrays.items():
        np.testing.assert_allclose(getattr(data, name), array, rtol=1e-6)  # not scaled


def test_tokens_with_given_targets_share_one_vocabulary(tmp_path):
    x, y = DRAW.integers(0, 5, (9, 7)), DRAW.integers(0, 5, (9, 7))
    y[0, 0] = 11
    data = load_dataset(written(tmp_path, train_x=x, train_y=y, test_x=x[:3], test_y=y[:3]))
    assert (data.classes, data.tokens) == (12, 12)
    assert data.train_x.dtype == data.train_y.dtype == np.int32
    np.testing.assert_array_equal(data.train_y, y)


def test_tokens_without_targets_are_shifted(tmp_path):
    tokens = DRAW.integers(0, 9, (12, 6)).astype(np.uint8)
    tokens[0, 0] = 8
    data = load_dataset(written(tmp_path, train_x=tokens, test_x=tokens[:4]))
    assert (data.classes, data.tokens) == (9, 9)
    np.testing.assert_array_equal(data.train_x, tokens[:, :-1])
    np.testing.assert_array_equal(data.test_y, tokens[:4, 1:])


def test_sequences_with_labels_have_tokens_and_classes(tmp_path):
    x, y = np.full((4, 6), 30), np.array([0, 1, 2, 0])
    data = load_dataset(written(tmp_path, train_x=x, train_y=y, test_x=x, test_y=y))
    assert (data.classes, data.tokens) == (3, 31)


def test_targets_of_floats_have_no_classes_and_limits_keep_whole_samples(tmp_path):
    x = DRAW.random((30, 3))
    arrays = {"train_x": x, "train_y": 2 * x, "test_x": x[:5], "test_y": 2 * x[:5]}
    config = written(tmp_path, **arrays)
    config.train_samples = 10
    data = load_dataset(config)
    assert (data.classes, data.tokens) == (0, 0)
    assert data.train_x.shape == data.train_y.shape == (10, 3)
    np.testing.assert_allclose(data.train_y, 2 * data.train_x, rtol=1e-6)
    again = load_dataset(config)
    np.testing.assert_array_equal(data.train_x, again.train_x)


NO_TARGETS = {"train_y": None, "test_y": None}
REFUSED = {
    "test_x missing": {"test_x": None},
    "holds train_x, test_x, test_y; train_y missing": {"train_y": None},
    r"20 samples in train_x, 19 targets in train_y": {"train_y": np.zeros(19, int)},
    r"train_x is float64 of shape \(20, 6, 5\), test_x float64 of shape \(8, 6\)": {
        "test_x": np.zeros((8, 6))
    },
    r"test_y float64 of shape \(8,\); give both the same kind": {"test_y": np.zeros(8)},
    r"train_y: int64 of shape \(20,\) holds integers from -1": {"train_y": np.full(20, -1)},
    r"train_y: int64 of shape .* fit into int32": {"train_y": np.full(20, 2**31)},
    r"test_x: float64 of shape \(8, 6, 5\) holds NaN": {"test_x": np.full((8, 6, 5), np.nan)},
    r"test_y: <U1 of shape \(8,\); store integers or floats": {"test_y": np.full(8, "a")},
    r"test_x: float64 of shape \(0, 6, 5\) holds nothing": {
        "test_x": np.zeros((0, 6, 5)), "test_y": np.zeros(0, int),
    },
    "cannot be read as a .npz file .*Object arrays": {"train_x": np.array([{}] * 20, object)},
    r"train_x: float64 of shape \(20, 6, 5\); without targets": NO_TARGETS,
    r"train_x: int64 of shape \(20, 1\); without targets .* at least 2 tokens": {
        "train_x": np.zeros((20, 1), int), **NO_TARGETS,
    },
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_wrong_arrays_are_refused_by_file_and_name(message, tmp_path):
    arrays = {**labelled_arrays(), **REFUSED[message]}
    given = {name: array for name, array in arrays.items() if array is not None}
    with pytest.raises(DataError, match=rf"data\.npz.*{message}"):
        load_dataset(written(tmp_path, **given))


def test_wrong_files_are_refused(tmp_path):
    for path in (None, str(tmp_path / "absent.npz"), str(tmp_path)):
        with pytest.raises(ConfigError, match=r"data\.path = .*name a \.npz file with train_x"):
            load_dataset(NpzConfig(path=path))
    for content in (b"", b"no archive", b"PK\3\4 cut short"):
        (tmp_path / "wrong.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"wrong\.npz cannot be read as a \.npz file"):
            load_dataset(NpzConfig(path=str(tmp_path / "wrong.npz")))
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"single\.npy cannot be read as a \.npz file"):
        load_dataset(NpzConfig(path=str(tmp_path / "single.npy")))


@pytest.mark.parametrize("targets", [np.zeros((12, 5), int), np.zeros(12), np.zeros((12, 2))])
@pytest.mark.parametrize("name", sorted(set(PARTITIONS) - {"by_writer"}))
def test_partitions_that_go_by_labels_refuse_other_targets(name, targets):
    workers = ["a/w0", "b/w0", "c/w0"]
    if name in ("iid", "size_skew"):
        parts = partition(PartitionConfig(name), targets, workers, 0)
        assert sorted(np.concatenate(list(parts.values()))) == list(range(12))
        return
    with pytest.raises(ConfigError, match=rf"partition\.name = '{name}'.*use iid or size_skew"):
        partition(PartitionConfig(name), targets, workers, 0)


def test_describe_shows_sizes_where_there_are_no_labels(tmp_path, capsys):
    tokens = DRAW.integers(0, 9, (12, 6))
    path = written(tmp_path, train_x=tokens, test_x=tokens).path
    assert main(["describe", "--data", "npz", "--path", path, "--format", "json"]) == 0
    assert '"labels": [\n        4\n      ]' in capsys.readouterr().out
