"""What a model sees: the shape of a sample and the number of classes; needs no JAX."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from geojax.config import DataConfig, RunConfig
from geojax.data.dataset import DATASETS, load_dataset
from geojax.errors import ConfigError, DataError


class Inputs(NamedTuple):
    """Shape of one sample (height, width, channels) and number of classes."""

    shape: tuple[int, ...]
    classes: int


# So that a process that holds parameters but no data need not load any.
_KNOWN = {
    "fashion_mnist": Inputs((28, 28, 1), 10),
    "mnist": Inputs((28, 28, 1), 10),
    "digits": Inputs((8, 8, 1), 10),
}


def inputs_of(config: DataConfig) -> Inputs:
    """What the samples of the configured data set look like.

    >>> inputs_of(DataConfig(name="digits"))
    Inputs(shape=(8, 8, 1), classes=10)
    """
    if config.name not in DATASETS:
        DATASETS[config.name]  # refuses the name, and says which ones there are
    if config.name in _KNOWN:
        return _KNOWN[config.name]
    return _loaded(tuple(sorted(vars(DATASETS.complete(config)).items())))


@functools.lru_cache
def _loaded(keys: tuple[tuple[str, Any], ...]) -> Inputs:
    keep = {**dict(keys), "train_samples": 1, "test_samples": 1}
    dataset = load_dataset(DATASETS.settings(keep["name"], **keep))
    return Inputs(dataset.train_x.shape[1:], dataset.classes)


def checked(
    config: RunConfig, features: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Samples as float32 and labels as int32, both contiguous.

    Raises:
      DataError: they do not belong together, or not to the configured data set.
    """
    shape, classes = inputs_of(config.data)
    name = config.data.name
    if len(features) != len(labels) or len(features) == 0:
        raise DataError(f"{name}: {len(features)} samples with {len(labels)} labels; give both")
    if tuple(features.shape[1:]) != shape:
        raise DataError(f"{name}: samples of shape {tuple(features.shape[1:])}, expected {shape}")
    labels = np.ascontiguousarray(labels, np.int32)
    if labels.min() < 0 or labels.max() >= classes:
        found = f"labels from {labels.min()} to {labels.max()}"
        raise DataError(f"{name}: {found}, expected 0 to {classes - 1}")
    return np.ascontiguousarray(features, np.float32), labels


def split_size(batch_size: int, devices: int) -> int:
    """Samples per device of one batch.

    >>> split_size(32, 2)
    16

    Raises:
      ConfigError: the batch cannot be split evenly.
    """
    if batch_size < 1:
        raise ConfigError("batch_size", batch_size, "use a batch of at least 1 sample")
    if batch_size % devices:
        fix = (
            f"must be a multiple of the {devices} devices of a worker (testbed.devices, or the "
            f"visible accelerators); try {-(-batch_size // devices) * devices}"
        )
        raise ConfigError("batch_size", batch_size, fix)
    return batch_size // devices
