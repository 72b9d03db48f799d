"""Who takes part in a run."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from geojax.hips.cluster import Cluster
from geojax.hips.control.joining import Returning


class Roster:
    """The members of a run, of which some may have died, and come back.

    Args:
      cluster: all nodes.

    Attributes:
      returning: nodes that are back and wait for the rest of their center.
      broken: members that were declared dead for what they sent, with those that depend on them:
        they may not come back.
      back: members that have come back in this change, or the last one until its end was told.
    """

    def __init__(self, cluster: Cluster):
        self._cluster = cluster
        self.alive = cluster.members
        self.returning = Returning(cluster)
        self.broken: set[str] = set()
        self.back: set[str] = set()

    @property
    def alive(self) -> tuple[str, ...]:
        """The members that take part, in the cluster's order."""
        return self._alive

    @alive.setter
    def alive(self, names: tuple[str, ...]) -> None:
        self._alive, self._living = names, frozenset(names)

    def lives(self, name: str) -> bool:
        """Whether a member is alive."""
        return name in self._living

    def may_return(self, name: str) -> bool:
        """Whether it may come back if it dies."""
        return name not in self.broken

    @property
    def centers(self) -> list[str]:
        """The living centers."""
        return [name for name in self._cluster.servers if name in self._living]

    @property
    def groups(self) -> dict[int, tuple[str, ...]]:
        """The living members of every group."""
        return self._cluster.groups(self.alive)

    def without(self, names: Sequence[str]) -> tuple[str, ...]:
        """The members that are left without these, and without those that depend on them."""
        return self._cluster.survivors(self.alive, names)

    def admit(self, name: str) -> list[str]:
        """A node has been started again; returns the nodes that take part again now.

        A center takes part when all its nodes are back.
        """
        back = self.returning.take(name, self.alive)
        self.back |= {*back}
        self.alive = tuple(each for each in self._cluster.members if each in {*self.alive, *back})
        return back


class Stateless:
    """Members that have come back, until they report that they have parameters.

    Attributes:
      after: each of them, with the round after which it goes on; that round is used only where
        centers go at paces of their own, and None until it is known.
      steps: local steps that each trainer said it has taken, where they do not follow from rounds.
    """

    def __init__(self) -> None:
        self.after: dict[str, int | None] = {}
        self._told: dict[str, int] = {}  # the round that each of them was told last that it holds
        self.steps: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.after

    def admit(self, name: str) -> None:
        """A member has come back."""
        self.after[name] = None
        self._told.pop(name, None)

    def keep(self, names: Collection[str]) -> None:
        """Forgets all but these."""
        self.after = {name: after for name, after in self.after.items() if name in names}

    def tell(self, name: str, held: int) -> None:
        """It is told that it holds this round."""
        self._told[name] = held

    def may_hold(self, name: str, now: int, before: int) -> bool:
        """Whether a member may report an earlier round than before.

        It went by what it was told, and was told of an earlier round since: those that held the
        other one have died.
        """
        return name in self and before > now >= self._told.get(name, now)

    @property
    def behind(self) -> dict[str, int]:
        """Those of which it is known after which round they go on."""
        return {name: after for name, after in self.after.items() if after is not None}
