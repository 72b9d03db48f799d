"""What happens within a center whose local server waits for none of its workers."""

from __future__ import annotations

from geojax.sync.admission import immediately
from geojax.sync.algorithm import SyncAlgorithm
from geojax.sync.merging import mixing_in, one_by_one


def in_center(algorithm: SyncAlgorithm, server: str) -> SyncAlgorithm:
    """The algorithm on the LAN of the local server ``server``, which pushes there, too.

    Workers push deltas, each of which is one outer step. The local server pushes the parameters
    that came back over the WAN; see :class:`geojax.sync.algorithm.LanTier`.
    """
    tier = algorithm.lan
    assert tier is not None
    return algorithm._replace(
        merge=mixing_in(one_by_one(), server, tier.share), admission=immediately(),
        outer_default=tier.outer, outer_keys=tier.outer_keys,
    )  # fmt: skip
