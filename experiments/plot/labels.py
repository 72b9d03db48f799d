"""How runs are called in pictures: by the settings in which they differ."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.plot.run_events import RunRecords
from experiments.runs.rows import Row, Run, differing, label
from experiments.table.comparison import setting_text

NAME_LENGTH = 120  # of a file, at most


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed, as a picture shows them.

    Attributes:
      name: what tells them from others.
      row: their settings and summaries.
      runs: records of those that came to their end, in the order of ``row.finished``.
    """

    name: str
    row: Row
    runs: tuple[RunRecords, ...]


def row_labels(rows: Sequence[Row]) -> list[str]:
    """A name for each row: the members of groups that differ, and other settings as key=value.

    Rows that differ in nothing, or a single one, are called by their experiment; so are variants
    that each have a name of their own there, whatever else they set.
    """
    keys = differing(rows) if len(rows) > 1 else []
    if len({str(row.settings.get("experiment")) for row in rows}) == len(rows):
        keys = ["experiment"]
    names = []
    for row in rows:
        parts = []
        for key in keys:
            text = setting_text(row.settings.get(key))
            named = key.endswith(".name") or key == "experiment"
            parts.append(text if named else f"{label(key)}={text}")
        names.append(", ".join(parts) or str(row.settings.get("experiment", "run")))
    return names


def run_title(name: str, row: Row, run: Run) -> str:
    """A row's name, with the seed where it has several."""
    return f"{name}, seed {run.settings.get('seed')}" if len(row.runs) > 1 else name


def file_name(kind: str, name: str) -> str:
    """A file's name without its ending; what is too long for one ends in a digest of it all.

    >>> file_name("trees", "netstorm, overlay.roots=3")
    'trees-netstorm-overlay.roots-3'
    >>> len(file_name("trees", "netstorm, " * 50)) == len("trees-") + NAME_LENGTH
    True
    """
    words = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")
    if len(words) > NAME_LENGTH:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        words = f"{words[: NAME_LENGTH - len(digest) - 1]}-{digest}"
    return f"{kind}-{words}" if words else kind
