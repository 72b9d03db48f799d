"""Which part gets which samples: the members of ``partition`` and of ``device_partition``.

Every partition deals each sample to exactly one part and leaves no part without any. It is
fixed by what it goes by, the number of parts, its settings and a seed. The order of the samples
within a part means nothing: batches are shuffled. :mod:`geojax.data.dealing` deals by them.

``iid`` and ``size_skew`` work on any data. ``by_class``, ``dirichlet`` and ``shards`` go by labels:
they need one integer a sample, and refuse sequences and targets of floats. ``by_writer`` needs data
that knows who wrote each sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from geojax.config import PartitionConfig
from geojax.registry import Registry
from geojax.settings import key

# (settings, targets, number of parts, randomness) -> positions in ``targets``, one array a part
Split = Callable[[Any, np.ndarray, int, np.random.Generator], list[np.ndarray]]
S = TypeVar("S", bound=Split)

PARTITIONS: Registry[Split] = Registry("partition.name", PartitionConfig)
DEVICE_PARTITIONS = PARTITIONS.under("device_partition.name")

DRAWS = 1000  # before draws that leave a part too small are given up


class Undealable(Exception):
    """Samples cannot be dealt; whoever deals them says to whom, see :mod:`geojax.data.dealing`.

    Args:
      problem: with ``{each}`` for what a part is for, ``{group}`` for the group of the settings.
      fix: with these, and ``{fewer}`` and ``{more}`` for the keys that make fewer parts and more
        samples.
    """

    def __init__(self, problem: str, fix: str):
        self.problem, self.fix = problem, fix
        super().__init__(problem)


def goes_by(what: str) -> Callable[[S], S]:
    """Says what a partition goes by, if not by targets of any kind.

    Args:
      what: ``labels``: targets must be integers of classes, one a sample. ``writers``: it gets who
        wrote each sample (integers) in place of the targets.
    """

    def mark(split: S) -> S:
        split.goes_by = what  # type: ignore[attr-defined]
        return split

    return mark


def require(samples: int, least: int, why: str, also: str = "") -> None:
    """Raises Undealable when there are fewer ``samples`` than ``least``; ``also``: another fix."""
    if samples < least:
        problem = f"{why}, {least} in all, but the data has {samples} samples"
        raise Undealable(problem, f"use {{fewer}}{also}, or {{more}}")


@PARTITIONS.register("iid")
def iid(
    _: PartitionConfig, labels: np.ndarray, parts: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Shuffled, then cut into parts of equal size (±1)."""
    return np.array_split(generator.permutation(len(labels)), parts)


@PARTITIONS.register("by_class")
@goes_by("labels")
def by_class(
    _config: PartitionConfig, labels: np.ndarray, parts: int, _: np.random.Generator
) -> list[np.ndarray]:
    """Sorted by label, stably, then cut into parts of equal size (±1), as GeoMX's examples do.

    GeoMX leaves out the last ``samples mod parts``; here they are dealt too.
    """
    return np.array_split(np.argsort(labels, kind="stable"), parts)


@dataclass
class DirichletConfig(PartitionConfig):
    """Keys of ``partition=dirichlet``."""

    name: str = "dirichlet"
    alpha: float = key(
        0.5, "concentration; a smaller one is more skewed, a large one iid", above=0, most=1e9
    )
    min_samples: int = key(1, "draws with a smaller part are drawn again", least=1)


@PARTITIONS.register("dirichlet", DirichletConfig)
@goes_by("labels")
def dirichlet(
    config: DirichletConfig, labels: np.ndarray, parts: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Label skew of concentration ``alpha``: each class is shared out by a Dirichlet(alpha) draw.

    alpha → ∞ is iid, alpha → 0 gives each class to one worker. Hsu, Qi, Brown 2019 (arXiv
    1909.06335) draw a mix of classes for every worker, with parts of one size, which cannot deal
    a given set completely. We draw, for every class, its shares over the workers (the form of
    Yurochkin et al. 2019, arXiv 1905.12022), which deals every sample once; so sizes differ too.
    Draws that leave a part with fewer than ``min_samples`` are drawn again, from the same stream.
    """
    alpha, least = config.alpha, config.min_samples
    require(
        len(labels),
        parts * least,
        f"{parts} {{each}}s with {{group}}.min_samples = {least} need so many each",
        ", a smaller {group}.min_samples",
    )
    sizes = np.unique(labels, return_counts=True)[1]
    for _ in range(DRAWS):
        shares = generator.dirichlet(np.full(parts, alpha), size=len(sizes))
        stops = np.rint(np.cumsum(shares, axis=1)[:, :-1] * sizes[:, np.newaxis]).astype(np.int64)
        ends = np.concatenate([np.zeros_like(sizes)[:, None], stops, sizes[:, None]], axis=1)
        if np.diff(ends, axis=1).sum(axis=0).min() >= least:
            break
    else:
        small = "empty" if least == 1 else f"with fewer than {least} samples"
        problem = (
            f"{len(labels)} samples in {len(sizes)} classes leave one of {parts} {{each}}s {small} "
            f"in {DRAWS} draws with {{group}}.alpha = {alpha:g}"
        )
        raise Undealable(problem, "use a larger {group}.alpha, {fewer}, or {more}")
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
@goes_by("labels")
def shards(
    config: ShardsConfig, labels: np.ndarray, parts: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Sorted by label, cut into ``shards`` pieces per worker, dealt at random.

    The pathological non-IID split of McMahan et al. 2017 (arXiv 1602.05629, §3), where 2 shards
    give most workers two classes.
    """
    count = parts * config.shards
    why = f"{parts} {{each}}s with {config.shards} shards each need a sample per shard"
    require(len(labels), count, why, ", fewer shards ({group}.shards)")
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
        why = f"{parts} {{each}}s with {{group}}.skew = {skew:g} need a sample in the smallest part"
        require(len(labels), least, why, ", a smaller {group}.skew")
    sizes = np.floor(ideal).astype(np.int64)
    behind = np.argsort(sizes - ideal, kind="stable")  # largest remainder first
    sizes[behind[: len(labels) - sizes.sum()]] += 1
    return np.split(generator.permutation(len(labels)), np.cumsum(sizes)[:-1])


@dataclass
class ByWriterConfig(PartitionConfig):
    """Keys of ``partition=by_writer``."""

    name: str = "by_writer"
    grouping: str = key(
        "uniform",
        "each writer draws its part by itself (uniform), or parts get equally many (even)",
        choices=("even", "uniform"),
    )


@PARTITIONS.register("by_writer", ByWriterConfig)
@goes_by("writers")
def by_writer(
    config: ByWriterConfig, writers: np.ndarray, parts: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Whole writers: all samples of one go to the same part.

    With as many parts as writers, part k gets the k-th writer in ascending order. ``uniform`` is
    how FedGS groups the devices of FEMNIST (Li et al. 2022, arXiv 2202.01512; in the authors'
    code, ``main.py``): each draws one of the parts, independently and uniformly, so groups are
    uneven; draws that leave a part without a writer are drawn again. ``even`` shuffles the
    writers and cuts them into parts that differ by one writer at most.
    """
    found, of = np.unique(writers, return_inverse=True)
    if len(found) < parts:
        has = f"{len(writers)} samples are by {len(found)}"
        problem = f"{parts} {{each}}s need a writer each, but {has}"
        raise Undealable(problem, "use {fewer}, or {more}")
    if len(found) == parts:
        chosen = np.arange(parts)
    elif config.grouping == "even":
        chosen = np.empty(len(found), np.int64)
        for part, some in enumerate(np.array_split(generator.permutation(len(found)), parts)):
            chosen[some] = part
    else:
        chosen = _uniform(len(found), parts, generator)
    ordered = np.argsort(chosen[of], kind="stable")
    sizes = np.bincount(chosen[of], minlength=parts)
    return np.split(ordered, np.cumsum(sizes)[:-1])


def _uniform(writers: int, parts: int, generator: np.random.Generator) -> np.ndarray:
    """The part of each writer, drawn until none is empty."""
    for _ in range(DRAWS):
        chosen = generator.integers(0, parts, writers)
        if np.bincount(chosen, minlength=parts).all():
            return chosen
    problem = f"{writers} writers leave one of {parts} {{each}}s without any in {DRAWS} draws"
    raise Undealable(problem, "use {group}.grouping=even, {fewer}, or {more}")
