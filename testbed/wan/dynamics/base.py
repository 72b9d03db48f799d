"""What every kind of dynamics is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from geojax.overlay.view import Edge

MBIT = 1e6  # bit/s in one Mbit/s


@dataclass(frozen=True)
class Change:
    """At one instant, some directed links get new rates.

    Attributes:
      at: experiment time, s.
      rates: the new rate of every link that changes, bit/s; 0 stops the link.
    """

    at: float
    rates: Mapping[Edge, float]


def change_event(change: Change) -> dict[str, Any]:
    """The event of a change of link rates, bit/s."""
    rates = [[*edge, rate] for edge, rate in change.rates.items()]
    return {"t": round(change.at, 9), "node": "wan", "event": "rates", "rates": rates}


@dataclass(frozen=True)
class Event:
    """What one script does at one instant; :class:`testbed.wan.dynamics.Scripts` joins them.

    Attributes:
      at: experiment time, s.
      rates: links whose rate is set, bit/s.
      factors: links whose rate is multiplied from now on, in place of this script's factor before.
    """

    at: float
    rates: Mapping[Edge, float] = field(default_factory=dict)
    factors: Mapping[Edge, float] = field(default_factory=dict)


class Dynamics(Protocol):
    """What a WAN's dynamics can be asked; implementations are frozen dataclasses."""

    kind: ClassVar[str]

    def initial(self, edges: Sequence[Edge]) -> dict[Edge, float] | None:
        """Rates at t = 0 that replace stated ones, bit/s; None: there are none."""
        ...

    def changes(self, edges: Sequence[Edge], after: float) -> Iterator[Change]:
        """Changes later than ``after`` s in time order, possibly without end."""
        ...

    def summary(self) -> dict[str, Any]:
        """Kind and settings, JSON-ready and short."""
        ...


class Script(Protocol):
    """A script that acts together with others."""

    kind: ClassVar[str]

    def events(self) -> Iterator[Event]:
        """All events in time order from t = 0 on, possibly without end."""
        ...

    def summary(self) -> dict[str, Any]:
        """Kind and settings, JSON-ready and short."""
        ...
