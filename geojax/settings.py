"""Groups of keys of a configuration: dataclasses whose fields say what they mean and may be.

>>> from dataclasses import dataclass
>>> @dataclass
... class Ring(Settings):
...     order: str = key("tsp", "how centers stand in the ring", choices=("tsp", "bottleneck"))
>>> Ring().orders = 1
Traceback (most recent call last):
AttributeError: Ring has no key 'orders'; it has: order
"""

from __future__ import annotations

import functools
import importlib
import math
import traceback
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import field, fields
from numbers import Integral, Real
from typing import Any

from geojax.errors import ConfigError, nearest

PLUGINS: list[str] = []
"""The plug-ins that this process has loaded."""

_KINDS: dict[type, tuple[type, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a finite number"),
    bool: (bool, "true or false"),
    str: (str, "a text"),
}


class Settings:
    """Base of every group's dataclass: a key that the class does not have cannot be set."""

    def __setattr__(self, name: str, value: Any) -> None:
        names = key_names(type(self))
        if name not in names:
            has = ", ".join(names)
            raise AttributeError(f"{type(self).__name__} has no key {name!r}; it has: {has}")
        super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (tuple(PLUGINS), type(self), vars(self))

    def check(self) -> None:
        """Finds what bounds of single keys cannot say; a member of an axis has its own.

        Raises:
          ConfigError: names the key, the value and the fix.
        """


def _rebuilt(plugins: Sequence[str], settings: type[Settings], values: dict[str, Any]) -> Settings:
    """Settings that have come into another process, which then knows the same plug-ins."""
    load_plugins(plugins)
    return settings(**values)


def load_plugins(modules: Iterable[str]) -> None:
    """Imports the modules of ``plugins`` (or a single one), which register members of any axis.

    Raises:
      ConfigError: there is no such module, or it cannot be imported.
    """
    for module in [modules] if isinstance(modules, str) else modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            fix, missing = f"cannot be imported:\n{_in_plugin(error)}", getattr(error, "name", None)
            absent = isinstance(error, ModuleNotFoundError)
            if absent and f"{module}.".startswith(f"{missing}."):
                fix = "no such module; name one that Python can import from here (PYTHONPATH)"
            raise ConfigError("plugins", module, fix) from error
        if module not in PLUGINS:
            PLUGINS.append(module)


def _in_plugin(error: Exception) -> str:
    """The traceback of a plug-in's import, without what is not the user's."""
    told = traceback.TracebackException.from_exception(error, compact=True)
    kept = [each for each in told.stack if "importlib" not in each.filename]
    told.stack = traceback.StackSummary.from_list(kept[1:])  # the first one is load_plugins
    return "".join(told.format(chain=False)).rstrip()


def key(
    default: Any, doc: str, *, unit: str = "", least: float | None = None,
    most: float | None = None, above: float | None = None, below: float | None = None,
    choices: Sequence[str] = (),
) -> Any:  # fmt: skip
    """A field of a :class:`Settings` dataclass.

    Args:
      default: its value unless the user says otherwise; a list or dict is copied.
      doc: its meaning, in a few words; ``docs/configuration.md`` shows it.
      unit: of a number.
      least: smallest number that it may be.
      most: largest one.
      above: what a number must be greater than.
      below: what it must be less than.
      choices: the valid names.
    """
    bounds = {"least": least, "most": most, "above": above, "below": below}
    metadata = {"doc": doc, "unit": unit, "choices": tuple(choices), **bounds}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@functools.cache
def key_names(settings: type) -> tuple[str, ...]:
    """The keys of a dataclass, in their order."""
    return tuple(item.name for item in fields(settings))  # type: ignore[arg-type]


def check_values(group: str, settings: Settings) -> None:
    """Compares every value with its key's type, bounds and choices.

    Args:
      group: what the keys are called under, e.g. ``overlay``; "" for the run's own.
      settings: the values.

    Raises:
      ConfigError: names the key, the value and the fix.
    """
    for name, metadata, may_be_null, kind, text in _rules(type(settings)):
        value = getattr(settings, name)
        if value is None and may_be_null:
            continue
        expected = _expected(value, kind, text, metadata)
        if expected:
            raise ConfigError(f"{group}.{name}" if group else name, value, expected)
    settings.check()


@functools.cache
def hints(settings: type) -> dict[str, Any]:
    """The types of a dataclass's keys."""
    return typing.get_type_hints(settings)


@functools.cache
def _rules(settings: type) -> list[tuple[str, typing.Mapping[str, Any], bool, type, str]]:
    """Of each key: its name, metadata, whether it may be null, its type, and that in words."""
    rules = []
    for item in fields(settings):  # type: ignore[arg-type]
        hint = hints(settings)[item.name]
        union = typing.get_origin(hint) in (types.UnionType, typing.Union)
        kinds = set(typing.get_args(hint)) if union else {hint}
        kind, text = next(
            (_KINDS[kind] for kind in (float, int, bool, str) if kind in kinds), (object, "")
        )
        may_be_null = bool(kinds & {types.NoneType, Any})
        rules.append((item.name, item.metadata, may_be_null, kind, text))
    return rules


def bounds_text(metadata: typing.Mapping[str, Any]) -> str:
    """The bounds of a key in words; empty where it has none."""
    words = {"least": "at least", "above": "more than", "most": "at most", "below": "less than"}
    stated = [(text, metadata.get(name)) for name, text in words.items()]
    return ", ".join(f"{text} {bound}" for text, bound in stated if bound is not None)


def _expected(value: Any, kind: type, text: str, metadata: typing.Mapping[str, Any]) -> str:
    """What the value should have been; empty if it is that."""
    valid = metadata.get("choices")
    if valid and value not in valid:
        return nearest(str(value), valid)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool and text):
        return _fix(text, metadata)
    if not isinstance(value, Real) or isinstance(value, bool) or not text:
        return ""
    least, most = metadata.get("least"), metadata.get("most")
    above, below = metadata.get("above"), metadata.get("below")
    within = (
        math.isfinite(value)
        and (least is None or value >= least)
        and (most is None or value <= most)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    return "" if within else _fix(text, metadata)


def _fix(text: str, metadata: typing.Mapping[str, Any]) -> str:
    bounds = bounds_text(metadata)
    return f"give {text}{': ' * bool(bounds)}{bounds} ({metadata.get('doc', 'see its class')})"
