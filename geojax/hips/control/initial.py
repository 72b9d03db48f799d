"""The master's initial parameters win: who begins with others gets the master's before round 0.

All nodes compute the initial vector from the run's seed, so usually it is the same everywhere.
Where it is not (another version of a library, another kind of processor), centers would drift apart
from the first step on. As in GeoMX, one node's count: those of the first center.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from geojax.hips.cluster import Places
from geojax.hollow import is_hollow


def digest(vector: np.ndarray) -> str:
    """A short digest of a vector's bytes."""
    content = vector[:1].tobytes() if is_hollow(vector) else vector.tobytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def senders(digests: Mapping[str, str], alive: Sequence[str], places: Places) -> dict[str, str]:
    """Who gets the initial vector from whom: a center from the master, a worker from its center.

    Args:
      digests: of the initial vectors, by node; a global server without parameters has none.
      alive: the members.
      places: all nodes.

    Returns:
      The source of every node whose vector is not the master's.
    """
    master = next(name for name in places.servers if name in alive)
    right = digests.get(master)
    differing = [name for name in alive if digests.get(name, right) != right]
    return {
        name: master if name in places.servers else places.place(name).center for name in differing
    }
