"""The smallest cut of a WAN: what bounds every exchange among all centers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from geojax.overlay.view import NetworkView

_INT_MAX = 2**31 - 1  # scipy's flows are 32-bit integers


class Cut(NamedTuple):
    """A division of the centers in two.

    Attributes:
      rate: what links and caps carry from one side to the other, bit/s.
      near: centers of the sending side.
      far: centers of the receiving side.
    """

    rate: float
    near: tuple[str, ...]
    far: tuple[str, ...]


def min_cut(view: NetworkView, members: Sequence[str] | None = None) -> Cut | None:
    """The smallest directed cut with members on both sides, access caps included.

    Every such cut divides the first member from some other one, in one direction or the other, so
    2(N-1) maximum flows find the smallest. A cap is an edge between a center and its access point.

    Args:
      view: the WAN.
      members: the centers that exchange, the others may relay; None: all centers.

    Returns:
      The cut; None for less than two members.

    >>> view = NetworkView(("a", "b"), rate={("a", "b"): 9e6, ("b", "a"): 5e6}, delay={})
    >>> min_cut(view)
    Cut(rate=5000000.0, near=('b',), far=('a',))
    """
    members = view.centers if members is None else members
    if len(members) < 2:
        return None
    first, *others = (view.centers.index(member) for member in members)
    capacities = _capacities(view)
    # flows in integers: the unit is small enough for about nine digits, large enough for no sum
    # to overflow
    unit = max(np.asarray(capacities.sum(axis=axis)).max() for axis in (0, 1)) / (_INT_MAX / 4)
    whole = capacities.copy()
    whole.data = np.maximum(np.rint(whole.data / unit), 1.0)
    whole = csr_array(whole, dtype=np.int32)
    flows = [
        (maximum_flow(whole, *ends).flow_value, ends)
        for other in others
        for ends in ((first, other), (other, first))
    ]
    source, target = min(flows, key=lambda flow: flow[0])[1]
    left = csr_array(whole - maximum_flow(whole, source, target).flow)
    left.eliminate_zeros()
    reached = set(breadth_first_order(left, source, return_predecessors=False).tolist())
    entries = capacities.tocoo()
    rate = sum(
        float(capacity)
        for start, end, capacity in zip(*entries.coords, entries.data, strict=True)
        if int(start) in reached and int(end) not in reached
    )
    near = tuple(c for index, c in enumerate(view.centers) if index in reached)
    far = tuple(c for index, c in enumerate(view.centers) if index not in reached)
    return Cut(rate, near, far)


def _capacities(view: NetworkView) -> csr_array:
    """The flow network: centers first, then one access point for each cap; bit/s."""
    points = {center: index for index, center in enumerate(view.centers)}
    leave, enter = dict(points), dict(points)
    edges: list[tuple[int, int, float]] = []
    count = len(points)
    for caps, ports, outward in ((view.egress, leave, True), (view.ingress, enter, False)):
        for center, cap in caps.items():
            ports[center] = count
            ends = (points[center], count) if outward else (count, points[center])
            edges.append((*ends, cap))
            count += 1
    edges += [(leave[a], enter[b], rate) for (a, b), rate in view.rate.items() if rate > 0]
    rows, columns, data = zip(*edges, strict=True)
    return csr_array((np.array(data, float), (rows, columns)), shape=(count, count))
