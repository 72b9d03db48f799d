"""Arrays that take long to make, kept in the user's cache folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geojax.data.idx import cache_folder
from geojax.errors import DataError

Arrays = dict[str, np.ndarray]


def kept(name: str, made_of: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
    """Arrays from the cache, else newly made and put there.

    A file appears under its name only when it is whole. Of processes that miss the same one, the
    first makes it and the others wait for it.

    Args:
      name: folder below the cache folder, see :func:`geojax.data.idx.cache_folder`.
      made_of: all that the arrays depend on, JSON-ready; another value is another file.
      make: makes them.

    Raises:
      DataError: the file in the cache is damaged, or the cache cannot be written.
    """
    canonical = json.dumps(made_of, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:24]
    file = cache_folder(name) / f"{digest}.npz"
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with _alone(file.parent):
                if not file.is_file():
                    arrays = make()
                    _write(file, arrays)
                    return arrays
        except OSError as problem:
            raise DataError(
                f"{file} cannot be written ({problem}); make room there, or name another folder "
                "for caches in the environment variable XDG_CACHE_HOME"
            ) from problem
    try:
        with np.load(file) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as problem:
        raise DataError(f"{file} is damaged ({problem}); delete it, it is made anew") from problem


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, which the system frees when the process ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(file: Path, arrays: Arrays) -> None:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.stem}-", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as opened:
            np.savez(opened, **arrays)  # type: ignore[arg-type]
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
