"""What a model sees of the configured data; needs no JAX."""

from __future__ import annotations

from typing import Any

import numpy as np

from geojax.center.shared import shared
from geojax.config import DataConfig, RunConfig
from geojax.data.dataset import DATASETS, load_dataset
from geojax.errors import ConfigError, DataError
from geojax.models.inputs import Inputs, Values, labelled

# So that a process that holds parameters but no data need not load any.
_KNOWN = {
    "fashion_mnist": labelled((28, 28, 1), 10),
    "mnist": labelled((28, 28, 1), 10),
    "digits": labelled((8, 8, 1), 10),
    "femnist": labelled((28, 28, 1), 62),
    "synth_femnist": labelled((28, 28, 1), 62),
}


def inputs_of(config: DataConfig) -> Inputs:
    """What an example of the configured data set looks like.

    >>> inputs_of(DataConfig(name="digits")).sample
    Values(shape=(8, 8, 1), classes=0)
    """
    if config.name not in DATASETS:
        DATASETS[config.name]  # refuses the name, and says which ones there are
    if config.name in _KNOWN:
        return _KNOWN[config.name]
    keep = {**vars(DATASETS.complete(config)), "train_samples": 1, "test_samples": 1}
    return _loaded(DATASETS.settings(config.name, **{k: v for k, v in keep.items() if k != "name"}))


@shared
def _loaded(config: Any) -> Inputs:
    data = load_dataset(config)
    return Inputs(
        Values(data.train_x.shape[1:], data.tokens), Values(data.train_y.shape[1:], data.classes)
    )


def checked(
    config: RunConfig, features: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Samples and targets as the model and the loss take them: float32 or int32, contiguous.

    Raises:
      DataError: they do not belong together, or not to the configured data set.
    """
    inputs = inputs_of(config.data)
    name = config.data.name
    if len(features) != len(labels) or len(features) == 0:
        raise DataError(f"{name}: {len(features)} samples with {len(labels)} labels; give both")
    return (
        _as(inputs.sample, features, f"{name}: samples"),
        _as(inputs.target, labels, f"{name}: labels"),
    )


def _as(values: Values, array: np.ndarray, what: str) -> np.ndarray:
    if tuple(array.shape[1:]) != values.shape:
        raise DataError(f"{what} of shape {tuple(array.shape[1:])}, expected {values.shape}")
    made = np.ascontiguousarray(array, values.dtype)
    if values.classes and (made.min() < 0 or made.max() >= values.classes):
        found = f"{what} from {made.min()} to {made.max()}"
        raise DataError(f"{found}, expected 0 to {values.classes - 1}")
    return made


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
