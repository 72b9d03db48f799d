"""Who has joined a run, with which vector, at its start and when it comes back."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from geojax.config import TimeoutsConfig
from geojax.errors import Refused
from geojax.hips.cluster import Cluster
from geojax.hips.control.messages import Join
from geojax.hollow import is_hollow
from geojax.machine.waits import wait_for

log = logging.getLogger("geojax.scheduler")


class JoinBarrier:
    """Gathers the members of a run.

    All trainers have vectors of one size, cut alike: as that of the first one that joined.

    Args:
      cluster: all nodes; all members must join.
      timeouts: ``start`` bounds the wait.
      refused: why a message of a node was refused last.

    Attributes:
      joins: what each member said when it joined.
    """

    def __init__(self, cluster: Cluster, timeouts: TimeoutsConfig, refused: Mapping[str, str]):
        self._cluster, self._timeouts, self._refused = cluster, timeouts, refused
        self._all: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.joins: dict[str, Join] = {}

    async def gather(self) -> None:
        """Waits until all members have joined.

        Raises:
          WaitTimeout: they did not in time; names the missing ones, and why a join was refused.
        """
        members = self._cluster.members

        def missing() -> str:
            absent = [name for name in members if name not in self.joins]
            refused = [f"; refused that of {n}: {self._refused[n]}" for n in absent
                       if n in self._refused]  # fmt: skip
            count = f"({len(absent)} of {len(members)} nodes)"
            return f"join of {', '.join(absent)} {count}{''.join(refused)}"

        timeouts = self._timeouts
        await wait_for(self._all, describe=missing, timeout=timeouts.start, warn=timeouts.warn)

    def take(self, name: str, join: Join) -> None:
        """A member joins.

        Raises:
          Refused: its chunks or layers do not add up to its vector, or differ from those of others.
        """
        self._check(name, join)
        self.joins[name] = join
        members: Sequence[str] = self._cluster.members
        log.info("%s joined (%d of %d)", name, len(self.joins), len(members))
        if self.joins.keys() >= {*members} and not self._all.done():
            self._all.set_result(None)

    def knows(self, name: str, join: Join) -> bool:
        """Whether a member that joins again has the model that it had at first."""
        known = self.joins[name]
        return replace(join, digest=None) == replace(known, digest=None)

    @property
    def cut(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Elements of each chunk and of each layer."""
        join = self.joins[self._cluster.servers[0]]
        return join.sizes, join.layers

    @property
    def digests(self) -> dict[str, str]:
        """Of the initial vectors, by member."""
        return {name: join.digest for name, join in self.joins.items() if join.digest is not None}

    def fail(self, error: BaseException) -> bool:
        """Ends :meth:`gather` with an error; false if it has ended already."""
        waiting = not self._all.done()
        if waiting:
            self._all.set_exception(error)
        return waiting

    def _check(self, name: str, join: Join) -> None:
        """Raises ``Refused`` as :meth:`take` does."""
        if name in self._cluster.global_servers:
            if join.elements:
                raise Refused(f"join.elements: expected 0 of a global server, came {join.elements}")
            return
        for what, total in (("sizes", sum(join.sizes)), ("layers", sum(join.layers))):
            if total != join.elements:
                raise Refused(
                    f"join.{what}: expected {join.elements} elements in all, came {total}"
                )
        trainers = self._cluster.servers, self._cluster.trainers
        for other, known in self.joins.items():
            if other != name and any(other in names for names in trainers):
                if (join.sizes, join.layers) != (known.sizes, known.layers):
                    raise Refused(
                        f"join: the models differ in size, or are cut otherwise: {name} has "
                        f"{_cut(join)}, {other} has {_cut(known)}"
                    )
                return


def _cut(join: Join) -> str:
    return f"{join.elements} in {len(join.sizes)} chunks and {len(join.layers)} layers"


class Returning:
    """Dead nodes that have been started again and wait for the rest of their center."""

    def __init__(self, cluster: Cluster):
        self._cluster = cluster
        self.waiting: dict[str, None] = {}

    def take(self, name: str, alive: Collection[str]) -> list[str]:
        """A node is back; returns the nodes that may take part again now.

        A dead center takes part when all its nodes are back; any other node does at once.
        """
        self.waiting[name] = None
        node = self._cluster.node(name)
        server = name if node.role == "global" else node.center
        center = (server, *self._cluster.workers(server))
        if server not in alive and not all(each in self.waiting for each in center):
            return []
        back = [each for each in center if each in self.waiting]
        for each in back:
            del self.waiting[each]
        return back


def digest(vector: np.ndarray) -> str:
    """A short digest of a vector's bytes."""
    content = vector[:1].tobytes() if is_hollow(vector) else vector.tobytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def senders(digests: Mapping[str, str], alive: Sequence[str], cluster: Cluster) -> dict[str, str]:
    """Who sends the initial vector to each node that needs it.

    The master sends it to a center's server, and the server to the center's workers.

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
