"""How many TCP connections cross a WAN side by side: ``wan.connections``."""

from __future__ import annotations

import itertools
import math

from geojax import fields
from geojax.config import WanConfig
from geojax.errors import ConfigError
from geojax.hips.cluster import Connections
from testbed.wan.tcp_rates import enough
from testbed.wan.types import Wan

AUTO = "auto"
MOST = 256  # each takes a thread at both ends


def connections_of(config: WanConfig, wan: Wan, congestion_control: str) -> Connections:
    """Reads ``wan.connections``; ``auto`` is decided by the links as they are at t = 0.

    Args:
      config: of the WAN.
      wan: made of it.
      congestion_control: TCP's.

    Raises:
      ConfigError: it is neither a number nor ``auto``.
    """
    stated = config.connections
    if stated != AUTO:
        what = f"{AUTO}, or the TCP connections between nodes of two centers"
        common = fields.integer("wan.connections", stated, what, least=1)
        if common > MOST:
            fix = f"each takes a thread at both ends; use at most {MOST}, or {AUTO}"
            raise ConfigError("wan.connections", stated, fix)
        return Connections(common)
    links, paths = {link.edge: link for link in wan.links}, wan.routes()
    centers = {center.name: center for center in wan.centers}
    pairs: dict[tuple[str, str], int] = {}
    for (source, target), path in paths.items():
        if source == target:
            continue
        there = [links[edge] for edge in itertools.pairwise(path)]
        back = [links[edge] for edge in itertools.pairwise(paths[target, source])]
        caps = [centers[link.source].egress for link in there]
        caps += [centers[link.target].ingress for link in there]
        rate = min([link.rate for link in there] + [cap for cap in caps if cap is not None])
        round_trip = sum(link.delay for link in (*there, *back))
        loss = 1 - math.prod(1 - link.loss for link in there)
        count = enough(congestion_control, rate, round_trip, loss)
        if count > 1:
            pairs[source, target] = count
    return Connections(1, pairs)
