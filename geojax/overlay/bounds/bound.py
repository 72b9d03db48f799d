"""How fast a synchronization over a WAN can be: bounds that hold for every schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from geojax.overlay.bounds.latency import latency_bound
from geojax.overlay.view import NetworkView

BOUND_WORK = 6_000  # centers x links up to which the fluid optimum takes seconds at most


class Bounds(NamedTuple):
    """Lower bounds of the time of one synchronization, s; 0 for one member.

    Attributes:
      cut_s: every set of members must send one sum out, and get one result in.
      node_s: the same for single members.
      volume_s: all must carry what N members need at least, 2(N-1) transfers of every element.
      latency_s: a bit's path from the farthest member to the best root and back to the farthest.
      fluid_s: the fluid optimum (:func:`geojax.overlay.bounds.fluid.fluid_optimum`), never below
        the first three; reached in the limit of small chunks and no delay.
    """

    cut_s: float
    node_s: float
    volume_s: float
    latency_s: float
    fluid_s: float

    @property
    def bound_s(self) -> float:
        """The largest of all: no synchronization is faster."""
        return max(self)


def bounds(view: NetworkView, nbytes: float, members: Sequence[str] | None = None) -> Bounds:
    """Bounds of the time in which all members give ``nbytes`` and hold the sum of all.

    For lossless exchanges without compression; M = 8 ``nbytes``, c_ij the link rates, O_i and I_i
    the access caps::

        cut      M / min_S C(S),  C(S): what links and caps carry out of a set S of centers
        node     M / min_i min(Σ_j c_ij, O_i, Σ_j c_ji, I_i)
        volume   2(N-1) M / min(Σ_i min(Σ_j c_ij, O_i), Σ_i min(Σ_j c_ji, I_i))
        latency  min_v [max_u lat(u→v) + max_u lat(v→u)]

    Args:
      view: the WAN.
      nbytes: size of the vector.
      members: the centers that exchange, the others may relay or merge; None: all centers.

    >>> view = NetworkView(("a", "b"), rate={("a", "b"): 8e6, ("b", "a"): 4e6}, delay={})
    >>> found = bounds(view, 1e6)
    >>> found.fluid_s, found.latency_s, found.bound_s
    (2.0, 0.0, 2.0)
    """
    from geojax.overlay.bounds.cut import min_cut  # their SciPy is slow to load
    from geojax.overlay.bounds.fluid import fluid_optimum

    members = view.centers if members is None else members
    if len(members) < 2:
        return Bounds(0.0, 0.0, 0.0, 0.0, 0.0)
    if not any(rate > 0 for rate in view.rate.values()):
        return Bounds(*(math.inf,) * 5)
    bits = 8.0 * nbytes
    cut = min_cut(view, members)
    assert cut is not None
    out, into = _access(view)
    node = min(min(out[member], into[member]) for member in members)
    volume = min(sum(out.values()), sum(into.values()))
    return Bounds(
        cut_s=_time(bits, cut.rate),
        node_s=_time(bits, node),
        volume_s=_time(2.0 * (len(members) - 1) * bits, volume),
        latency_s=latency_bound(view, members),
        fluid_s=_time(bits, fluid_optimum(view, members)),
    )


def _access(view: NetworkView) -> tuple[dict[str, float], dict[str, float]]:
    """What leaves and what enters each center at most, bit/s."""
    out = dict.fromkeys(view.centers, 0.0)
    into = dict.fromkeys(view.centers, 0.0)
    for (source, target), rate in view.rate.items():
        out[source] += rate
        into[target] += rate
    return (
        {center: min(rate, view.egress.get(center, rate)) for center, rate in out.items()},
        {center: min(rate, view.ingress.get(center, rate)) for center, rate in into.items()},
    )


def _time(bits: float, rate: float) -> float:
    return bits / rate if rate > 0 else math.inf
