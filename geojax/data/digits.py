"""The digits of scikit-learn: 1,797 grey images, 8x8, 10 classes. Tiny, always there, for tests.

Source: Alpaydin, Kaynak 1998, test part of "Optical Recognition of Handwritten Digits" (UCI).
"""

from __future__ import annotations

import numpy as np

from geojax.config import DataConfig
from geojax.data.dataset import DATASETS, Stored

TRAIN_SAMPLES = 1437  # the other 360 are the test set


@DATASETS.register("digits")
def digits(_: DataConfig) -> Stored:
    """Split by row order: the first 1,437 rows train, the last 360 test.

    The rows are in the order of their 13 writers, so most test images are by people whose hand
    was not trained on; a shuffled split would leak every writer. Classes are nearly balanced in
    both parts, as each writer wrote all digits.
    """
    from sklearn.datasets import load_digits  # takes a second, and only this data set needs it

    pixels, labels = (np.asarray(array) for array in load_digits(return_X_y=True))
    images = pixels.reshape(-1, 8, 8)
    return Stored(
        images[:TRAIN_SAMPLES],
        labels[:TRAIN_SAMPLES],
        images[TRAIN_SAMPLES:],
        labels[TRAIN_SAMPLES:],
        classes=10,
        largest=16,
    )
