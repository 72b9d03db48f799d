"""Cores that compute the steps of different nodes side by side.

A step's result is needed only when virtual time reaches the step's end. Until then it is a matter
of wall time alone who computes it, and when. So each worker has one of the cores, which computes
its steps one after the other; XLA has one thread for each of them, and events and parameters are
the same with any number of cores, bit for bit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from geojax.config import RunConfig
from geojax.hollow import SIZE_ONLY
from geojax.models.registry import SYNTHETIC


class Inline(Executor):
    """Does work at once, in the thread that submits it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See :class:`concurrent.futures.Executor`; the future is done."""
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
            done.set_exception(error)
        return done


def available() -> int:
    """Cores that this process may use: its affinity, and the limit of its control group.

    Counted as joblib does it, which is slow to load; ``LOKY_MAX_CPU_COUNT`` is a limit too.
    """
    counts = [os.cpu_count() or 1, int(os.environ.get("LOKY_MAX_CPU_COUNT", sys.maxsize))]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    counts += _of_control_group()
    return max(1, min(counts))


def _of_control_group(folder: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """The limit of Linux's control group, version 2 or 1, rounded up; empty: there is none."""
    limit, old = folder / "cpu.max", folder / "cpu"
    for files in ([limit], [old / "cpu.cfs_quota_us", old / "cpu.cfs_period_us"]):
        if all(file.is_file() for file in files):
            quota, period, *_ = " ".join(file.read_text() for file in files).split()
            return [] if quota == "max" or int(quota) <= 0 else [-(-int(quota) // int(period))]
    return []


def cores_of(config: RunConfig, workers: int) -> int:
    """How many cores compute the steps of a run's workers.

    One, where more bring nothing: for a model that computes nothing, and where the devices of a
    worker share each step, or the clients of a federated round.

    Args:
      config: the run.
      workers: how many there are, in all centers.
    """
    hollow = config.model.name == SYNTHETIC or config.compression.name == SIZE_ONLY
    if hollow or config.testbed.devices > 1 or not config.sync.splits_batches:
        return 1
    cores = available() if config.testbed.cores is None else config.testbed.cores
    return min(cores, workers)


def open_cores(config: RunConfig) -> list[Executor]:
    """An executor for each of ``testbed.cores``; one, where JAX has accelerators."""
    count = config.testbed.cores or 1
    if count > 1:
        from geojax.center import devices

        devices.configure(config.mesh_size)
        count = len(devices.devices_side_by_side(config))
    return [ThreadPoolExecutor(1, "core") for _ in range(count)] if count > 1 else [Inline()]
