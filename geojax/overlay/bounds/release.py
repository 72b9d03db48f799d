"""When a synchronization can end at the earliest, if its members make their offers one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from geojax.overlay.bounds.latency import shortest_delays
from geojax.overlay.view import NetworkView

Members = frozenset[str]


class Earliest(NamedTuple):
    """The earliest end that the rates allow, and the one that delays allow; s, as the offers."""

    by_rates: float
    by_latency: float

    @property
    def end(self) -> float:
        """No synchronization ends before."""
        return max(self)


def later_offers(offers: Mapping[str, float]) -> tuple[Members, ...]:
    """Who offers at a member's instant or later, for each such instant, the earliest first.

    >>> [sorted(members) for members in later_offers({"a": 2.0, "b": 1.0, "c": 2.0})]
    [['a', 'b', 'c'], ['a', 'c']]
    """
    return tuple(
        frozenset(member for member, at in offers.items() if at >= first)
        for first in sorted(set(offers.values()))
    )


def rate_of(view: NetworkView, members: tuple[str, ...], later: Members) -> float:
    """The largest rate, bit/s, at which what some members offer can be summed and given to all."""
    from geojax.overlay.bounds.fluid import fluid_optimum  # its SciPy is slow to load

    return fluid_optimum(view, members, tuple(member for member in members if member in later))


def earliest_end(
    view: NetworkView,
    bits: float,
    offers: Mapping[str, float],
    rates: Mapping[Members, float],
    goodput: float = 1.0,
) -> Earliest:
    """The earliest end of a synchronization that sums every element at a root.

    Of what the members L_k offer at the instant t_k or later nothing moves before t_k, and all of
    it has to get to every element's root, summed on the way, and from there to all members. So with
    X(L) the fluid optimum for offers of L (:func:`geojax.overlay.bounds.fluid.fluid_optimum`)::

        end ≥ max_k  t_k + M / (goodput · X(L_k))
        end ≥ min_v  max_u (t_u + lat(u→v)) + max_w lat(v→w)

    For one instant this is the bound of :func:`geojax.overlay.bounds.bound.bounds`.

    Args:
      view: the WAN.
      bits: size M of the vector.
      offers: when each member makes its offer, s.
      rates: X(L) for each L of :func:`later_offers`, by :func:`rate_of`; bit/s.
      goodput: what of the rates there is for the elements.

    >>> edges = [("a", "b"), ("b", "a")]
    >>> view = NetworkView(("a", "b"), dict.fromkeys(edges, 8e6), dict.fromkeys(edges, 0.1))
    >>> offers = {"a": 0.0, "b": 5.0}
    >>> optima = {later: rate_of(view, ("a", "b"), later) for later in later_offers(offers)}
    >>> earliest_end(view, 8e6, offers, optima)
    Earliest(by_rates=6.0, by_latency=5.1)
    """
    by_rates = max(
        min(offers[member] for member in later) + bits / (goodput * rates[later])
        if rates[later] > 0 else float("inf")
        for later in later_offers(offers)
    )  # fmt: skip
    return Earliest(by_rates, earliest_by_delays(view, offers))


def earliest_by_delays(view: NetworkView, offers: Mapping[str, float]) -> float:
    """The earliest end that the delays of a WAN allow, s: the second line above."""
    delays = shortest_delays(view)
    position = {center: index for index, center in enumerate(view.centers)}
    chosen = [position[member] for member in offers]
    times = [[at] for at in offers.values()]
    gathered = (delays[chosen] + times).max(axis=0)
    return float((gathered + delays[:, chosen].max(axis=1)).min())
