"""The digits of scikit-learn: 1,797 grey images, 8x8, 10 classes. Tiny, always there, for tests.

Source: Alpaydin, Kaynak 1998, test part of "Optical Recognition of Handwritten Digits" (UCI).
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from geojax.config import DataConfig
from geojax.data.dataset import DATASETS, Stored
from geojax.errors import DataError

TRAIN_SAMPLES = 1437  # the other 360 are the test set
_FILE = "datasets/data/digits.csv.gz"  # in scikit-learn: a row an image, 64 pixels and the label


@DATASETS.register("digits")
def digits(_: DataConfig) -> Stored:
    """Split by row order: the first 1,437 rows train, the last 360 test.

    The rows are in the order of their 13 writers, so most test images are by people whose hand
    was not trained on; a shuffled split would leak every writer. Classes are nearly balanced in
    both parts, as each writer wrote all digits.

    The file is read without loading scikit-learn, which takes longer than the start of a node.

    Raises:
      DataError: the installed scikit-learn has no such file.
    """
    rows = _rows(_file())
    images, labels = rows[:, :64].reshape(-1, 8, 8), rows[:, 64].astype(int)
    return Stored(
        images[:TRAIN_SAMPLES],
        labels[:TRAIN_SAMPLES],
        images[TRAIN_SAMPLES:],
        labels[TRAIN_SAMPLES:],
        classes=10,
        largest=16,
    )


@functools.cache
def _rows(file: Path) -> np.ndarray:
    rows = np.loadtxt(file, delimiter=",")
    rows.flags.writeable = False
    return rows


def _file() -> Path:
    package = find_spec("sklearn")
    file = Path(package.origin).parent / _FILE if package and package.origin else None
    if file is None or not file.is_file():
        raise DataError(f"scikit-learn with its {_FILE} is not installed: pip install scikit-learn")
    return file
