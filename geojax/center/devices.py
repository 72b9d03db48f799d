"""The one place where JAX is set up: how many devices, which threads, which compile cache.

XLA splits a reduction by the number of its threads, so the last bits of a step depend on it. All
processes of a run therefore compute with one thread per device (``NPROC=1``, unless the
environment says otherwise), and replicas are bit-identical.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import jax
from jaxlib import xla_client

from geojax.config import RunConfig
from geojax.errors import ConfigError

if TYPE_CHECKING:
    from jaxlib._jax import Device  # jax.Device is an alias that type checkers refuse

_CACHE_EVERYTHING = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def configure(devices: int) -> None:
    """Sets JAX up before its backend starts; safe to call again with the same count.

    Read from the environment, never overwritten: ``NPROC`` (XLA's threads, else 1),
    ``JAX_COMPILATION_CACHE_DIR`` (if set, every program is cached there, however small; the folder
    must be private, since what lies in it is executed) and ``XLA_PYTHON_CLIENT_PREALLOCATE`` (else
    off: processes that share an accelerator take memory as they need it).

    Args:
      devices: CPU devices that this process splits its batches over. Accelerators, when there are
        any, are used instead, as many as are visible.

    Raises:
      ConfigError: the count is not positive, JAX is already running with another one, or the
        environment names a platform that is not here.
    """
    if devices < 1:
        raise ConfigError("testbed.devices", devices, "use at least 1 device per worker")
    os.environ.setdefault("NPROC", "1")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if folder := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", folder)
        for option, everything in _CACHE_EVERYTHING.items():
            if option.upper() not in os.environ:
                jax.config.update(option, everything)
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError as error:  # the backend is up, and was not started with this count
        running = len(jax.devices("cpu"))
        if running != devices:
            fix = f"JAX already runs with {running} CPU devices; call configure() before using JAX"
            raise ConfigError("testbed.devices", devices, fix) from error
    if os.environ.get("JAX_PLATFORMS", "cpu") not in ("", "cpu"):
        local_devices()  # before anything else fails without a word


def local_devices() -> tuple[Device, ...]:
    """The devices over which this process splits its batches: accelerators, else CPU devices.

    Raises:
      ConfigError: JAX finds no device of the platforms that the environment names.
    """
    try:
        return tuple(jax.local_devices())
    except (AssertionError, RuntimeError) as error:  # JAX's own text is empty, or many lines
        said = str(error).splitlines()
        fix = (
            f"JAX finds no such device here{f' ({said[0]})' if said else ''}; unset it, or use cpu"
        )
        raise ConfigError("JAX_PLATFORMS", os.environ.get("JAX_PLATFORMS"), fix) from error


def separate_devices(count: int) -> tuple[Device, ...]:
    """Devices that compute different programs at the same time, each to the same bits.

    CPU devices of one XLA client share its threads, of which it has no fewer than devices. A
    program on one of them is then split over several threads, which changes the last bits of its
    sums, and small ones wait for each other many times as long as they compute. So each device but
    the first is that of a client of its own, with ``NPROC`` threads.

    Args:
      count: CPU devices. Accelerators, when there are any, are used instead: all visible ones.
    """
    local = local_devices()
    if local[0].platform != "cpu":
        return local
    return (local[0], *map(_further_device, range(1, count)))


def devices_of(config: RunConfig, worker_index: int) -> tuple[Device, ...]:
    """The devices of one worker: all of its process, or a core of those that workers share.

    Args:
      config: the run; ``testbed.cores`` tells how many workers may compute at the same time.
      worker_index: which worker, counted over all centers.
    """
    cores = devices_side_by_side(config)
    return local_devices() if len(cores) == 1 else (cores[worker_index % len(cores)],)


def devices_side_by_side(config: RunConfig) -> tuple[Device, ...]:
    """A device for each of ``testbed.cores``; the first local one, if these are one.

    Several of them are apart from the local ones: what a node computes on its host, such as an
    outer step, does not wait for the steps of others. Accelerators count as one.
    """
    first = local_devices()[0]
    wanted = (config.testbed.cores or 1) if first.platform == "cpu" else 1
    return separate_devices(wanted + 1)[1:] if wanted > 1 else (first,)


@functools.cache
def _further_device(number: int) -> Device:
    del number
    return xla_client.make_cpu_client(num_devices=1).local_devices()[0]


def host_device() -> Device:
    """The first CPU device: for work whose bits must not depend on accelerators."""
    return jax.devices("cpu")[0]
