"""What each group of the configuration can be, as ``--help`` lists it; needs no library."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from geojax.config import groups
from geojax.registry import AXES

CONF = pathlib.Path(__file__).resolve().parents[2] / "conf"


def files(group: str, folder: pathlib.Path = CONF) -> set[str]:
    """The names of a group's YAML files."""
    return {path.stem for path in (folder / group).glob("*.yaml")}


def choices(group: str, own: Sequence[pathlib.Path] = ()) -> list[str]:
    """What a group can be, sorted: the names of its YAML files, and members without one.

    Args:
      group: of the configuration; its members are those that this process has loaded.
      own: the user's folders of YAML files.
    """
    named = [name for folder in (CONF, *own) for name in files(group, folder)]
    return sorted({*named, *AXES.get(group, ())})


def listed(own: Sequence[pathlib.Path] = ()) -> str:
    """A line for each group and what it can be."""
    names = [*groups(), "experiment"]
    width = max(map(len, names)) + 1
    return "\n".join(f"  {name:<{width}} {', '.join(choices(name, own))}" for name in names)
