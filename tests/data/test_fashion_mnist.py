"""Where Fashion-MNIST is found on disk, and what is said when it is not, or is damaged."""

import gzip
import shutil

import numpy as np
import pytest
from idx_samples import assert_sound, idx_bytes, small_set

from geojax.data import fashion_mnist, load_dataset
from geojax.data.dataset import FilesConfig
from geojax.data.idx import cache_folder, read_all
from geojax.errors import ConfigError, DataError

DEBIAN = fashion_mnist.DEBIAN_FOLDER
needs_debian = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="needs the Debian package dataset-fashion-mnist"
)


@needs_debian
def test_fashion_mnist_of_the_debian_package(nowhere, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", DEBIAN)
    data = load_dataset(FilesConfig(download=False))
    assert_sound(data, 60_000, 10_000, (28, 28, 1))
    assert np.bincount(data.train_y).tolist() == [6000] * 10
    assert np.bincount(data.test_y).tolist() == [1000] * 10
    assert data.train_x.mean() == pytest.approx(0.2860, abs=1e-4)
    assert data.train_x.std() == pytest.approx(0.3530, abs=1e-4)


@pytest.fixture
def small_fashion(nowhere, monkeypatch):
    """Small files in place of the published ones: (folder with them, arrays)."""
    files, arrays = small_set(fashion_mnist.FILES)
    monkeypatch.setattr(fashion_mnist, "FILES", tuple(files))
    folder = nowhere / "given"
    folder.mkdir()
    for item, array in zip(files, arrays, strict=True):
        (folder / f"{item.file}.gz").write_bytes(gzip.compress(idx_bytes(array)))
    return folder, arrays


def offline(folder):
    return FilesConfig(path=folder and str(folder), download=False)


def test_fashion_mnist_in_a_given_folder_gzipped_or_not(small_fashion):
    folder, arrays = small_fashion
    first = folder / f"{fashion_mnist.FILES[0].file}.gz"
    (folder / fashion_mnist.FILES[0].file).write_bytes(gzip.decompress(first.read_bytes()))
    first.unlink()
    data = load_dataset(offline(folder))
    np.testing.assert_array_equal(data.train_x[..., 0], arrays[0] / np.float32(255))
    np.testing.assert_array_equal(data.test_y, arrays[3])


def test_places_are_searched_in_order(small_fashion, monkeypatch):
    folder, _ = small_fashion
    shutil.copytree(folder, cache_folder("fashion-mnist"))
    assert len(load_dataset(offline(None)).train_y) == 30  # the cache alone
    debian = folder.parent / "debian"
    shutil.copytree(folder, debian)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", debian)
    for broken in (cache_folder("fashion-mnist"), debian, folder):
        assert len(load_dataset(offline(folder)).train_y) == 30  # nothing after is looked at
        for path in broken.iterdir():
            path.write_bytes(b"broken")
    with pytest.raises(DataError, match=str(folder)):
        load_dataset(offline(folder))


def test_a_folder_without_all_files_is_passed_over(small_fashion, monkeypatch):
    folder, _ = small_fashion
    shutil.copytree(folder, cache_folder("fashion-mnist"))
    next(folder.iterdir()).unlink()
    assert len(load_dataset(offline(folder)).train_y) == 30


def test_fashion_mnist_nowhere_says_what_to_do(nowhere):
    (nowhere / "given").mkdir()
    (nowhere / "given" / "train-labels-idx1-ubyte.gz").touch()
    with pytest.raises(DataError) as caught:
        load_dataset(offline(nowhere / "given"))
    message = str(caught.value)
    for part in (
        "data.download is false",
        f"{nowhere}/given (1 of 4 files)",
        f"{nowhere}/cache/geojax/fashion-mnist (0 of 4 files)",
        "apt-get install dataset-fashion-mnist",
        "train-images-idx3-ubyte.gz train-labels-idx1-ubyte.gz",
        f"into {nowhere}/cache/geojax/fashion-mnist",
        fashion_mnist.OFFICIAL_URL,
        "GEOJAX_FASHION_MNIST_URL",
    ):
        assert part in message


def test_a_given_folder_must_be_there(nowhere):
    with pytest.raises(ConfigError, match=r"data\.path = .*no such folder"):
        load_dataset(offline(nowhere / "typo"))


def test_a_file_that_vanishes_is_named(small_fashion, tmp_path):
    with pytest.raises(DataError, match="train-images-idx3-ubyte is gone"):
        read_all(fashion_mnist.FILES, tmp_path)


def rewrite(path, change):
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "no IDX file"),
        (lambda path: path.write_bytes(b"<html>not found</html>"), "no IDX file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "cannot be read"),
        (lambda path: path.write_bytes(b"\x1f\x8b" + b"x" * 50), "cannot be read"),
        (lambda path: rewrite(path, lambda b: b[:-1]), r"23536 bytes and holds only 23535"),
        (lambda path: rewrite(path, lambda b: b + b"\0"), r"23536 bytes and holds more"),
        (lambda path: rewrite(path, lambda b: b[:7] + b"\1" + b[8:]), "no IDX file"),
        (lambda path: rewrite(path, lambda b: b[:-1] + b"\xff"), "sha256 [0-9a-f]{64}, should be"),
    ],
    ids=["empty", "page", "cut", "noise", "short", "long", "shape", "pixel"],
)
def test_damaged_files_are_refused_by_name(small_fashion, damage, message):
    folder, _ = small_fashion
    path = folder / f"{fashion_mnist.FILES[0].file}.gz"
    damage(path)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(offline(folder))
    assert str(path) in str(caught.value)
    assert "delete or replace it" in str(caught.value)
