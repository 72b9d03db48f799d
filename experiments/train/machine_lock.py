"""One emulated run at a time on a machine, whoever starts it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator

from geojax.errors import ConfigError

LOCK_NAME = "geojax-emulated.lock"


def lock_path() -> pathlib.Path:
    """Where the machine-wide lock file lies: ``/run/lock``, or the temporary folder without it."""
    shared = pathlib.Path("/run/lock")
    usable = shared.is_dir() and os.access(shared, os.W_OK)
    return (shared if usable else pathlib.Path(tempfile.gettempdir())) / LOCK_NAME


@contextlib.contextmanager
def machine_lock(
    owner: str, *, path: pathlib.Path | None = None, log: Callable[[str], object] = print
) -> Iterator[None]:
    """Waits until no other run emulates a WAN on this machine, then keeps others waiting.

    The kernel frees the lock when its holder ends, however it ends; so the wait is as bounded as
    the run that it waits for, and a signal interrupts it.

    Args:
      owner: who holds it, told to those who wait.
      path: the lock file; None: :func:`lock_path`.
      log: is told what it waits for.

    Raises:
      ConfigError: another user, root, has made the file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path or lock_path(), flags, 0o644)
    except PermissionError as error:  # root has made it
        fix = "needs root (sudo); testbed=simulated and testbed=local do not"
        raise ConfigError("testbed", "emulated", fix) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace") or "another run"
            log(f"waiting for the emulated WAN of this machine, in use by {holder}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}: {owner}".encode(), 0)
        yield
    finally:
        os.close(descriptor)
