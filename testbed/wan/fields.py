"""Reads what only a WAN description has: names of centers, ends of links, positions, estimates."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Real

from geojax import fields
from geojax.errors import ConfigError, nearest
from geojax.overlay.view import Edge

CENTER_NAME = re.compile(r"[a-z0-9_-]{1,40}")
RESERVED_NAMES = frozenset({"scheduler"})
EXTERNAL = "external"  # the site of scheduler and global servers, if they have their own


def center_name(key: str, value: object) -> str:
    """A short identifier that names a center, and with it a process."""
    if not isinstance(value, str):
        raise ConfigError(key, value, "write the center's name as text (in quotes if need be)")
    if value in RESERVED_NAMES:
        raise ConfigError(key, value, "this name belongs to a node of the run; choose another")
    if not CENTER_NAME.fullmatch(value):
        raise ConfigError(key, value, "use 1 to 40 of the characters a-z, 0-9, _ and -")
    return value


def known_center(key: str, value: object, centers: Iterable[str]) -> str:
    """The name of a center that exists."""
    names = centers if isinstance(centers, Mapping) else tuple(centers)
    if not isinstance(value, str) or value not in names:
        raise ConfigError(key, value, f"no such center; {nearest(str(value), names)}")
    return value


def read_ends(key: str, stated: Mapping, names: Mapping[str, None]) -> list[Edge]:
    """The one or two directed links meant by ``{between: [a, b]}`` or ``{from: a, to: b}``."""
    if ("between" in stated) == ("from" in stated or "to" in stated):
        fix = "write either {between: [a, b], ...} or {from: a, to: b, ...}"
        raise ConfigError(key, dict(stated), fix)
    if "between" in stated:
        ends = fields.sequence(f"{key}.between", stated["between"], "two centers")
        if len(ends) != 2:
            raise ConfigError(f"{key}.between", ends, "write exactly two centers")
        keys = f"{key}.between[0]", f"{key}.between[1]"
    else:
        ends = [stated.get("from"), stated.get("to")]
        keys = f"{key}.from", f"{key}.to"
    source, target = (known_center(k, end, names) for k, end in zip(keys, ends, strict=True))
    if source == target:
        raise ConfigError(key, f"{source}->{target}", "a link joins two different centers")
    return [(source, target), (target, source)] if "between" in stated else [(source, target)]


def existing_links(key: str, chosen: Sequence[Edge], edges: Collection[Edge]) -> tuple[Edge, ...]:
    """``chosen``, after a check that the WAN has all of these links."""
    for edge in chosen:
        if edge not in edges:
            fix = "the WAN has no such link; name one of wan.links"
            raise ConfigError(key, "->".join(edge), fix)
    return tuple(chosen)


def position(key: str, value: object) -> tuple[float, float]:
    """Two coordinates for pictures."""
    pair = fields.sequence(key, value, "two coordinates, e.g. longitude and latitude in degrees")
    if len(pair) != 2 or any(isinstance(x, bool) or not isinstance(x, Real) for x in pair):
        fix = "write two numbers, e.g. longitude and latitude in degrees"
        raise ConfigError(key, pair, fix)
    x, y = (float(x) for x in pair)
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ConfigError(key, pair, "write two finite numbers")
    return x, y


def estimates(key: str, value: object, valid: Iterable[str]) -> dict[str, str]:
    """Rules by which values were estimated: ``{rtt: "great-circle distance, ..."}``."""
    if value is None:
        return {}
    rules = fields.mapping(key, value, valid)
    for name, rule in rules.items():
        if not isinstance(rule, str) or not rule:
            raise ConfigError(f"{key}.{name}", rule, "write the rule of the estimate as text")
    return {name: str(rule) for name, rule in rules.items()}
