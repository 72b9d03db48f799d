"""The start of a run at the scheduler: who has joined, with which vector."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geojax.config import TimeoutsConfig
from geojax.errors import GeojaxError
from geojax.hips.cluster import Cluster
from geojax.hollow import is_hollow
from geojax.machine.waits import wait_for

log = logging.getLogger("geojax.scheduler")


class JoinBarrier:
    """Gathers the members of a run.

    Args:
      cluster: all nodes; all members must join.
      timeouts: ``start`` bounds the wait.

    Attributes:
      elements: of the vector of each member that has joined; 0: it has none.
      digests: of initial vectors, by member.
    """

    def __init__(self, cluster: Cluster, timeouts: TimeoutsConfig):
        self._cluster, self._timeouts = cluster, timeouts
        self._all: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.elements: dict[str, int] = {}
        self.digests: dict[str, str] = {}

    async def gather(self) -> None:
        """Waits until all members have joined.

        Raises:
          WaitTimeout: they did not in time; names the missing ones.
          GeojaxError: their vectors differ in size.
        """
        members = self._cluster.members

        def missing() -> str:
            absent = [name for name in members if name not in self.elements]
            return f"join of {', '.join(absent)} ({len(absent)} of {len(members)} nodes)"

        timeouts = self._timeouts
        await wait_for(self._all, describe=missing, timeout=timeouts.start, warn=timeouts.warn)
        counts = {n: c for n, c in self.elements.items() if n not in self._cluster.global_servers}
        if len(set(counts.values())) > 1:
            raise GeojaxError(
                "the nodes' models differ in size (elements of the vector): "
                + ", ".join(f"{name} {count}" for name, count in counts.items())
            )

    def take(self, name: str, body: Mapping[str, Any]) -> None:
        """A member joins."""
        self.elements[name] = int(body["elements"])
        if body.get("digest") is not None:
            self.digests[name] = str(body["digest"])
        members: Sequence[str] = self._cluster.members
        log.info("%s joined (%d of %d)", name, len(self.elements), len(members))
        if self.elements.keys() >= {*members} and not self._all.done():
            self._all.set_result(None)

    def fail(self, error: BaseException) -> bool:
        """Ends :meth:`gather` with an error; false if it has ended already."""
        waiting = not self._all.done()
        if waiting:
            self._all.set_exception(error)
        return waiting


def digest(vector: np.ndarray) -> str:
    """A short digest of a vector's bytes."""
    content = vector[:1].tobytes() if is_hollow(vector) else vector.tobytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def senders(digests: Mapping[str, str], alive: Sequence[str], cluster: Cluster) -> dict[str, str]:
    """Who gets the initial vector from whom: a center from the master, a worker from its center.

    Args:
      digests: of the initial vectors, by node; a global server without parameters has none.
      alive: the members.
      cluster: all nodes.

    Returns:
      The source of every node whose vector is not the master's.
    """
    master = next(name for name in cluster.servers if name in alive)
    right = digests.get(master)
    differing = [name for name in alive if digests.get(name, right) != right]
    return {
        name: master if name in cluster.servers else cluster.node(name).center for name in differing
    }
