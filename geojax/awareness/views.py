"""What the scheduler believes about the WAN: the truth, or what members measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

from geojax.awareness.link_rates import LinkRates
from geojax.overlay.routes.static_routes import routes
from geojax.overlay.view import Edge, NetworkView


class WanView(Protocol):
    """A view of the WAN that may change while a run goes on.

    Attributes:
      revision: grows whenever the view has changed enough to be looked at again.
    """

    @property
    def revision(self) -> int:
        """See above."""
        ...

    def view(self) -> NetworkView:
        """What is believed now."""
        ...

    def take(self, member: str, samples: Sequence[Sequence], now: float) -> None:
        """Takes what a member measured.

        Args:
          member: who.
          samples: the ``links`` of its heartbeat, as they came.
          now: experiment time, s.
        """
        ...


class OracleView:
    """The true rates, as the testbed sets them.

    Args:
      read: gives the view that is true now; another object as soon as anything has changed.

    >>> views = [NetworkView(("a", "b"), {("a", "b"): rate}, {}) for rate in (1e6, 2e6)]
    >>> view = OracleView(lambda: views[0])
    >>> view.revision
    0
    >>> del views[0]
    >>> view.revision, view.view().rate["a", "b"]
    (1, 2000000.0)
    """

    def __init__(self, read: Callable[[], NetworkView]):
        self._read, self._seen, self._revision = read, read(), 0

    @property
    def revision(self) -> int:
        """How often the view was found changed."""
        found = self._read()
        if found is not self._seen:
            self._seen = found
            self._revision += 1
        return self._revision

    def view(self) -> NetworkView:
        """The true view."""
        return self._read()

    def take(self, member: str, samples: Sequence[Sequence], now: float) -> None:
        """Whoever knows the truth needs no measurements."""


REVISED = 0.1  # relative change of a link's believed rate that is worth another look at the plan
# A link on which something waits and nothing moves for so long is out. Longer than TCP takes to
# recover from a burst of losses, shorter than the silence after which a member counts as dead.
OUT_AFTER_S = 2.0
ON_ITS_WAY_S = 1.0  # what a heartbeat says may be so old when it comes


class MeasuredView:
    """Believes what was measured; see :class:`geojax.awareness.views.WanView`.

    ``revision`` grows when the believed rate of any link has changed by more than ``REVISED`` since
    it last grew, and when a link goes out or comes back. (The released NetStorm takes the mean over
    the changed links. There, one link that fell can hide among many that hardly moved.)

    If nothing moves on a path of several links, none of them is taken to be out yet. They are
    ``suspects``, and each one is probed (:meth:`geojax.awareness.probing.Prober.suspected`).
    Without probes (``overlay.probe_after=0``) such an outage is found only if chunks also travel
    over the link alone.

    Args:
      known: the WAN's description, of which the rates are not looked at.
      center_of: the center of each member of the WAN group, by name.
    """

    def __init__(self, known: NetworkView, center_of: Mapping[str, str]):
        self._rates, self._center_of = LinkRates(known), center_of
        self._links, self._routes = known.rate, routes(known)
        self._standing: dict[str, set[Edge]] = {}  # paths on which nothing moves, by their start
        self._now = 0.0
        self._looked = self._rates.rates()  # when the revision grew last
        self.revision = 0

    def view(self) -> NetworkView:
        """What is believed now."""
        return self._rates.view(self._now)

    def last(self, edge: Edge) -> tuple[float, float]:
        """When a link was measured last, and the bytes of that; see :meth:`LinkRates.last`."""
        return self._rates.last(edge)

    @property
    def changed_at(self) -> float:
        """When a link was found changed last; see :class:`LinkRates`."""
        return self._rates.changed_at

    @property
    def out(self) -> tuple[Edge, ...]:
        """The links that are out."""
        return self._rates.out

    @property
    def now(self) -> float:
        """Experiment time of what was taken last, s."""
        return self._now

    @property
    def suspects(self) -> set[Edge]:
        """Links of which one may be out: those of paths of several links on which nothing moves."""
        pairs = (pair for standing in self._standing.values() for pair in standing)
        hops = (
            hop for pair in pairs if pair not in self._links for hop in pairwise(self._routes[pair])
        )
        return set(hops) - set(self._rates.out)

    def take(self, member: str, samples: Sequence[Sequence[Any]], now: float) -> None:
        """Takes ``links`` of a heartbeat, see :meth:`geojax.awareness.link_meter.LinkMeter.links`.

        A link away from this member is out while it says that nothing moves there; something
        that comes through, a probe or what was held up, ends it.
        """
        here = self._center_of.get(member)
        if here is None:  # a worker, which sees nothing of the WAN
            return
        self._now = max(self._now, now)
        standing = set()
        for peer, nbytes, seconds in samples:
            other = self._center_of[peer]
            if other == here:
                continue
            if nbytes:
                self._rates.take(other, here, nbytes, seconds, now)
            elif seconds >= OUT_AFTER_S and now - self._rates.moved((here, other)) > ON_ITS_WAY_S:
                standing.add((here, other))
        self._standing[here] = standing
        for edge in {*standing, *(edge for edge in self._rates.out if edge[0] == here)}:
            self._rates.set_out(edge, out=edge in standing)
        rates = self._rates.rates()
        if any(_changed(rates[edge], before) for edge, before in self._looked.items()):
            self._looked = rates
            self.revision += 1


def _changed(rate: float, before: float) -> bool:
    if not rate or not before:
        return rate != before
    return abs(rate / before - 1.0) > REVISED
