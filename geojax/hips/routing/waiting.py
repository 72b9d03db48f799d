"""What waits at a member before it leaves: for a path that is free, or for the path table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from heapq import heapify, heappush

from geojax.wire.message import ROUTED, Kind, Message
from geojax.wire.priority import outdated

_Held = tuple[int, int, Message]  # priority, order of coming, message


class PeerQueues:
    """What waits for one peer.

    Attributes:
      free: may take any path.
      bound: may take the primary path only.
    """

    def __init__(self) -> None:
        self.free: list[_Held] = []
        self.bound: list[_Held] = []

    @property
    def first(self) -> list[_Held]:
        """The queue whose head comes first; one of the two is not empty."""
        if not self.free or not self.bound:
            return self.free or self.bound
        return self.free if self.free[0][:2] < self.bound[0][:2] else self.bound

    def __bool__(self) -> bool:
        return bool(self.free or self.bound)


class WaitingRoom:
    """What waits for a free path, by peer."""

    def __init__(self) -> None:
        self._queues: dict[str, PeerQueues] = {}  # of those for whom something waits
        self._came = 0

    def __len__(self) -> int:
        return len(self._queues)

    def __getitem__(self, peer: str) -> PeerQueues:
        return self._queues[peer]

    def push(self, peer: str, message: Message, priority: int, *, free: bool) -> None:
        """A message waits; of late parts, no longer those that it makes needless."""
        queues = self._queues.setdefault(peer, PeerQueues())
        if message.kind is Kind.LATE:
            queues.bound[:] = [held for held in queues.bound if not outdated(held[2], message)]
            heapify(queues.bound)
        heappush(queues.free if free else queues.bound, (priority, self._came, message))
        self._came += 1

    def pop(self, peer: str) -> PeerQueues:
        """Takes out what waits for a peer."""
        return self._queues.pop(peer, PeerQueues())

    def __iter__(self) -> Iterator[str]:
        """For whom something waits."""
        return iter(self._queues)

    def by_turn(self) -> list[str]:
        """The same, in order of what comes first."""
        order = list(self._queues)
        if len(order) > 1:
            order.sort(key=lambda peer: self._queues[peer].first[0][:2])
        return order

    def withdraw(self, unwanted: Callable[[Message], bool]) -> int:
        """Drops messages; returns how many."""
        dropped = 0
        for peer, queues in [*self._queues.items()]:
            for queue in (queues.free, queues.bound):
                kept = [held for held in queue if not unwanted(held[2])]
                dropped += len(queue) - len(kept)
                queue[:] = kept
                heapify(queue)
            if not queues:
                del self._queues[peer]
        return dropped


class Unlinked:
    """Chunks for peers to which there is no link; they wait for the path table of the epoch.

    Args:
      linked: peers to which there is one; None: nothing waits.
    """

    def __init__(self, linked: Collection[str] | None):
        self._linked, self._told = linked, False
        self._early: list[tuple[str, Message, int]] = []

    def takes(self, peer: str, message: Message, priority: int) -> bool:
        """Whether a message waits, and is kept here."""
        if self._told or self._linked is None or peer in self._linked or message.kind not in ROUTED:
            return False
        self._early.append((peer, message, priority))
        return True

    def release(self) -> list[tuple[str, Message, int]]:
        """The table is there: takes out all that waits."""
        self._told, early, self._early = True, self._early, []
        return early

    def withdraw(self, unwanted: Callable[[Message], bool]) -> int:
        """Drops messages; returns how many."""
        before = len(self._early)
        self._early = [held for held in self._early if not unwanted(held[1])]
        return before - len(self._early)

    def change(self, epoch: int) -> None:
        """An epoch begins, and there is no table."""
        self._told = False
        self._early = [held for held in self._early if held[1].epoch >= epoch]

    def lose(self, peer: str) -> None:
        """Drops what waits for a peer."""
        self._early = [held for held in self._early if held[0] != peer]
