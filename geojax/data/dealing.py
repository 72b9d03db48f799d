"""Deals samples: those of the data set to the workers, those of a worker to its devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from geojax.config import PartitionConfig
from geojax.data.dataset import has_labels
from geojax.data.partitions import DEVICE_PARTITIONS, PARTITIONS, Split, Undealable, require
from geojax.data.streams import stream
from geojax.errors import ConfigError, DataError
from geojax.registry import Registry


class _Receivers(NamedTuple):
    """Whom samples are dealt to, in the words of an error."""

    members: Registry[Split]
    each: str
    fewer: str
    more: str

    def told(self, problem: Undealable) -> str:
        words = {"group": self.members.group, **self._asdict()}
        return f"{problem.problem}; {problem.fix}".format(**words)


_WORKERS = _Receivers(
    PARTITIONS,
    "worker",
    "fewer centers or workers (wan, lan.workers)",
    "more data (data.train_samples, data.name)",
)
_DEVICES = _Receivers(
    DEVICE_PARTITIONS,
    "device",
    "fewer devices (devices.count)",
    "fewer centers or workers (wan, lan.workers), which then hold more data each",
)


def partition(
    config: PartitionConfig,
    labels: np.ndarray,
    workers: Sequence[str],
    seed: int,
    groups: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Deals the samples to the workers.

    Args:
      config: which partition, and its settings.
      labels: target of every sample (samples, ...); the integer of its class, if it has one.
      workers: all workers of the run by name, in their fixed order.
      seed: the run's seed; ``config.seed`` goes before it.
      groups: writer of every sample, integers (samples,); None: unknown.

    Returns:
      For every worker the positions of its samples in ``labels``, int64.

    Raises:
      ConfigError: an unknown partition, one that needs labels or writers where there are none, or
        a setting outside its range; or an own one does not deal every sample once.
      DataError: too few samples or writers for so many workers.

    >>> parts = partition(PartitionConfig("by_class"), np.array([1, 0, 1, 0]), ["a/w0", "b/w0"], 0)
    >>> {worker: part.tolist() for worker, part in parts.items()}
    {'a/w0': [1, 3], 'b/w0': [0, 2]}
    """
    PARTITIONS[config.name]
    if len(set(workers)) != len(workers) or not workers:
        raise ValueError(f"workers must have different names, at least one: {list(workers)}")
    draws = stream("partition", seed if config.seed is None else config.seed)
    parts = _deal(config, labels, groups, len(workers), draws, _WORKERS)
    return dict(zip(workers, parts, strict=True))


def deal_devices(
    config: PartitionConfig,
    positions: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None,
    count: int | None,
    seed: int,
    *,
    worker: int = 0,
    batch_size: int = 1,
    name: str = "",
) -> list[np.ndarray]:
    """Deals the samples of one worker to the devices behind it.

    Args:
      config: ``device_partition``.
      positions: where the worker's samples are in the data set, int64, as :func:`partition` says.
      labels: target of every sample of the data set (samples, ...).
      groups: writer of every sample of the data set, integers (samples,); None: unknown.
      count: devices; None: one a writer, in ascending order of writers (``by_writer`` only).
      seed: the run's seed; ``config.seed`` goes before it.
      worker: its index, counted over all centers: workers draw independently of each other.
      batch_size: samples of a device's batch; a device must hold half of one at least.
      name: of the worker, for error messages.

    Returns:
      For every device the positions of its samples in the data set, int64.

    Raises:
      ConfigError: as :func:`partition`; a number of devices below one, or none stated where
        devices are not writers.
      DataError: too few samples or writers for so many devices; a device with less than half a
        batch.

    >>> deal_devices(PartitionConfig("by_class"), np.array([4, 2, 0]), np.arange(5), None, 3, 0)
    [array([0]), array([2]), array([4])]
    """
    split = DEVICE_PARTITIONS[config.name]
    if count is None:
        if getattr(split, "goes_by", "") != "writers":
            fix = "null is one device a writer, for device_partition=by_writer; give a number"
            raise ConfigError("devices.count", None, fix)
        own = [] if groups is None else groups[positions]
        count = max(len(np.unique(own)), 1)
    if count < 1:
        raise ConfigError("devices.count", count, "give at least one device")
    draws = stream("devices", seed if config.seed is None else config.seed, worker)
    own_groups = None if groups is None else groups[positions]
    try:
        parts = _deal(config, labels[positions], own_groups, count, draws, _DEVICES)
    except DataError as problem:
        raise DataError(f"{name or f'worker {worker}'}: {problem}") from problem
    sizes = [len(part) for part in parts]
    least = -(-batch_size // 2)
    if min(sizes) < least:
        reads = [key for key in ("min_samples", "alpha") if hasattr(config, key)]
        larger = "".join(f", a larger device_partition.{key}" for key in reads)
        raise DataError(
            f"{name or f'worker {worker}'}: device {int(np.argmin(sizes))} of {count} has "
            f"{min(sizes)} samples, fewer than half a batch (batch_size = {batch_size}, so at "
            f"least {least}); use a smaller batch_size, {_DEVICES.fewer}{larger}, or "
            f"{_DEVICES.more}"
        )
    return [positions[part].astype(np.int64, copy=False) for part in parts]


def _deal(
    config: PartitionConfig,
    labels: np.ndarray,
    groups: np.ndarray | None,
    count: int,
    draws: np.random.Generator,
    to: _Receivers,
) -> list[np.ndarray]:
    """Positions in ``labels`` of each of ``count`` parts, checked."""
    split = to.members[config.name]
    what = getattr(split, "goes_by", "")
    try:
        require(len(labels), count, f"{count} {{each}}s need a sample each")
        parts = to.members.build(config, _by(what, config, labels, groups, to), count, draws)
    except Undealable as problem:
        raise DataError(to.told(problem)) from problem
    once = np.array_equal(np.sort(np.concatenate([[], *parts])), np.arange(len(labels)))
    if not once or len(parts) != count or not all(map(len, parts)):
        sizes = ", ".join(str(len(part)) for part in parts)
        fix = f"deal each of {len(labels)} samples once, and some to each of {count} {to.each}s"
        raise ConfigError(to.members.key, config.name, f"{fix}; it made parts of {sizes}")
    return [part.astype(np.int64, copy=False) for part in parts]


def _by(
    what: str,
    config: PartitionConfig,
    labels: np.ndarray,
    groups: np.ndarray | None,
    to: _Receivers,
) -> np.ndarray:
    """What the partition goes by.

    Raises:
      ConfigError: the data does not have that.
    """
    if what == "writers":
        if groups is None:
            fix = (
                "goes by writers, and this data does not say who wrote its samples; use "
                "data=mnist with data.writers, data=femnist or data=synth_femnist, or another "
                f"{to.members.group}, such as dirichlet"
            )
            raise ConfigError(to.members.key, config.name, fix)
        return groups
    if what == "labels" and not has_labels(labels):
        found = f"{labels.dtype} targets of shape {labels.shape}"
        fix = f"goes by labels, one integer a sample, but the data has {found}"
        raise ConfigError(to.members.key, config.name, f"{fix}; use iid or size_skew")
    return labels
