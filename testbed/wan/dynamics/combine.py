"""Dynamics by name, and several of them acting together."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

from geojax import fields
from geojax.errors import ConfigError, nearest
from geojax.overlay.view import Edge
from geojax.registry import Registry
from testbed.wan.dynamics.base import Change, Dynamics, Event, Script
from testbed.wan.dynamics.draws import Constant, Draw, Redraw, read_draw, read_redraw
from testbed.wan.dynamics.scripts import read_outage, read_steps
from testbed.wan.dynamics.traces import read_trace


@dataclass(frozen=True)
class Scripts:
    """Scripts that act together on the rates of a base.

    A link's rate is what was set last, by the base or a script, times the factors of all scripts.

    Attributes:
      base: stated rates, one draw, or redraws.
      scripts: in the order of the description.
      stated: stated rates of links, bit/s, in the order of the WAN's links.
    """

    kind: ClassVar[str] = "script"
    base: Constant | Redraw
    scripts: tuple[Script, ...]
    stated: tuple[tuple[Edge, float], ...]

    def initial(self, edges: Sequence[Edge]) -> dict[Edge, float]:
        """The base's rates, and what traces say of t = 0."""
        rates = dict(self.stated) | (self.base.initial(edges) or {})
        for script in self.scripts:
            for event in script.events():
                if event.at > 0:
                    break
                rates.update(event.rates)
        return rates

    def changes(self, edges: Sequence[Edge], after: float) -> Iterator[Change]:
        """Plays all scripts from t = 0 and gives what comes later than ``after``."""
        rates = self.initial(edges)
        factors: list[dict[Edge, float]] = [{} for _ in range(len(self.scripts) + 1)]
        redrawn = (Event(change.at, change.rates) for change in self.base.changes(edges, 0.0))
        played = [redrawn, *(script.events() for script in self.scripts)]
        streams = [_numbered(number, events) for number, events in enumerate(played)]
        merged = heapq.merge(*streams, key=lambda item: (item[1].at, item[0]))
        for at, instant in groupby(merged, key=lambda item: item[1].at):
            touched: dict[Edge, None] = {}
            for number, event in instant:
                rates.update(event.rates)
                factors[number].update(event.factors)
                touched.update(dict.fromkeys((*event.rates, *event.factors)))
            if at > max(after, 0.0):
                now = {
                    edge: rates[edge] * math.prod(own.get(edge, 1.0) for own in factors)
                    for edge in edges
                    if edge in touched
                }
                yield Change(at, now)

    def summary(self) -> dict[str, Any]:
        """See :class:`~testbed.wan.dynamics.base.Dynamics`."""
        parts = [script.summary() for script in self.scripts]
        return {"kind": self.kind, "base": self.base.summary(), "parts": parts}


def _numbered(number: int, events: Iterator[Event]) -> Iterator[tuple[int, Event]]:
    return ((number, event) for event in events)


class _Given:
    """What a script's reader may need to know.

    Attributes:
      draw: ``wan.draw``, if there is one.
      seed: of all draws.
      edges: the WAN's links, as a mapping for quick look-up.
    """

    def __init__(self, draw: Draw | None, seed: int, edges: Iterable[Edge]):
        self.draw, self.seed, self.edges = draw, seed, dict.fromkeys(edges)


DYNAMICS: Registry[Callable[[str, Mapping, _Given], Constant | Redraw | Script]] = Registry(
    "wan.dynamics.kind"
)


@DYNAMICS.register("constant")
def _constant(key: str, settings: Mapping, given: _Given) -> Constant:
    fields.mapping(key, settings, ("kind",))
    return Constant(given.draw)


@DYNAMICS.register("redraw")
def _redraw(key: str, settings: Mapping, given: _Given) -> Redraw:
    return read_redraw(key, settings, given.draw, given.seed)


@DYNAMICS.register("steps")
def _steps(key: str, settings: Mapping, given: _Given) -> Script:
    return read_steps(key, settings, given.edges)


@DYNAMICS.register("trace")
def _trace(key: str, settings: Mapping, given: _Given) -> Script:
    return read_trace(key, settings, given.edges)


@DYNAMICS.register("outage")
def _outage(key: str, settings: Mapping, given: _Given) -> Script:
    return read_outage(key, settings, given.edges)


def build_dynamics(
    value: object, draw: object, seed: int, stated: Mapping[Edge, float | None] | None = None
) -> Dynamics:
    """The dynamics that ``wan.dynamics`` and ``wan.draw`` describe.

    Args:
      value: ``wan.dynamics``: None, a mapping with ``kind`` and that kind's settings, or a list.
      draw: ``wan.draw``: None, or ``{low, high}``.
      seed: of all draws.
      stated: the WAN's links in order, with their stated rates in bit/s, if they have any.

    Raises:
      ConfigError: names the key, the value and the fix.
    """
    links = stated or {}
    drawn = None if draw is None else read_draw("wan.draw", draw, seed)
    given = _Given(drawn, seed, links)
    keyed: list[tuple[str, object]] = [] if value is None else [("wan.dynamics", value)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        keyed = [(f"wan.dynamics[{index}]", entry) for index, entry in enumerate(value)]
    bases: list[Constant | Redraw] = []
    scripts: list[Script] = []
    for key, entry in keyed:
        read = _read(key, entry, given)
        if not isinstance(read, Constant | Redraw):
            scripts.append(read)
            continue
        bases.append(read)
        if len(bases) > 1:
            fix = "a WAN has one of constant and redraw; the others may be combined with it"
            raise ConfigError(key, entry, fix)
    base = bases[0] if bases else Constant(drawn)
    if not scripts:
        return base
    known = tuple((edge, rate) for edge, rate in links.items() if rate is not None)
    return Scripts(base, tuple(scripts), known)


def _read(key: str, entry: object, given: _Given) -> Constant | Redraw | Script:
    if not isinstance(entry, Mapping) or "kind" not in entry:
        fix = f"write a mapping with a kind; kinds: {', '.join(DYNAMICS)}"
        raise ConfigError(key, entry, fix)
    kind = str(entry["kind"])
    if kind not in DYNAMICS:
        raise ConfigError(f"{key}.kind", entry["kind"], nearest(kind, DYNAMICS))
    return DYNAMICS[kind](key, entry, given)
