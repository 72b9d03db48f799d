"""What a data set is, and the one way to load it by its configured name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from geojax.config import DataConfig
from geojax.data.streams import stream
from geojax.errors import DataError
from geojax.registry import Registry
from geojax.settings import key


class Dataset(NamedTuple):
    """Images and labels, ready for training."""

    name: str
    train_x: np.ndarray  # float32 (samples, height, width, channels), in [0, 1]
    train_y: np.ndarray  # int32 (samples,), in [0, classes)
    test_x: np.ndarray  # as train_x
    test_y: np.ndarray  # as train_y
    classes: int


class Stored(NamedTuple):
    """Images and labels as their source stores them; :func:`load_dataset` cuts and scales them."""

    train_x: np.ndarray  # any number type; (samples, height, width) or (..., channels)
    train_y: np.ndarray  # any integer type (samples,)
    test_x: np.ndarray  # as train_x
    test_y: np.ndarray  # as train_y
    classes: int
    largest: float  # the stored pixel value that becomes 1.0; the smallest is 0


DATASETS: Registry[Callable[[Any], Stored]] = Registry("data.name", DataConfig)


@dataclass
class FilesConfig(DataConfig):
    """Keys of a data set that comes as files."""

    path: str | None = key(None, "folder to look in first")
    download: bool = key(True, "fetch the official files into a cache when found nowhere else")


def load_dataset(config: DataConfig) -> Dataset:
    """Loads the configured data set, from the nearest place that has it.

    Nothing here depends on the run's seed. With ``train_samples`` or ``test_samples`` the first
    so many samples of :func:`balanced_order` are kept, in their stored order: class shares stay
    those of the whole set, and a smaller subset lies within every larger one.

    Nodes of an emulated WAN cannot download: load once before they start.

    Raises:
      ConfigError: an unknown name, a folder that is not there, a limit below one.
      DataError: the data is missing, damaged, or has fewer samples than the limit.

    >>> digits = load_dataset(DataConfig(name="digits", train_samples=100))
    >>> digits.train_x.shape, digits.test_x.shape, digits.classes
    ((100, 8, 8, 1), (360, 8, 8, 1), 10)
    """
    stored = DATASETS.build(config)
    train = _kept(
        stored.train_y, config.train_samples, f"{config.name}'s training", "train_samples"
    )
    test = _kept(stored.test_y, config.test_samples, f"{config.name}'s test", "test_samples")
    return Dataset(
        name=config.name,
        train_x=_images(stored.train_x[train], stored.largest),
        train_y=stored.train_y[train].astype(np.int32),
        test_x=_images(stored.test_x[test], stored.largest),
        test_y=stored.test_y[test].astype(np.int32),
        classes=stored.classes,
    )


def balanced_order(labels: np.ndarray) -> np.ndarray:
    """A fixed shuffled order in which every prefix has the class shares of the whole.

    Each class is shuffled by itself; its r-th of n samples is then placed at (r + 1/2) / n. So a
    prefix holds each class in proportion, up to rounding.

    Args:
      labels: integers (samples,).

    Returns:
      Positions in ``labels``, int64 (samples,); the same in every process and run.
    """
    generator = stream("subset", 0)
    shuffled = generator.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.unique(labels, return_counts=True)[1]
    places = np.concatenate([(np.arange(n) + 0.5) / n for n in sizes]) if len(sizes) else []
    return by_class[np.lexsort((generator.random(len(labels)), places))]


def _kept(labels: np.ndarray, limit: int | None, what: str, name: str) -> np.ndarray | slice:
    """Which samples stay under ``limit``, in their stored order."""
    if limit is None:
        return slice(None)
    if limit > len(labels):
        raise DataError(
            f"data.{name} = {limit}: {what} set has {len(labels)} samples; "
            f"ask for at most {len(labels)}, or null for all of them"
        )
    return np.sort(balanced_order(labels)[:limit])


def _images(stored: np.ndarray, largest: float) -> np.ndarray:
    """Scaled to [0, 1], with a channel axis."""
    images = stored.astype(np.float32)
    images /= np.float32(largest)
    return images[..., np.newaxis] if images.ndim == 3 else images
