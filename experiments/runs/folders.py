"""Looking for run directories below folders that may hold other people's files."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Collection, Iterator


def holding(
    folder: pathlib.Path, names: Collection[str], depth: int | None = None
) -> Iterator[pathlib.Path]:
    """Directories that hold a file of one of these names, in the order of their paths.

    Symbolic links are followed, and no directory is looked at twice; what may not be read is
    passed over.

    Args:
      folder: where to begin; it counts itself.
      names: of files.
      depth: so many levels below ``folder``; None: all.
    """
    seen: set[tuple[int, int]] = set()
    for path, inner, files in os.walk(folder, followlinks=True):
        here = pathlib.Path(path)
        try:
            found = here.stat()
        except OSError:
            inner.clear()
            continue
        if (found.st_dev, found.st_ino) in seen:
            inner.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        inner.sort()
        if depth is not None and len(here.relative_to(folder).parts) >= depth:
            inner.clear()
        if not {*names}.isdisjoint(files):
            yield here
