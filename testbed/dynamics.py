"""How the rates of a WAN change over experiment time; seeded, and the same in every testbed.

A dynamics object speaks of unscaled rates (bit/s); :class:`testbed.wan.Wan` applies
``wan.bandwidth_scale``. Draw number k depends on the seed and k alone, so changes can be replayed
from any instant, and reading ahead never alters them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar, Protocol

import numpy as np

from geojax.errors import ConfigError
from geojax.overlay.view import Edge
from geojax.registry import Registry
from testbed import wan_fields

MBIT = 1e6  # bit/s in one Mbit/s


@dataclass(frozen=True)
class Change:
    """At one instant, some directed links get new rates.

    Attributes:
      at: experiment time, s.
      rates: the new rate of every link that changes, bit/s.
    """

    at: float
    rates: Mapping[Edge, float]


class Dynamics(Protocol):
    """What a kind of dynamics can be asked; implementations are frozen dataclasses."""

    kind: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def initial(self, edges: Sequence[Edge]) -> dict[Edge, float] | None:
        """Rates at t = 0, bit/s; None: those that the description states."""
        ...

    def changes(self, edges: Sequence[Edge], after: float) -> Iterator[Change]:
        """Changes later than ``after`` s in time order, possibly without end."""
        ...


@dataclass(frozen=True)
class Draw:
    """Independent uniform integer rates, one for each directed link.

    Attributes:
      low: smallest rate, Mbit/s.
      high: largest rate (included), Mbit/s.
      seed: of all draws.
    """

    low: int
    high: int
    seed: int

    def rates(self, index: int, edges: Sequence[Edge]) -> dict[Edge, float]:
        """Draw number ``index``, bit/s, in the order of ``edges``; from a stream of its own."""
        stream = np.random.default_rng([self.seed, index])
        drawn = stream.integers(self.low, self.high, size=len(edges), endpoint=True)
        return {edge: int(rate) * MBIT for edge, rate in zip(edges, drawn, strict=True)}


@dataclass(frozen=True)
class Constant:
    """Rates never change: those that were stated, or one ``draw`` for the whole run."""

    kind: ClassVar[str] = "constant"
    draw: Draw | None = None

    def initial(self, edges: Sequence[Edge]) -> dict[Edge, float] | None:
        """Draw number 0, if rates are drawn."""
        return None if self.draw is None else self.draw.rates(0, edges)

    def changes(self, edges: Sequence[Edge], after: float) -> Iterator[Change]:  # noqa: ARG002
        """None at all."""
        return iter(())


@dataclass(frozen=True)
class Redraw:
    """Every rate is drawn anew each period (NetStorm's dynamic network: 20..155, every 180 s).

    Attributes:
      period_s: experiment time between two draws, s; draw k is in force from ``k * period_s``.
      draw: the distribution.
    """

    kind: ClassVar[str] = "redraw"
    period_s: float
    draw: Draw

    def initial(self, edges: Sequence[Edge]) -> dict[Edge, float]:
        """Draw number 0."""
        return self.draw.rates(0, edges)

    def changes(self, edges: Sequence[Edge], after: float) -> Iterator[Change]:
        """Draws 1, 2, … as far as they are later than ``after``."""
        if not edges:
            return
        first = max(1, int(after / self.period_s))
        for index in count(first):
            at = index * self.period_s
            if at > after:
                yield Change(at, self.draw.rates(index, edges))


DYNAMICS: Registry[Callable[[Mapping, Draw | None, int], Dynamics]] = Registry("wan.dynamics.kind")


def read_draw(key: str, value: object, seed: int) -> Draw:
    """Reads ``{low, high}``, whole Mbit/s."""
    stated = wan_fields.mapping(key, value, ("low", "high"))
    low = wan_fields.integer(f"{key}.low", stated.get("low"), "the lowest rate in Mbit/s", least=1)
    high = wan_fields.integer(
        f"{key}.high", stated.get("high"), "the highest rate in Mbit/s", least=1
    )
    if high < low:
        raise ConfigError(f"{key}.high", high, f"must not lie below {key}.low = {low}")
    return Draw(low, high, seed)


@DYNAMICS.register("constant")
def _constant(settings: Mapping, draw: Draw | None, seed: int) -> Constant:  # noqa: ARG001
    wan_fields.mapping("wan.dynamics", settings, ("kind",))
    return Constant(draw)


@DYNAMICS.register("redraw")
def _redraw(settings: Mapping, draw: Draw | None, seed: int) -> Redraw:
    stated = wan_fields.mapping("wan.dynamics", settings, ("kind", "period_s", "low", "high"))
    period = wan_fields.number(
        "wan.dynamics.period_s", stated.get("period_s"), "the seconds between two draws"
    )
    limits = {name: stated[name] for name in ("low", "high") if name in stated}
    if draw is None or limits:
        own = read_draw("wan.dynamics", limits, seed)
        if draw is not None and own != draw:
            fix = "the redrawn rates differ from wan.draw; state them in one place"
            raise ConfigError("wan.dynamics", dict(settings), fix)
        draw = own
    return Redraw(period, draw)


def build_dynamics(value: object, draw: object, seed: int) -> Dynamics:
    """The dynamics that ``wan.dynamics`` and ``wan.draw`` describe.

    Args:
      value: ``wan.dynamics``: None, or a mapping with ``kind`` and that kind's settings.
      draw: ``wan.draw``: None, or ``{low, high}``.
      seed: of all draws.
    """
    drawn = None if draw is None else read_draw("wan.draw", draw, seed)
    if value is None:
        return Constant(drawn)
    if not isinstance(value, Mapping) or "kind" not in value:
        fix = f"write a mapping with a kind; kinds: {', '.join(DYNAMICS)}"
        raise ConfigError("wan.dynamics", value, fix)
    return DYNAMICS[str(value["kind"])](value, drawn, seed)
