"""Which keys the configuration has, in all of its members' dataclasses."""

from __future__ import annotations

import typing
from typing import Any

import testbed.wan.generators  # noqa: F401  registers its axis
from geojax.axes import AXES
from geojax.config import RunConfig, groups
from geojax.settings import hints, key_names


def free_form(path: str) -> bool:
    """Whether ``path`` lies inside a setting that holds any keys, e.g. ``pace.centers.c1``."""
    parts = path.split(".")
    return any(_hint(".".join(parts[:end])) in ("any", "map") for end in range(1, len(parts)))


def known(path: str) -> bool:
    """Whether ``path`` names a group or a key of the schema."""
    return _hint(path) is not None


def every_key() -> list[str]:
    """Every key of the schema and of all members, dotted, in the order of :class:`RunConfig`."""
    keys = []
    for name in key_names(RunConfig):
        inner = dict.fromkeys(key for schema in schemas(name) for key in key_names(schema))
        keys += [f"{name}.{key}" for key in inner] or [name]
    return keys


def schemas(group: str) -> list[type]:
    """The dataclasses that can stand at a group, the base first; "": the run's; else none."""
    if not group:
        return [RunConfig]
    members = [AXES[group].schema(name) for name in AXES.get(group, ())]
    return [type(groups()[group]), *members] if group in groups() else []


def _hint(path: str) -> str | None:
    """What the schema has at ``path``: "group", "any", "map", "value", or None for nothing."""
    group, _, key = path.rpartition(".")
    if not group and key in groups():
        return "group"
    for schema in schemas(group):
        if key not in key_names(schema):
            continue
        hint = hints(schema)[key]
        if hint is Any or typing.get_origin(hint) is list:
            return "any"
        return "map" if typing.get_origin(hint) is dict else "value"
    return None
