"""What a data set is, and the one way to load it by its configured name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from geojax.config import DataConfig
from geojax.data.streams import stream
from geojax.errors import DataError
from geojax.registry import Registry
from geojax.settings import key

ALIGNED = 64  # bytes


class Dataset(NamedTuple):
    """Samples and targets, ready for training; of any shapes.

    Labels are int32 (samples,) in [0, classes), sequences of tokens int32 (samples, length); other
    targets are float32 and have no classes.
    """

    name: str
    train_x: np.ndarray  # float32 (samples, ...), images in [0, 1]; or int32 in [0, tokens)
    train_y: np.ndarray  # int32 (samples, ...) in [0, classes), or float32
    test_x: np.ndarray  # as train_x
    test_y: np.ndarray  # as train_y
    classes: int  # 0: targets are float32
    tokens: int = 0  # 0: samples are float32
    train_groups: np.ndarray | None = None  # int32 (samples,): who wrote each; None: unknown


class Stored(NamedTuple):
    """Samples and targets as their source has them; :func:`load_dataset` cuts and scales them."""

    train_x: np.ndarray  # of numbers; images: (samples, height, width) or (..., channels)
    train_y: np.ndarray  # integers if there are classes, else floats
    test_x: np.ndarray  # as train_x
    test_y: np.ndarray  # as train_y
    classes: int  # how many different integers targets hold, from 0 on; 0: they are floats
    largest: float | None = None  # images: the pixel value that becomes 1.0; None: no images
    tokens: int = 0  # how many different integers samples hold, from 0 on; 0: they are floats
    train_groups: np.ndarray | None = None  # integers (samples,): who wrote each; None: unknown


DATASETS: Registry[Callable[[Any], Stored]] = Registry("data.name", DataConfig)
"""Sources of data. An own one is a function that registers itself and returns its arrays::

    @DATASETS.register("mine", MineConfig)
    def mine(config: MineConfig) -> Stored:
        return stored(*read(config.path), "mine")  # see geojax.data.npz
"""


@dataclass
class FilesConfig(DataConfig):
    """Keys of a data set that comes as files."""

    path: str | None = key(None, "folder to look in first; null: only the usual places")
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
    groups = stored.train_groups
    if groups is not None and groups.shape != stored.train_y.shape[:1]:
        raise DataError(
            f"{config.name}: writers of shape {groups.shape} for {len(stored.train_y)} training "
            "samples; name the writer of each sample, or of none"
        )
    return Dataset(
        name=config.name,
        train_x=_samples(stored.train_x[train], stored),
        train_y=stored.train_y[train].astype(np.int32 if stored.classes else np.float32),
        test_x=_samples(stored.test_x[test], stored),
        test_y=stored.test_y[test].astype(np.int32 if stored.classes else np.float32),
        classes=stored.classes,
        tokens=stored.tokens,
        train_groups=None if groups is None else groups[train].astype(np.int32),
    )


def has_labels(targets: np.ndarray) -> bool:
    """Whether every target is the integer label of a class.

    >>> has_labels(np.array([1, 0])), has_labels(np.array([0.5, 0.1])), has_labels(np.eye(2, 3))
    (True, False, False)
    """
    return targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer)


def balanced_order(labels: np.ndarray) -> np.ndarray:
    """A fixed shuffled order in which every prefix has the class shares of the whole.

    Each class is shuffled by itself; its r-th of n samples is then placed at (r + 1/2) / n. So a
    prefix holds each class in proportion, up to rounding. Targets that are no labels are one class.

    Args:
      labels: targets (samples, ...).

    Returns:
      Positions in ``labels``, int64 (samples,); the same in every process and run.
    """
    if not has_labels(labels):
        labels = np.zeros(len(labels), np.int32)
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


def _samples(samples: np.ndarray, stored: Stored) -> np.ndarray:
    """Tokens as int32, all else as float32; images scaled to [0, 1], with a channel axis."""
    made = _aligned(samples.shape, np.dtype(np.int32 if stored.tokens else np.float32))
    made[...] = samples
    if stored.tokens or stored.largest is None:
        return made
    made /= np.float32(stored.largest)
    return made[..., np.newaxis] if made.ndim == 3 else made


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array that begins at a multiple of 64 bytes, so that JAX need not copy it."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNED, np.uint8)
    start = -memory.ctypes.data % ALIGNED
    return memory[start : start + size].view(dtype).reshape(shape)
