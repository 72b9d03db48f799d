"""Who takes part in a run: nodes, their centers, and the member groups they form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

SCHEDULER = "scheduler"
WAN_GROUP = 0


class ResumePoint(NamedTuple):
    """Where a broken run goes on.

    Attributes:
      round: after this round; or the number of the cut, where centers have rounds of their own.
      time: experiment time, s.
      held: in a cut, the last round of every node that has rounds: of the WAN, or of its LAN where
        a worker counts its own.
      versions: in a cut, the version of every shard, by :func:`shard_name`.
    """

    round: int
    time: float
    held: Mapping[str, int] = {}
    versions: Mapping[str, int] = {}

    def of(self, node: str) -> int:
        """The last round that a node holds."""
        return self.held.get(node, -1) if self.held else self.round


def shard_name(node: str, chunk: int, *, within: bool = False) -> str:
    """The name of the shard of which ``chunk`` is the first one, at the server ``node``.

    ``within``: it is the one that a local server has for its workers.
    """
    return f"{node}/lan/{chunk}" if within else f"{node}/{chunk}"


START = ResumePoint(-1, 0.0)


@dataclass(frozen=True)
class NodeSpec:
    """One node: ``role`` is ``scheduler``, ``server`` (local server), ``worker`` or ``global``.

    A center with one worker runs both roles in one process, under the center's name. ``global`` is
    a global server on a site of its own, which has no data; otherwise centers play its part.
    """

    name: str
    center: str
    role: str
    host: str = ""
    port: int = 0


@dataclass(frozen=True)
class Cluster:
    """All nodes of a run, in fixed order: scheduler, center by center, then global servers."""

    all: tuple[NodeSpec, ...]

    @cached_property
    def servers(self) -> tuple[str, ...]:
        """Local servers in WAN order; a local server has its center's name."""
        return tuple(node.name for node in self.all if node.role == "server")

    @cached_property
    def global_servers(self) -> tuple[str, ...]:
        """Global servers on a site of their own."""
        return tuple(node.name for node in self.all if node.role == "global")

    @cached_property
    def members(self) -> tuple[str, ...]:
        """Everyone but the scheduler."""
        return tuple(node.name for node in self.all if node.name != SCHEDULER)

    @cached_property
    def trainers(self) -> tuple[str, ...]:
        """Nodes that train: the workers, or the server of a center that has no worker nodes."""
        return tuple(
            name for center in self.servers for name in (self.workers(center) or (center,))
        )

    def workers(self, center: str) -> tuple[str, ...]:
        """Worker nodes of a center; empty when its local server's process also trains."""
        return self._workers.get(center, ())

    def lan_group(self, center: str) -> int:
        """Index of the group that a center's local server and workers form."""
        return 1 + self.servers.index(center)

    def groups_of(self, name: str) -> tuple[int, ...]:
        """Indices of the groups that a node belongs to while all live."""
        return tuple(group for group, names in self.groups(self.members).items() if name in names)

    def groups(self, alive: Sequence[str]) -> dict[int, tuple[str, ...]]:
        """Members of every group among the living; a LAN group's first member is its server.

        Global servers come last in the WAN group. They take part in it without contributing.
        """
        living = set(alive)
        centers = tuple(name for name in self.servers if name in living)
        merging = tuple(name for name in self.global_servers if name in living)
        found = {WAN_GROUP: (*centers, *merging)}
        for center in centers:
            workers = tuple(name for name in self.workers(center) if name in living)
            if workers:
                found[self.lan_group(center)] = (center, *workers)
        return found

    def survivors(self, alive: Sequence[str], dead: Sequence[str]) -> tuple[str, ...]:
        """Who is left: workers go with their server, a server goes with its last worker.

        A global server goes alone.
        """
        left = [name for name in alive if name not in set(dead)]
        for center in self.servers:
            workers = self.workers(center)
            if center not in left or (workers and not set(workers) & set(left)):
                left = [name for name in left if name not in (center, *workers)]
        return tuple(left)

    def node(self, name: str) -> NodeSpec:
        """The node of that name."""
        return self._by_name[name]

    def addresses(self) -> Mapping[str, tuple[str, int]]:
        """Host and port of every node."""
        return {node.name: (node.host, node.port) for node in self.all}

    @cached_property
    def _by_name(self) -> dict[str, NodeSpec]:
        return {node.name: node for node in self.all}

    @cached_property
    def _workers(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for node in self.all:
            if node.role == "worker":
                found[node.center] = (*found.get(node.center, ()), node.name)
        return found


@dataclass(frozen=True)
class Connections:
    """How many TCP connections carry what a node of one center sends to a node of another.

    Attributes:
      common: between all centers.
      pairs: by ordered pair of centers, where it is another number.
    """

    common: int = 1
    pairs: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def between(self, source: NodeSpec, target: NodeSpec) -> int:
        """From one node to another; one within a center, and for the scheduler's few bytes."""
        crosses = source.center != target.center and SCHEDULER not in (source.name, target.name)
        return self.pairs.get((source.center, target.center), self.common) if crosses else 1

    def told(self) -> int | dict[str, int]:
        """For people and tables: the common number, or that of each pair.

        >>> Connections(8).told(), Connections(1, {("a", "b"): 8}).told()
        (8, {'a>b': 8})
        """
        return {f"{a}>{b}": count for (a, b), count in self.pairs.items()} or self.common


ONE_EACH = Connections()
