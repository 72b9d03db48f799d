"""Scripted changes: steps of rates or factors, and outages; and how a script names links."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from geojax import fields
from geojax.errors import ConfigError
from geojax.overlay.view import Edge
from testbed.wan import fields as wan_fields
from testbed.wan.dynamics.base import MBIT, Event

SELECTORS = ("all", "center", "between", "from", "to", "links")  # how an entry names its links


@dataclass(frozen=True)
class Step:
    """New rates or factors at one instant.

    Attributes:
      at: experiment time, s, above 0.
      edges: the directed links it is about.
      rate: bit/s; None: ``factor`` counts.
      factor: of the rate; None: ``rate`` counts.
    """

    at: float
    edges: tuple[Edge, ...]
    rate: float | None = None
    factor: float | None = None

    def event(self) -> Event:
        """The step as an event; a rate ends this script's earlier factor."""
        if self.factor is not None:
            return Event(self.at, factors=dict.fromkeys(self.edges, self.factor))
        assert self.rate is not None
        return Event(self.at, dict.fromkeys(self.edges, self.rate), dict.fromkeys(self.edges, 1.0))


@dataclass(frozen=True)
class Steps:
    """A list of steps in time order."""

    kind: ClassVar[str] = "steps"
    steps: tuple[Step, ...]

    def events(self) -> Iterator[Event]:
        """One event a step."""
        return (step.event() for step in self.steps)

    def summary(self) -> dict[str, Any]:
        """Number of steps, and when the last one comes."""
        return {"kind": self.kind, "steps": len(self.steps), "last_at": self.steps[-1].at}


@dataclass(frozen=True)
class Outage:
    """Links carry nothing for a while; what is under way waits.

    Attributes:
      edges: the directed links.
      at: when it begins, s of experiment time, above 0.
      duration: s.
    """

    kind: ClassVar[str] = "outage"
    edges: tuple[Edge, ...]
    at: float
    duration: float

    def events(self) -> Iterator[Event]:
        """Factor 0, then 1 again."""
        yield Event(self.at, factors=dict.fromkeys(self.edges, 0.0))
        yield Event(self.at + self.duration, factors=dict.fromkeys(self.edges, 1.0))

    def summary(self) -> dict[str, Any]:
        """Everything; links as "a->b"."""
        links = ["->".join(edge) for edge in self.edges]
        return {"kind": self.kind, "at": self.at, "duration": self.duration, "links": links}


def read_steps(key: str, settings: Mapping, edges: Collection[Edge]) -> Steps:
    """Reads ``{kind: steps, steps: [...]}``."""
    stated = fields.mapping(key, settings, ("kind", "steps"))
    entries = fields.sequence(f"{key}.steps", stated.get("steps"), "steps {at, ...}")
    if not entries:
        raise ConfigError(f"{key}.steps", entries, "write at least one step {at, ...}")
    steps = [_read_step(f"{key}.steps[{i}]", entry, edges) for i, entry in enumerate(entries)]
    return Steps(tuple(sorted(steps, key=lambda step: step.at)))


def _read_step(key: str, entry: object, edges: Collection[Edge]) -> Step:
    stated = fields.mapping(key, entry, ("at", "rate", "factor", *SELECTORS))
    at = _read_at(key, stated)
    chosen = read_links(key, stated, edges)
    if ("rate" in stated) == ("factor" in stated):
        raise ConfigError(key, dict(stated), "write either a rate in Mbit/s or a factor")
    if "rate" in stated:
        what = "the new rate in Mbit/s"
        rate = fields.number(f"{key}.rate", stated["rate"], what, zero=True)
        return Step(at, chosen, rate=rate * MBIT)
    what = "the factor of the rate"
    factor = fields.number(f"{key}.factor", stated["factor"], what, zero=True)
    return Step(at, chosen, factor=factor)


def read_outage(key: str, settings: Mapping, edges: Collection[Edge]) -> Outage:
    """Reads ``{kind: outage, at, duration, LINKS}``."""
    stated = fields.mapping(key, settings, ("kind", "at", "duration", *SELECTORS))
    at = _read_at(key, stated)
    what = "the seconds that it lasts"
    duration = fields.number(f"{key}.duration", stated.get("duration"), what)
    return Outage(read_links(key, stated, edges), at, duration)


def _read_at(key: str, stated: Mapping) -> float:
    """An instant after the start: what holds at t = 0 is stated in the links."""
    return fields.number(f"{key}.at", stated.get("at"), "when, in seconds of experiment time")


def read_links(key: str, stated: Mapping, edges: Collection[Edge]) -> tuple[Edge, ...]:
    """The directed links that an entry names by one of ``SELECTORS``, in the WAN's order.

    >>> read_links("step", {"between": ["a", "b"]}, [("a", "b"), ("a", "c"), ("b", "a")])
    (('a', 'b'), ('b', 'a'))
    """
    used = {"from" if name == "to" else name for name in SELECTORS if name in stated}
    if len(used) != 1:
        fix = (
            "name links by exactly one of all: true, center: a, between: [a, b], from: a with "
            "to: b, or links: [...]"
        )
        raise ConfigError(key, dict(stated), fix)
    (used_name,) = used
    return _SELECT[used_name](key, stated, edges)


def _all(key: str, stated: Mapping, edges: Collection[Edge]) -> tuple[Edge, ...]:
    if stated["all"] is not True:
        raise ConfigError(f"{key}.all", stated["all"], "write true, or name links")
    return tuple(edges)


def _center(key: str, stated: Mapping, edges: Collection[Edge]) -> tuple[Edge, ...]:
    center = wan_fields.known_center(f"{key}.center", stated["center"], _centers(edges))
    return tuple(edge for edge in edges if center in edge)


def _pair(key: str, stated: Mapping, edges: Collection[Edge]) -> tuple[Edge, ...]:
    return wan_fields.existing_links(key, wan_fields.read_ends(key, stated, _centers(edges)), edges)


def _several(key: str, stated: Mapping, edges: Collection[Edge]) -> tuple[Edge, ...]:
    entries = fields.sequence(f"{key}.links", stated["links"], "links")
    chosen: dict[Edge, None] = {}
    for index, entry in enumerate(entries):
        inner = f"{key}.links[{index}]"
        named = fields.mapping(inner, entry, ("center", "between", "from", "to"))
        chosen.update(dict.fromkeys(read_links(inner, named, edges)))
    if not chosen:
        raise ConfigError(f"{key}.links", entries, "name at least one link")
    return tuple(edge for edge in edges if edge in chosen)


def _centers(edges: Collection[Edge]) -> dict[str, None]:
    return dict.fromkeys(center for edge in edges for center in edge)


_SELECT = {"all": _all, "center": _center, "between": _pair, "from": _pair, "links": _several}
