"""Rates drawn at random: once for the whole run, or anew each period."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any, ClassVar

import numpy as np

from geojax import fields
from geojax.errors import ConfigError
from geojax.overlay.view import Edge
from testbed.wan.dynamics.base import MBIT, Change


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

    def summary(self) -> dict[str, Any]:
        """See :class:`~testbed.wan.dynamics.base.Dynamics`."""
        return {"kind": self.kind, **asdict(self)}


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

    def summary(self) -> dict[str, Any]:
        """See :class:`~testbed.wan.dynamics.base.Dynamics`."""
        return {"kind": self.kind, **asdict(self)}


def read_draw(key: str, value: object, seed: int) -> Draw:
    """Reads ``{low, high}``, whole Mbit/s."""
    stated = fields.mapping(key, value, ("low", "high"))
    low = fields.integer(f"{key}.low", stated.get("low"), "the lowest rate in Mbit/s", least=1)
    high = fields.integer(f"{key}.high", stated.get("high"), "the highest rate in Mbit/s", least=1)
    if high < low:
        raise ConfigError(f"{key}.high", high, f"must not lie below {key}.low = {low}")
    return Draw(low, high, seed)


def read_redraw(key: str, settings: Mapping, draw: Draw | None, seed: int) -> Redraw:
    """Reads ``{kind: redraw, period_s, low, high}``; the limits may stand in ``wan.draw``."""
    stated = fields.mapping(key, settings, ("kind", "period_s", "low", "high"))
    what = "the seconds between two draws"
    period = fields.number(f"{key}.period_s", stated.get("period_s"), what)
    limits = {name: stated[name] for name in ("low", "high") if name in stated}
    if draw is None or limits:
        own = read_draw(key, limits, seed)
        if draw is not None and own != draw:
            fix = "the redrawn rates differ from wan.draw; state them in one place"
            raise ConfigError(key, dict(settings), fix)
        draw = own
    return Redraw(period, draw)
