"""LEAF's FEMNIST: handwritten digits and letters by writers, 28x28, 62 classes.

Source: Caldas et al. 2018 (arXiv 1812.01097) from EMNIST (Cohen et al. 2017) by NIST's writers.
geojax reads the JSON files that LEAF's ``preprocess.sh`` makes; it neither ships nor downloads
them. The folder ``data.path`` holds ``train`` and ``test``, as LEAF splits them, or ``all_data``
(or the files themselves), which are split here: of each writer, the last tenth of a fixed shuffle
is for testing. LEAF stores paper as 1 and ink as 0, and so do we unless ``data.invert``.

Two defects of LEAF's own files are known:

- *Duplicates*: every writer after the first has one image twice (817,851 samples where EMNIST has
  814,255). The repetition is left out; where LEAF's split has put one into each set, the one for
  training is. ``data.duplicates=keep`` leaves all as it is, for figures of others.
- *Dropped writers*: before its pull request 34, LEAF wrote only full files of 100 writers, so the
  last writers are missing (3,500 remain of 3,597). Files that are all full look like that, and a
  warning says so; the writers can only come back by running a newer LEAF.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geojax.config import DataConfig
from geojax.data.dataset import DATASETS, Stored
from geojax.data.kept import Arrays, kept
from geojax.data.leaf import Writers, read_folder
from geojax.data.streams import stream
from geojax.errors import ConfigError, DataError
from geojax.settings import key

log = logging.getLogger("geojax.data")

CLASSES = 62  # 0-9, A-Z, a-z
FULL_FILE = 100  # writers of a file of LEAF
VERSION = 1  # of how files are read; another one is another file in the cache


@dataclass
class FemnistConfig(DataConfig):
    """Keys of ``data=femnist``."""

    name: str = "femnist"
    path: str | None = key(None, "folder with LEAF's train and test, or all_data; required")
    min_samples: int = key(1, "writers with fewer are left out, as by LEAF's -k", least=1)
    duplicates: str = key(
        "drop", "images that a writer has twice: one is left out, or both stay",
        choices=("drop", "keep"),
    )  # fmt: skip
    invert: bool = key(False, "ink is 1 and paper 0, as in MNIST; false: as LEAF stores it")


@DATASETS.register("femnist", FemnistConfig)
def femnist(config: FemnistConfig) -> Stored:
    """Reads the files once, then takes their arrays from the cache while they do not change.

    Raises:
      ConfigError: no folder is named, or there are no such files in it.
      DataError: a file is cut short or damaged; names the file, the writer and the fix.
    """
    parts = _files(config.path)
    files = [file for part in parts.values() for file in part]
    stamps = [(str(file.resolve()), *_stamp(file)) for file in files]
    made_of = {"files": stamps, "version": VERSION}
    made_of |= {name: getattr(config, name) for name in ("min_samples", "duplicates")}
    arrays = kept("femnist", made_of, lambda: _read(parts, config))
    if config.invert:
        arrays = {name: 255 - a if name.endswith("_x") else a for name, a in arrays.items()}
    order = "train_x", "train_y", "test_x", "test_y"
    return Stored(
        *(arrays[name] for name in order),
        classes=CLASSES,
        largest=255,
        train_groups=arrays["train_writer"],
    )


def _files(path: str | None) -> dict[str, list[Path]]:
    """The files of ``train`` and ``test``, or of ``all``."""
    fix = "name the folder data/femnist/data of a LEAF that has run preprocess.sh"
    if path is None or not (folder := Path(path).expanduser()).is_dir():
        raise ConfigError("data.path", path, f"no such folder; {fix}")
    for place in (folder, folder / "data"):
        found = {part: sorted((place / part).glob("*.json")) for part in ("train", "test")}
        if all(found.values()):
            return found
        if any(found.values()):
            there, absent = sorted(found, key=lambda part: not found[part])
            raise ConfigError("data.path", path, f"has files in {there}, none in {absent}; {fix}")
        for whole in (place / "all_data", place):
            if files := sorted(whole.glob("*.json")):
                return {"all": files}
    raise ConfigError(
        "data.path", path, f"has no .json files in train and test, or all_data; {fix}"
    )


def _stamp(file: Path) -> tuple[int, int]:
    known = file.stat()
    return known.st_size, known.st_mtime_ns


def _read(parts: dict[str, list[Path]], config: FemnistConfig) -> Arrays:
    if "all" in parts:
        writers = read_folder(parts["all"], CLASSES)
        _look_for_dropped(writers, len(parts["all"]))
        train, test, repeated = _split(writers, config.duplicates == "drop")
    else:
        train, test = (read_folder(parts[part], CLASSES) for part in ("train", "test"))
        _look_for_dropped(train, len(parts["train"]))
        repeated = _without_repeats(train, test) if config.duplicates == "drop" else 0
    names = sorted({*train, *test})
    few = {n for n in names if _size(train, n) + _size(test, n) < config.min_samples}
    trained = [name for name in names if name not in few and _size(train, name)]
    tested = [name for name in names if name not in few and _size(test, name)]
    log.info(
        "FEMNIST: %d writers, %d repeated images %s; without %d writers of fewer than %d samples",
        len(trained), repeated, "left out" if config.duplicates == "drop" else "looked for",
        len(few), config.min_samples,
    )  # fmt: skip
    if not trained or not tested:
        raise DataError(
            f"{config.path}: of {len(names)} writers none is left for training and testing with "
            f"data.min_samples = {config.min_samples}; use a smaller one"
        )
    sizes = [_size(train, name) for name in trained]
    return {
        "train_x": np.concatenate([train[name].images for name in trained]),
        "train_y": np.concatenate([train[name].labels for name in trained]),
        "train_writer": np.repeat(np.arange(len(trained), dtype=np.int32), sizes),
        "test_x": np.concatenate([test[name].images for name in tested]),
        "test_y": np.concatenate([test[name].labels for name in tested]),
    }


def _size(writers: Writers, name: str) -> int:
    return len(writers[name].labels) if name in writers else 0


def _look_for_dropped(writers: Writers, files: int) -> None:
    """Warns of files that look as if the last writers had been dropped."""
    if len(writers) == FULL_FILE * files:
        log.warning(
            "FEMNIST: %d writers in %d files of exactly %d each: LEAF before its pull request 34 "
            "drops the last, partly filled file; the whole set has 3,597 writers in 36 files. "
            "Run a newer LEAF's preprocess.sh to have them all",
            len(writers), files, FULL_FILE,
        )  # fmt: skip


def _split(writers: Writers, drop: bool) -> tuple[Writers, Writers, int]:
    """Nine tenths of each writer for training, the rest for testing; and how many were repeated."""
    train, test, repeated = {}, {}, 0
    for number, name in enumerate(sorted(writers)):
        own = writers[name]
        keep = _firsts([own.identity(i) for i in range(len(own.labels))]) if drop else None
        if keep is not None:
            repeated += len(own.labels) - len(keep)
            own = own.take(keep)
        order = stream("femnist", 0, number).permutation(len(own.labels))
        held = len(order) - max(int(0.9 * len(order)), 1)
        train[name] = own.take(np.sort(order[held:]))
        test[name] = own.take(np.sort(order[:held]))
    return train, test, repeated


def _without_repeats(train: Writers, test: Writers) -> int:
    """Leaves out images that a writer has twice, in place; from training rather than testing."""
    repeated = 0
    for name in {**train, **test}:
        seen: list[bytes] = []
        for part in (test, train):
            if name in part:
                own = part[name]
                ids = [own.identity(i) for i in range(len(own.labels))]
                firsts = _firsts([*seen, *ids])
                keep = firsts[firsts >= len(seen)] - len(seen)
                repeated += len(ids) - len(keep)
                part[name] = own.take(keep)
                seen += ids
    return repeated


def _firsts(identities: Sequence[bytes]) -> np.ndarray:
    """Positions at which something stands for the first time."""
    first = {}
    for position, identity in enumerate(identities):
        first.setdefault(identity, position)
    return np.array(sorted(first.values()), np.int64)
