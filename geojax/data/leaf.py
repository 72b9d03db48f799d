"""JSON files in the layout of LEAF: ``users``, ``num_samples`` and ``user_data``.

``user_data`` has for each user ``x``, a list of images as lists of 784 numbers from 0 to 1, and
``y``, a list of their classes. A file holds up to 100 users.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from geojax.errors import DataError

SIDE = 28
_FIX = "the file is cut short or damaged: run LEAF's preprocess.sh again, or leave the user out"


class Samples(NamedTuple):
    """What one writer wrote."""

    images: np.ndarray  # uint8 (samples, 28, 28)
    labels: np.ndarray  # uint8 (samples,)

    def take(self, positions: np.ndarray) -> Samples:
        """Those at some positions."""
        return Samples(self.images[positions], self.labels[positions])

    def identity(self, position: int) -> bytes:
        """Equal for equal images of equal classes, else different."""
        return self.labels[position].tobytes() + self.images[position].tobytes()


Writers = dict[str, Samples]


def read_folder(files: Sequence[Path], classes: int) -> Writers:
    """All writers of some files, by name.

    Raises:
      DataError: a file is cut short or damaged, or two hold the same writer; names the file, the
        writer and the fix.
    """
    writers: Writers = {}
    for file in files:
        for name, samples in _read(file, classes).items():
            if name in writers:
                raise DataError(f"{file}: user {name} stands in another file too; remove one")
            writers[name] = samples
    return writers


def _read(file: Path, classes: int) -> Writers:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as problem:
        raise DataError(f"{file} cannot be read ({problem}); make it readable") from problem
    try:
        content = json.loads(text)
    except RecursionError:
        raise DataError(f"{file} nests lists or objects too deeply to be LEAF's; {_FIX}") from None
    except ValueError as problem:
        begun = re.findall(r'"([^"]+)"\s*:\s*\{\s*"[xy]"', text)
        last = f"user {begun[-1]}" if begun else "its list of users"
        raise DataError(f"{file} ends or breaks off at {last} ({problem}); {_FIX}") from problem
    keys = ("users", "num_samples", "user_data")
    if not isinstance(content, dict) or any(key not in content for key in keys):
        raise DataError(f"{file} is no file of LEAF: it needs {', '.join(keys)}; {_FIX}")
    users, counts, data = (content[key] for key in keys)
    if not (_all(users, str) and _all(counts, int) and isinstance(data, dict)):
        kinds = "users a list of names, num_samples one of whole numbers, user_data an object"
        raise DataError(f"{file} is no file of LEAF: {kinds}; {_FIX}")
    if len(users) != len(counts):
        raise DataError(f"{file}: {len(users)} users, {len(counts)} in num_samples; {_FIX}")
    if twice := [user for user, count in Counter(users).items() if count > 1]:
        raise DataError(f"{file}: user {twice[0]} stands in users twice; {_FIX}")
    if unknown := sorted(set(data) - set(users)):
        raise DataError(f"{file}: user {unknown[0]} has data and is not in users; {_FIX}")
    return {
        user: _samples(f"{file}: user {user}", data.get(user), count, classes)
        for user, count in zip(users, counts, strict=True)
    }


def _all(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _samples(who: str, data: Any, count: int, classes: int) -> Samples:
    if not isinstance(data, dict) or "x" not in data or "y" not in data:
        raise DataError(f"{who} has no x and y in user_data; {_FIX}")
    try:
        images = np.array(data["x"], np.float64).reshape(len(data["x"]), SIDE * SIDE)
        labels = np.array(data["y"], np.float64).reshape(len(data["y"]))
    except (TypeError, ValueError) as problem:
        problem_ = f"an image that is no list of {SIDE * SIDE} numbers"
        raise DataError(f"{who} has {problem_}, or a class that is no number; {_FIX}") from problem
    if not len(images) == len(labels) == count:
        found = f"{len(images)} images, {len(labels)} classes, {count} in num_samples"
        raise DataError(f"{who} has {found}; {_FIX}")
    if not (np.isin(labels, np.arange(classes))).all():
        raise DataError(f"{who} has classes outside 0 to {classes - 1}; {_FIX}")
    levels = np.rint(images * 255)
    wrong = ~(np.abs(images * 255 - levels) < 1e-3) | (levels < 0) | (levels > 255)
    if wrong.any():
        raise DataError(
            f"{who} has a pixel {images[wrong][0]:g}; LEAF's are k/255 for k from 0 to 255, so "
            "make the files with LEAF's preprocess.sh"
        )
    images = levels.astype(np.uint8).reshape(-1, SIDE, SIDE)
    return Samples(images, labels.astype(np.uint8))
