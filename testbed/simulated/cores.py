"""Cores that compute the steps of different nodes side by side.

A step's result is needed only when virtual time reaches the step's end. Until then it is a matter
of wall time alone who computes it, and when: events and parameters are the same with any number of
cores, bit for bit, as every program is one of a single XLA thread.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from geojax.config import RunConfig
from geojax.hollow import SIZE_ONLY
from geojax.models.registry import SYNTHETIC


class Inline(Executor):
    """Does work at once, in the thread that submits it: one core."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See :class:`concurrent.futures.Executor`; the future is done."""
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
            done.set_exception(error)
        return done


def available() -> int:
    """Cores that this process may use: its affinity, and the limit of its control group."""
    import joblib  # slow to load, and needed once

    return joblib.cpu_count()


def open_cores(config: RunConfig) -> Executor:
    """What computes a run's steps; sets JAX up, if the run needs it. To be shut down.

    One core where more bring nothing: for a model that computes nothing, and where a step itself is
    shared by several devices, whose programs wait for each other.

    Raises:
      ConfigError: see :func:`geojax.center.devices.configure`.
    """
    hollow = config.model.name == SYNTHETIC or config.compression.name == SIZE_ONLY
    if hollow or config.testbed.devices > 1:
        return Inline()
    count = config.testbed.cores or available()
    if count == 1:
        return Inline()

    from geojax.center import devices

    devices.configure(config.mesh_size, threads=count)
    if len(devices.local_devices()) > 1:  # accelerators
        return Inline()
    return ThreadPoolExecutor(count, "core")
