"""Which WAN links a message between two nodes crosses."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from geojax.hips.cluster import Cluster
from geojax.overlay.view import Edge
from testbed.wan.build import Wan


def hops(wan: Wan, cluster: Cluster) -> Mapping[Edge, tuple[Edge, ...]]:
    """The directed WAN links that a message between two nodes crosses, by (source, target)."""
    return _Hops(wan, cluster)


class _Hops(dict[Edge, tuple[Edge, ...]]):
    """Filled as it is asked: few pairs of a large WAN ever talk."""

    def __init__(self, wan: Wan, cluster: Cluster):
        super().__init__()
        self._paths = wan.routes()
        self._center = {place.name: place.center for place in cluster.all}

    def __missing__(self, pair: Edge) -> tuple[Edge, ...]:
        here, there = (self._center[name] for name in pair)
        crossed = () if here == there else tuple(itertools.pairwise(self._paths[here, there]))
        self[pair] = crossed
        return crossed
