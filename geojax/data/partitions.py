"""Which worker holds which part of the training data.

Every partition deals each sample to exactly one worker and leaves no worker without any. It is
fixed by the targets, the number of workers, its settings and a seed. The order of the samples
within a part means nothing: workers shuffle them.

``iid`` and ``size_skew`` work on any data. ``by_class``, ``dirichlet`` and ``shards`` go by labels:
they need one integer a sample, and refuse sequences and targets of floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geojax.config import PartitionConfig
from geojax.data.dataset import has_labels
from geojax.data.streams import stream
from geojax.errors import ConfigError, DataError
from geojax.registry import Registry
from geojax.settings import key

# (settings, targets, number of parts, randomness) -> positions in ``targets``, one array a part
Split = Callable[[Any, np.ndarray, int, np.random.Generator], list[np.ndarray]]

PARTITIONS: Registry[Split] = Registry("partition.name", PartitionConfig)

DIRICHLET_DRAWS = 1000  # before a draw that leaves no worker empty is given up


def partition(
    config: PartitionConfig, labels: np.ndarray, workers: Sequence[str], seed: int
) -> dict[str, np.ndarray]:
    """Deals the samples to the workers.

    Args:
      config: which partition, and its settings.
      labels: target of every sample (samples, ...); the integer of its class, if it has one.
      workers: all workers of the run by name, in their fixed order.
      seed: the run's seed; ``config.seed`` goes before it.

    Returns:
      For every worker the positions of its samples in ``labels``, int64.

    Raises:
      ConfigError: an unknown partition, one that needs labels where there are none, or a setting
        outside its range; or an own one does not deal every sample once.
      DataError: too few samples for so many workers.

    >>> parts = partition(PartitionConfig("by_class"), np.array([1, 0, 1, 0]), ["a/w0", "b/w0"], 0)
    >>> {worker: part.tolist() for worker, part in parts.items()}
    {'a/w0': [1, 3], 'b/w0': [0, 2]}
    """
    PARTITIONS[config.name]
    if len(set(workers)) != len(workers) or not workers:
        raise ValueError(f"workers must have different names, at least one: {list(workers)}")
    require(len(labels), len(workers), f"{len(workers)} workers need a sample each")
    chosen = seed if config.seed is None else config.seed
    draws = stream("partition", chosen)
    parts = PARTITIONS.build(config, labels, len(workers), draws)
    once = np.array_equal(np.sort(np.concatenate([[], *parts])), np.arange(len(labels)))
    if not once or len(parts) != len(workers) or not all(map(len, parts)):
        sizes = ", ".join(str(len(part)) for part in parts)
        fix = f"deal each of {len(labels)} samples once, and some to each of {len(workers)} workers"
        raise ConfigError("partition.name", config.name, f"{fix}; it made parts of {sizes}")
    return {
        worker: part.astype(np.int64, copy=False)
        for worker, part in zip(workers, parts, strict=True)
    }


def require(samples: int, least: int, why: str, also: str = "") -> None:
    """Raises a DataError when there are fewer ``samples`` than ``least``; ``also``: another fix."""
    if samples < least:
        raise DataError(
            f"{why}, {least} in all, but the data has {samples} samples; use fewer centers or "
            f"workers (wan, lan.workers){also}, or more data (data.train_samples, data.name)"
        )


def need_labels(config: PartitionConfig, targets: np.ndarray) -> None:
    """Raises a ConfigError unless every target is the integer label of a class."""
    if not has_labels(targets):
        found = f"{targets.dtype} targets of shape {targets.shape}"
        fix = f"goes by labels, one integer a sample, but the data has {found}"
        raise ConfigError("partition.name", config.name, f"{fix}; use iid or size_skew")


@PARTITIONS.register("iid")
def iid(
    _: PartitionConfig, labels: np.ndarray, parts: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Shuffled, then cut into parts of equal size (±1)."""
    return np.array_split(generator.permutation(len(labels)), parts)


@PARTITIONS.register("by_class")
def by_class(
    config: PartitionConfig, labels: np.ndarray, parts: int, _: np.random.Generator
) -> list[np.ndarray]:
    """Sorted by label, stably, then cut into parts of equal size (±1), as GeoMX's examples do.

    GeoMX leaves out the last ``samples mod parts``; here they are dealt too.
    """
    need_labels(config, labels)
    return np.array_split(np.argsort(labels, kind="stable"), parts)


@dataclass
class DirichletConfig(PartitionConfig):
    """Keys of ``partition=dirichlet``."""

    name: str = "dirichlet"
    alpha: float = key(0.5, "concentration; a smaller one is more skewed", above=0)


@PARTITIONS.register("dirichlet", DirichletConfig)
def dirichlet(
    config: DirichletConfig, labels: np.ndarray, parts: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Label skew of concentration ``alpha``: each class is shared out by a Dirichlet(alpha) draw.

    alpha → ∞ is iid, alpha → 0 gives each class to one worker. Hsu, Qi, Brown 2019 (arXiv
    1909.06335) draw a mix of classes for every worker, with parts of one size, which cannot deal
    a given set completely. We draw, for every class, its shares over the workers (the form of
    Yurochkin et al. 2019, arXiv 1905.12022), which deals every sample once; so sizes differ too.
    Draws that leave a worker empty are drawn again, from the same stream.
    """
    need_labels(config, labels)
    alpha = config.alpha
    sizes = np.unique(labels, return_counts=True)[1]
    for _ in range(DIRICHLET_DRAWS):
        shares = generator.dirichlet(np.full(parts, alpha), size=len(sizes))
        stops = np.rint(np.cumsum(shares, axis=1)[:, :-1] * sizes[:, np.newaxis]).astype(np.int64)
        ends = np.concatenate([np.zeros_like(sizes)[:, None], stops, sizes[:, None]], axis=1)
        if np.diff(ends, axis=1).sum(axis=0).min() > 0:
            break
    else:
        raise DataError(
            f"{len(labels)} samples in {len(sizes)} classes leave one of {parts} workers empty in "
            f"{DIRICHLET_DRAWS} draws with partition.alpha = {alpha:g}; use a larger alpha, fewer "
            "centers or workers (wan, lan.workers), or more data (data.train_samples, data.name)"
        )
    shuffled = generator.permutation(len(labels))
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    pieces = [
        np.split(members, cuts)
        for members, cuts in zip(np.split(ordered, np.cumsum(sizes)[:-1]), stops, strict=True)
    ]
    return [np.concatenate(column) for column in zip(*pieces, strict=True)]


@dataclass
class ShardsConfig(PartitionConfig):
    """Keys of ``partition=shards``."""

    name: str = "shards"
    shards: int = key(2, "label-sorted pieces per worker", least=1)


@PARTITIONS.register("shards", ShardsConfig)
def shards(
    config: ShardsConfig, labels: np.ndarray, parts: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Sorted by label, cut into ``shards`` pieces per worker, dealt at random.

    The pathological non-IID split of McMahan et al. 2017 (arXiv 1602.05629, §3), where 2 shards
    give most workers two classes.
    """
    need_labels(config, labels)
    count = parts * config.shards
    why = f"{parts} workers with {config.shards} shards each need a sample per shard"
    require(len(labels), count, why, ", fewer shards (partition.shards)")
    pieces = np.array_split(np.argsort(labels, kind="stable"), count)
    hands = generator.permutation(count).reshape(parts, config.shards)
    return [np.concatenate([pieces[i] for i in hand]) for hand in hands]


@dataclass
class SizeSkewConfig(PartitionConfig):
    """Keys of ``partition=size_skew``."""

    name: str = "size_skew"
    skew: float = key(2.0, "largest part ÷ smallest part", least=1)


@PARTITIONS.register("size_skew", SizeSkewConfig)
def size_skew(
    config: SizeSkewConfig, labels: np.ndarray, parts: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Labels as in iid; sizes fall geometrically, from the first worker's to 1/``skew`` of it."""
    skew = config.skew
    weights = skew ** -np.linspace(0, 1, parts)
    ideal = len(labels) * weights / weights.sum()
    if ideal[-1] < 1 - 1e-9:
        least = math.ceil(round(weights.sum() / weights[-1], 6))
        why = f"{parts} workers with partition.skew = {skew:g} need a sample in the smallest part"
        require(len(labels), least, why, ", a smaller partition.skew")
    sizes = np.floor(ideal).astype(np.int64)
    behind = np.argsort(sizes - ideal, kind="stable")  # largest remainder first
    sizes[behind[: len(labels) - sizes.sum()]] += 1
    return np.split(generator.permutation(len(labels)), np.cumsum(sizes)[:-1])
