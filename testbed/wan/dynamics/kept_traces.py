"""Copies of a run's trace files in its directory, so that it can be read wherever it lies."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = "traces"  # in a run's directory


def keep_traces(dynamics: Any, run_dir: Path) -> None:
    """Copies the files that ``wan.dynamics`` names, unless they are there already."""
    for number, entry in enumerate(_entries(dynamics)):
        kept = _kept(run_dir, number, entry)
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            shutil.copyfile(entry["file"], kept)


def with_kept_traces(dynamics: Any, run_dir: Path) -> Any:
    """``wan.dynamics`` of a run's configuration with the copies of its files, where there are."""
    found = copy.deepcopy(dynamics)
    for number, entry in enumerate(_entries(found)):
        kept = _kept(run_dir, number, entry)
        if kept.exists():
            entry["file"] = str(kept)
    return found


def _kept(run_dir: Path, number: int, entry: Mapping[str, Any]) -> Path:
    return run_dir / FOLDER / f"{number}_{Path(entry['file']).name}"


def _entries(dynamics: Any) -> Iterator[dict[str, Any]]:
    """The mappings that name a file, in order."""
    if isinstance(dynamics, Mapping):
        if isinstance(dynamics.get("file"), str):
            yield dynamics  # type: ignore[misc]
        yield from _entries(dynamics.get("mahimahi"))
    elif isinstance(dynamics, list | tuple):
        for entry in dynamics:
            yield from _entries(entry)
