"""IDX files (the format of MNIST), found in folders and known by the hash of their content."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geojax.errors import ConfigError, DataError

_UNSIGNED_BYTES = 8  # IDX type code
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class IdxArray:
    """One array of bytes, as an IDX file that may be gzipped.

    Attributes:
      file: the file's name without ``.gz``.
      shape: the array's shape.
      sha256: hex hash of the array's bytes: without compression, which differs from packager to
        packager, and without the IDX header.
    """

    file: str
    shape: tuple[int, ...]
    sha256: str

    def find(self, folder: Path) -> Path | None:
        """The file in ``folder``, compressed or not; None where it is absent."""
        candidates = (folder / f"{self.file}.gz", folder / self.file)
        return next((path for path in candidates if path.is_file()), None)

    def read(self, path: Path) -> np.ndarray:
        """The array in the file at ``path``, checked.

        Raises:
          DataError: the file is not what it should be; names the file and the difference.
        """
        header = struct.pack(
            f">4B{len(self.shape)}I", 0, 0, _UNSIGNED_BYTES, len(self.shape), *self.shape
        )
        expected = len(header) + math.prod(self.shape)
        content = _content(path, expected + 1)
        if content[: len(header)] != header:
            raise DataError(f"{path} is no IDX file of bytes with shape {self.shape}; {_REPLACE}")
        if len(content) != expected:
            found = f"only {len(content)}" if len(content) < expected else "more"
            raise DataError(f"{path} should hold {expected} bytes and holds {found}; {_REPLACE}")
        array = np.frombuffer(content, np.uint8, offset=len(header)).reshape(self.shape)
        return checked(array, self.sha256, str(path))


_REPLACE = "delete or replace it"


def mnist_files(*sha256: str) -> tuple[IdxArray, ...]:
    """The four files of a data set in MNIST's form, by the hashes of their arrays."""
    files = (
        ("train-images-idx3-ubyte", (60_000, 28, 28)),
        ("train-labels-idx1-ubyte", (60_000,)),
        ("t10k-images-idx3-ubyte", (10_000, 28, 28)),
        ("t10k-labels-idx1-ubyte", (10_000,)),
    )
    return tuple(IdxArray(*file, known) for file, known in zip(files, sha256, strict=True))


def checked(array: np.ndarray, sha256: str, origin: str) -> np.ndarray:
    """The array itself when its bytes have the hash ``sha256``, else a DataError."""
    found = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
    if found != sha256:
        raise DataError(
            f"{origin} holds other data than the published set (sha256 {found}, should be "
            f"{sha256}); {_REPLACE}"
        )
    return array


def missing(files: Iterable[IdxArray], folder: Path) -> list[IdxArray]:
    """Those of ``files`` that ``folder`` lacks."""
    return [item for item in files if item.find(folder) is None]


def read_all(files: Iterable[IdxArray], folder: Path) -> list[np.ndarray]:
    """All arrays out of a folder that has every file, in order, checked."""
    arrays = []
    for item in files:
        path = item.find(folder)
        if path is None:
            raise DataError(f"{folder / item.file} is gone; was it removed just now? run again")
        arrays.append(item.read(path))
    return arrays


def search(files: Sequence[IdxArray], folders: Iterable[Path]) -> tuple[Path | None, str]:
    """The first folder with every file, else None; and a sentence part on what was searched."""
    seen = []
    for folder in folders:
        absent = len(missing(files, folder))
        if not absent:
            return folder, str(folder)
        seen.append(f"{folder} ({len(files) - absent} of {len(files)} files)")
    return None, ", ".join(seen)


def given_folder(path: str | None) -> list[Path]:
    """The folder that ``data.path`` names, as a list of one or none.

    Raises:
      ConfigError: there is no such folder.
    """
    if path is None:
        return []
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ConfigError("data.path", path, "no such folder; name an existing one, or null")
    return [folder]


def cache_folder(name: str) -> Path:
    """Where downloads of one data set are kept: below the user's cache folder (XDG rules)."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(root) if os.path.isabs(root) else Path.home() / ".cache"
    return base / "geojax" / name


def _content(path: Path, limit: int) -> bytes:
    """At most ``limit`` bytes of a file's content, decompressed."""
    try:
        with path.open("rb") as file:
            packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        with gzip.open(path) if packed else path.open("rb") as file:
            return file.read(limit)
    except (OSError, EOFError, zlib.error) as problem:
        raise DataError(f"{path} cannot be read ({problem}); {_REPLACE}") from problem
