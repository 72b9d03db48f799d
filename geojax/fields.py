"""Reads single values of a description; every mistake is refused under its full key."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from geojax.errors import ConfigError, nearest


def number(
    key: str, value: object, what: str, *, zero: bool = False, least: float | None = None
) -> float:
    """A finite number above 0, or of at least 0 if ``zero``, or of at least ``least``.

    Args:
      key: the full configuration key, for the message.
      value: what was given.
      what: what belongs there, with its unit, e.g. ``"the rate in Mbit/s"``.
      zero: whether 0 is allowed.
      least: the smallest number that is allowed.

    >>> number("wan.rate", 100, "the rate in Mbit/s")
    100.0
    """
    least = 0 if zero else least
    limit = "above 0" if least is None else f"of at least {least:g}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ConfigError(key, value, f"write {what}, a plain number {limit}")
    if not math.isfinite(value) or (value <= 0 if least is None else value < least):
        raise ConfigError(key, value, f"write {what}, a finite number {limit}")
    return float(value)


def integer(key: str, value: object, what: str, *, least: int) -> int:
    """A whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ConfigError(key, value, f"write {what}, a whole number of at least {least}")
    return int(value)


def share(key: str, value: object, what: str) -> float:
    """A number of at least 0 and below 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(key, value, f"write {what}, a number of at least 0 and below 1")
    return float(value)


def sequence(key: str, value: object, what: str) -> list[Any]:
    """A list; text is none."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(key, value, f"write a list of {what}")
    return list(value)


def mapping(key: str, value: object, valid: Iterable[str]) -> dict[str, object]:
    """A mapping with no other keys than ``valid``."""
    names = tuple(valid)
    if not isinstance(value, Mapping):
        raise ConfigError(key, value, f"write a mapping with the keys {', '.join(names)}")
    for name in value:
        if name not in names:
            raise ConfigError(f"{key}.{name}", value[name], f"no such key; {nearest(name, names)}")
    return dict(value)
