"""Every key of the configuration, from the dataclasses: ``python -m experiments.configuration``.

Prints the page ``docs/configuration.md``; with ``--write`` it goes to its place. After
``plugins=[MODULE]`` the keys of that module's members are on the page too.
"""

from __future__ import annotations

import argparse
import inspect
import json
import typing
from collections.abc import Iterable
from dataclasses import Field, fields

from omegaconf import OmegaConf

import testbed.wan.generators  # noqa: F401  registers its axis
from experiments.runs.choices import CONF
from geojax.axes import AXES
from geojax.config import RunConfig, groups
from geojax.errors import GeojaxError
from geojax.settings import Settings, bounds_text, key_names, load_plugins

PAGE = CONF.parent / "docs" / "configuration.md"
_INTRO = """# Every key of the configuration

Written by `python -m experiments.configuration --write`; a test compares this page with the
dataclasses. A key is set as `group.key=value` on the command line, or in a YAML file. A group that
is an axis has members: `overlay=ring` (or `overlay.name=ring`) chooses one. Keys of the group are
read by all of its members, a member's own keys by that member alone: with another one they are
refused. A meaning that begins with a word and a colon, as in `emulated: …`, holds for that choice
alone.
"""


def page() -> str:
    """The whole page."""
    run = RunConfig()
    parts = [_INTRO, "## The run\n", _table("", run, _own(RunConfig, groups()))]
    for name, default in groups().items():
        axis = AXES.get(name)
        summary = inspect.cleandoc(type(default).__doc__ or "").replace("``", "`")
        parts += [f"## {name}\n", f"{summary}\n"]
        if axis is not None:
            members = ", ".join(f"`{member}`" for member in axis)
            parts += [f"Members (`{axis.key}`): {members}. All of them read:\n"]
        parts += [_table(name, default, fields(default))]
        for schema_, members in _members(name):
            chosen = " and ".join(f"{_label(name)}={member}" for member in members)
            own = _own(schema_, key_names(type(default)))
            parts += [f"### {chosen}\n", _table(name, schema_(), own)]
    return "\n".join(parts).rstrip("\n") + "\n"


def _label(group: str) -> str:
    """What one types to choose a member: the group, or the group's key for that."""
    axis = AXES[group]
    return group if axis.chooser == "name" else axis.key


def _members(group: str) -> Iterable[tuple[type[Settings], list[str]]]:
    """The dataclasses of the members that have keys of their own, each with its members."""
    found: dict[type[Settings], list[str]] = {}
    for member in AXES.get(group, ()):
        found.setdefault(AXES[group].schema(member), []).append(member)
    common = key_names(type(groups()[group]))
    return [pair for pair in found.items() if set(key_names(pair[0])) - set(common)]


def _own(settings: type[Settings], without: Iterable[str]) -> list[Field]:
    return [item for item in fields(settings) if item.name not in without]  # type: ignore[arg-type]


def _table(group: str, defaults: Settings, keys: Iterable[Field]) -> str:
    rows = ["| key | default | unit | meaning | valid |", "|---|---|---|---|---|"]
    for item in keys:
        name = f"{group}.{item.name}" if group else item.name
        value = getattr(defaults, item.name)
        default = value if isinstance(value, str) else json.dumps(value)
        cells = [f"`{name}`", f"`{default}`", item.metadata["unit"], item.metadata["doc"]]
        rows.append(f"| {' | '.join([*cells, _valid(item)])} |".replace("|  |", "| |"))
    return "\n".join(rows) + "\n"


def _valid(item: Field) -> str:
    """Names, bounds, or the kind of value that a key takes."""
    choices = typing.cast(tuple[str, ...], item.metadata["choices"])
    return ", ".join(f"`{name}`" for name in choices) or bounds_text(item.metadata)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.configuration", description=__doc__
    )
    parser.add_argument("--write", action="store_true", help=f"to docs/{PAGE.name}")
    parser.add_argument("plugins", nargs="?", default="", metavar="plugins=[MODULE]")
    given = parser.parse_args()
    try:
        load_plugins(OmegaConf.from_dotlist([given.plugins]).get("plugins", []))
    except GeojaxError as error:
        parser.error(str(error))
    if given.write:
        PAGE.write_text(page())
    else:
        print(page(), end="")


if __name__ == "__main__":
    main()
