"""How runs are called in pictures: by the settings in which they differ."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from experiments.plot.run_events import RunRecords
from experiments.runs.rows import Row, Run, differing, full_key, label
from experiments.table.comparison import setting_text
from geojax.errors import ConfigError, nearest

MARK = "†"  # of rows whose runs were disturbed
NAME_LENGTH = 120  # of a file, at most


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed, as a picture shows them.

    Attributes:
      name: what tells them from others.
      row: their settings and summaries.
      runs: records of those that came to their end, in the order of ``row.finished``.
      facet: the panel that they belong to, where there are several.
    """

    name: str
    row: Row
    runs: tuple[RunRecords, ...]
    facet: str = ""


def marked(name: str, row: Row) -> str:
    """A row's name, with a mark where its runs were disturbed."""
    return f"{name} {MARK}" if row.incidents else name


def in_facets(groups: Sequence[Group], setting: str) -> list[Group]:
    """The groups with the panel of each, by the value of a setting, which their names then lack.

    Raises:
      ConfigError: the runs have no such setting.
    """
    rows = [group.row for group in groups]
    key = full_key(setting, rows)
    if key is None:
        known = sorted({label(key) for row in rows for key in row.settings})
        raise ConfigError("--facet", setting, f"no such setting; {nearest(setting, known)}")
    names = row_labels(rows, without=key)
    return [
        replace(
            group,
            name=marked(name, group.row),
            facet=f"{label(key)} {setting_text(group.row.settings.get(key))}",
        )
        for group, name in zip(groups, names, strict=True)
    ]


def row_labels(rows: Sequence[Row], without: str = "") -> list[str]:
    """A name for each row: the members of groups that differ, and other settings as key=value.

    Rows that differ in nothing, or a single one, are called by their experiment; so are variants
    that each have a name of their own there, whatever else they set.

    Args:
      rows: to be told apart.
      without: a setting that is told elsewhere.
    """
    keys = differing(rows) if len(rows) > 1 else []
    if len({str(row.settings.get("experiment")) for row in rows}) == len(rows):
        keys = ["experiment"]
    keys = [key for key in keys if key != without]
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
