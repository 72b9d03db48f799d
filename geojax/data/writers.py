"""Who wrote MNIST's training images: read from a file that the user names.

MNIST itself does not say. QMNIST (Yadav, Bottou 2019, arXiv 1905.10498) traced its images back to
NIST's forms and publishes extended labels in MNIST's own order: ``qmnist-train-labels-idx2-int.gz``
(BSD, in the repository facebookresearch/qmnist; torchvision's ``QMNIST`` fetches it too). Such a
file holds 60,000 rows of eight integers, of which the first is the class and the third the
writer: 539 writers, 111 images each. geojax neither ships nor downloads it.
"""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from geojax.errors import ConfigError, DataError

_CLASS, _WRITER, _COLUMNS = 0, 2, 8  # of QMNIST's extended labels
_INTEGERS = 0x0C  # IDX type code of big-endian int32
_HOW = (
    "name qmnist-train-labels-idx2-int.gz (repository facebookresearch/qmnist; torchvision's "
    "QMNIST fetches it too), or a .npz file with an array train_writer"
)


def read_writers(path: str, labels: np.ndarray) -> np.ndarray:
    """The writer of every training image of MNIST.

    Args:
      path: QMNIST's extended labels of the training set, gzipped or not; or a NumPy archive whose
        array ``train_writer`` has an integer for every image.
      labels: the classes of the images. Those in QMNIST's file must be equal to them; an archive
        has none, so that only its length can be checked.

    Returns:
      int32 (samples,), NIST's numbers of the writers.

    Raises:
      ConfigError: there is no such file.
      DataError: the file is cut short, or is not of these images.
    """
    file = require_file(path)
    try:
        with file.open("rb") as opened:
            archive = opened.read(2) == b"PK"
        return _archive(file, len(labels)) if archive else _qmnist(file, labels)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as problem:
        raise DataError(f"{file} cannot be read ({problem}); {_HOW}") from problem


def require_file(path: str) -> Path:
    """The file at a path; raises ``ConfigError`` if there is none."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError("data.writers", path, f"no such file; {_HOW}")
    return file


def _archive(file: Path, samples: int) -> np.ndarray:
    with np.load(file) as archive:
        if "train_writer" not in archive.files:
            found = ", ".join(archive.files) or "nothing"
            raise DataError(f"{file} holds {found}, and no array train_writer; {_HOW}")
        writers = archive["train_writer"]
    if writers.shape != (samples,) or writers.dtype.kind not in "iu":
        raise DataError(
            f"{file}, train_writer: {writers.dtype} of shape {writers.shape}; it must hold an "
            f"integer for each of {samples} training images, in MNIST's order"
        )
    return _numbers(f"{file}, train_writer", writers)


def _numbers(what: str, writers: np.ndarray) -> np.ndarray:
    if writers.min() < 0 or writers.max() > np.iinfo(np.int32).max:
        raise DataError(
            f"{what}: writers from {writers.min()} to {writers.max()}; number them from 0 on, "
            "within int32"
        )
    return writers.astype(np.int32)


def _qmnist(file: Path, labels: np.ndarray) -> np.ndarray:
    header = struct.pack(">4B2I", 0, 0, _INTEGERS, 2, len(labels), _COLUMNS)
    expected = len(header) + 4 * _COLUMNS * len(labels)
    with file.open("rb") as opened:
        packed = opened.read(2) == b"\x1f\x8b"
    with gzip.open(file) if packed else file.open("rb") as opened:
        content = opened.read(expected + 1)
    if content[: len(header)] != header:
        raise DataError(f"{file} does not hold {len(labels)} rows of {_COLUMNS} integers; {_HOW}")
    if len(content) != expected:
        found = "more" if len(content) > expected else f"only {len(content)}"
        raise DataError(f"{file} should hold {expected} bytes and holds {found}; {_HOW}")
    rows = np.frombuffer(content, ">i4", offset=len(header)).reshape(len(labels), _COLUMNS)
    differ = np.flatnonzero(rows[:, _CLASS] != labels)
    if len(differ):
        raise DataError(
            f"{file} is about other images: row {differ[0]} has class {rows[differ[0], _CLASS]}, "
            f"MNIST's training image {labels[differ[0]]}, and {len(differ)} rows differ; is it "
            f"the file of the test set? {_HOW}"
        )
    return _numbers(f"{file}, column {_WRITER + 1}", rows[:, _WRITER])
