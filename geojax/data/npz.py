"""Own data from a NumPy archive: ``data=npz data.path=FILE.npz``.

The file, written by ``numpy.savez``, holds ``train_x``, ``train_y``, ``test_x`` and ``test_y`` of
any shapes, with one sample and one target along the first axis. Floats stay floats (float32) and
are never scaled. Integers stay integers (int32), counted from 0: labels of classes, or tokens. So
images are stored as floats, best in [0, 1]. Sequences are integers (samples, length); without
``train_y`` and ``test_y`` the target of a token is the one after it (see :func:`shifted`).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geojax.config import DataConfig
from geojax.data.dataset import DATASETS, Stored
from geojax.errors import ConfigError, DataError
from geojax.settings import key

_SAMPLES, _TARGETS = ("train_x", "test_x"), ("train_y", "test_y")
_LARGEST = np.iinfo(np.int32).max


@dataclass
class NpzConfig(DataConfig):
    """Keys of ``data=npz``."""

    name: str = "npz"
    path: str | None = key(None, "the .npz file; required")


@DATASETS.register("npz", NpzConfig)
def npz(config: NpzConfig) -> Stored:
    """Reads the archive that ``data.path`` names; see :mod:`geojax.data.npz`.

    Raises:
      ConfigError: no file is named, or there is none.
      DataError: names the file and the array that is missing or wrong.
    """
    path = Path(config.path or "").expanduser()
    if config.path is None or not path.is_file():
        fix = "no such file; name a .npz file with train_x, train_y, test_x, test_y"
        raise ConfigError("data.path", config.path, fix)
    try:
        with np.load(path) as archive:
            wanted = [name for name in (*_SAMPLES, *_TARGETS) if name in archive.files]
            arrays = {name: archive[name] for name in wanted}
            found = ", ".join(archive.files) or "nothing"
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as problem:
        raise DataError(
            f"{path} cannot be read as a .npz file ({problem}); write it with numpy.savez, of "
            "arrays of numbers"
        ) from problem
    given = {name for name in _TARGETS if name in arrays}
    missing = [name for name in (*_SAMPLES, *(_TARGETS if given else ())) if name not in arrays]
    if missing:
        raise DataError(f"{path} holds {found}; {', '.join(missing)} missing")
    train_x, test_x = (arrays[name] for name in _SAMPLES)
    if given:
        return stored(train_x, arrays["train_y"], test_x, arrays["test_y"], str(path))
    pairs = [shifted(arrays[name], f"{path}, {name}") for name in _SAMPLES]
    return stored(*pairs[0], *pairs[1], str(path))


def shifted(tokens: np.ndarray, what: str = "tokens") -> tuple[np.ndarray, np.ndarray]:
    """Samples and targets of sequences: each token, and the one after it.

    Args:
      tokens: integers (samples, length).
      what: what it is, for error messages.

    Returns:
      Two views of shape (samples, length - 1).

    Raises:
      DataError: these are no sequences of at least two tokens.

    >>> [part.tolist() for part in shifted(np.array([[3, 1, 2]]))]
    [[[3, 1]], [[1, 2]]]
    """
    if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer) or tokens.shape[1] < 2:
        raise DataError(
            f"{what}: {tokens.dtype} of shape {tokens.shape}; without targets (train_y, test_y) "
            "samples must be integers (samples, length) of at least 2 tokens, whose targets are "
            "the next ones"
        )
    return tokens[:, :-1], tokens[:, 1:]


def stored(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, what: str
) -> Stored:
    """A data set of any arrays, checked, its classes and tokens counted.

    Args:
      train_x: floats or integers (samples, ...).
      train_y: floats or integers (samples, ...).
      test_x: as ``train_x``.
      test_y: as ``train_y``.
      what: where they come from, for error messages.

    Raises:
      DataError: an array is empty, of no numbers, or does not go with the others.
    """
    named = {"train_x": train_x, "train_y": train_y, "test_x": test_x, "test_y": test_y}
    for name, array in named.items():
        _check(f"{what}, {name}", array)
    for part in ("train", "test"):
        x, y = named[f"{part}_x"], named[f"{part}_y"]
        if len(x) != len(y):
            raise DataError(f"{what}: {len(x)} samples in {part}_x, {len(y)} targets in {part}_y")
    for role in ("x", "y"):
        one, other = named[f"train_{role}"], named[f"test_{role}"]
        if one.shape[1:] != other.shape[1:] or _is_integer(one) != _is_integer(other):
            raise DataError(
                f"{what}: train_{role} is {one.dtype} of shape {one.shape}, test_{role} "
                f"{other.dtype} of shape {other.shape}; give both the same kind and shape of sample"
            )
    tokens, classes = _count([train_x, test_x]), _count([train_y, test_y])
    if tokens and classes and train_x.shape == train_y.shape:  # of one language
        tokens = classes = max(tokens, classes)
    return Stored(train_x, train_y, test_x, test_y, classes, tokens=tokens)


def _check(what: str, array: np.ndarray) -> None:
    found = f"{what}: {array.dtype} of shape {array.shape}"
    if array.dtype.kind not in "biuf":
        raise DataError(f"{found}; store integers or floats")
    if array.ndim == 0 or array.size == 0:
        raise DataError(f"{found} holds nothing; give at least one sample along the first axis")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise DataError(f"{found} holds NaN or infinity; remove or replace them")
    elif array.min() < 0 or array.max() >= _LARGEST:
        raise DataError(
            f"{found} holds integers from {array.min()} to {array.max()}; labels and tokens count "
            "from 0 on and fit into int32, other numbers are stored as floats"
        )


def _is_integer(array: np.ndarray) -> bool:
    return array.dtype.kind != "f"


def _count(arrays: Sequence[np.ndarray]) -> int:
    """How many different integers the arrays may hold, from 0 on; 0: they hold floats."""
    return 1 + max(int(array.max()) for array in arrays) if _is_integer(arrays[0]) else 0
