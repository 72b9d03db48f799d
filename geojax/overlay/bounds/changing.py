"""When a synchronization can end at the earliest, if rates change while it is under way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import NamedTuple

from geojax.overlay.bounds.release import (
    Earliest,
    Members,
    earliest_by_delays,
    later_offers,
    rate_of,
)
from geojax.overlay.view import Edge, NetworkView

Spell = tuple[float, Mapping[Edge, float]]  # from when on, s, which rates are in force, bit/s

SHORT = 1e-3  # by which share of the time since the offer an end may be short of the least


def mean_rates(spells: Sequence[Spell], start: float, end: float) -> dict[Edge, float]:
    """Each link's mean rate from an instant to a later one, bit/s.

    Args:
      spells: in order of time, of the same links; the first begins at ``start`` or before, the last
        does not end.
      start: the instant, s.
      end: the later one, s.

    >>> mean_rates([(0.0, {("a", "b"): 8.0}), (3.0, {("a", "b"): 2.0})], 1.0, 4.0)
    {('a', 'b'): 6.0}
    """
    begins = [at for at, _ in spells]
    parts = [
        (max(0.0, min(until, end) - max(begun, start)) / (end - start), rates)
        for (begun, rates), until in zip(spells, [*begins[1:], math.inf], strict=True)
    ]
    return {edge: sum(part * rates[edge] for part, rates in parts) for edge in spells[0][1]}


def earliest_ends(
    view: NetworkView,
    spells: Sequence[Spell],
    bits: float,
    offers: Mapping[str, float],
    held: float,
    goodput: float = 1.0,
) -> tuple[Earliest, Earliest]:
    """What :func:`geojax.overlay.bounds.release.earliest_end` is where rates change meanwhile.

    Of what the members L offer at the instant t or later nothing moves before t. From then to the
    end a link carries no more than its mean rate c times (end - t), an access cap no more than
    (end - t) times itself. What crosses the links in this time, all added up, satisfies the linear
    program of the fluid optimum X(L), with these amounts for its limits. If all of its limits are
    (end - t) times as large, so is X. So, whatever is sent when::

        M / goodput ≤ (end - t) · X(L; c from t to end)

    The right side never falls as the end moves on: the least end is between an end at which it is
    too small and one at which it is not. This holds for every L. At whole link rates, taken is the
    L that decides at goodput: where another one does, the bound is lower than it could be. For
    delays, all ways count that have a rate at any time.

    Args:
      view: the WAN; its rates do not matter.
      spells: which rates are in force when, from the first offer or before on.
      bits: size M of the vector.
      offers: when each member makes its offer, s.
      held: when the synchronization ended, later than the first offer. If it ended before it
        could, the bound is that of its mean rates: later than ``held``, and perhaps than the least.
      goodput: what of the rates there is for the elements.

    Returns:
      The earliest end at whole link rates and at goodput, or up to ``SHORT`` of the time since the
      offer before it.

    >>> edges = [("a", "b"), ("b", "a")]
    >>> view = NetworkView(("a", "b"), dict.fromkeys(edges, 8e6), {})
    >>> spells = [(0.0, view.rate), (3.0, dict.fromkeys(edges, 2e6))]
    >>> found, _ = earliest_ends(view, spells, 28e6, {"a": 0.0, "b": 0.0}, 6.0)  # 24e6 until 3 s
    >>> 5.0 * (1 - SHORT) <= found.by_rates <= 5.0
    True
    """
    members, starts = tuple(offers), sorted(set(offers.values()))

    def moved(start: float, later: Members, end: float) -> float:
        mean = replace(view, rate=mean_rates(spells, start, end))
        return (end - start) * rate_of(mean, members, later)

    def end_of(wait: _Wait, amount: float) -> float:
        if wait.total < amount:
            return wait.estimate(amount, held)
        return _least_end(partial(moved, wait.start, wait.later), amount, held, wait)

    meanwhile = replace(view, rate=mean_rates(spells, starts[0], held))
    by_delays = earliest_by_delays(meanwhile, offers)
    waits = [
        _Wait(start, later, moved(start, later, held))
        for start, later in zip(starts, later_offers(offers), strict=True)
        if start < held
    ]
    amount = bits / goodput
    waits.sort(key=lambda wait: wait.estimate(amount, held), reverse=True)
    decides, least = waits[0], end_of(waits[0], amount)
    for wait in waits[1:] if least < math.inf else ():
        if least <= wait.start or moved(wait.start, wait.later, least) < amount:
            decides, least = max((decides, least), (wait, end_of(wait, amount)), key=itemgetter(1))
    whole = least if goodput == 1 else end_of(decides, bits)
    return Earliest(whole, by_delays), Earliest(least, by_delays)


class _Wait(NamedTuple):
    """For what the members ``later`` offer at ``start`` or later; ``total``: bits until held."""

    start: float
    later: Members
    total: float

    def estimate(self, amount: float, held: float) -> float:
        """Its end if the mean rates until ``held`` stayed, s."""
        share = amount / self.total if self.total > 0 else math.inf
        return self.start + (held - self.start) * share


def _least_end(moved: Callable[[float], float], amount: float, held: float, wait: _Wait) -> float:
    """The least end by which so much can have moved, or a little less (``SHORT``).

    Regula falsi in Illinois form: the line between both ends, of which one that stays for long
    counts half. Guesses keep away from both ends, so that the last one may be on either side.

    Args:
      moved: bits by an end, s; never falls.
      amount: bits.
      held: enough has moved by then.
      wait: when it began, and what has moved by ``held``.
    """
    start = low = wait.start
    below, high, above = amount, held, wait.total - amount
    stayed = 0  # guesses on one side in succession; above 0: ``low`` has stayed
    while high - low > (step := SHORT * (high - start)):
        guess = low + (high - low) * below / (below + above)
        guess = min(max(guess, low + step / 2), high - step / 2)
        more = moved(guess) - amount
        if more >= 0:
            high, above, stayed = guess, more, max(stayed, 0) + 1
            below /= 2 if stayed > 1 else 1
        else:
            low, below, stayed = guess, -more, min(stayed, 0) - 1
            above /= 2 if stayed < -1 else 1
    return low
