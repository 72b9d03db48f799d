"""What peers have to send once more: because it came of an epoch that is over, or was promised."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from geojax.wire.message import Kind, Message


class Owed(Enum):
    """Whether a message that a peer may have to send once more is still wanted of it."""

    NOT = 0
    NOW = 1  # it has all that it needs to send it
    LATER = 2  # it may itself be waiting for others


class Debts:
    """The messages that peers owe in an epoch, and since when each peer has sent nothing.

    What is on its way when the epoch changes is dropped, and an honest peer sends it again. So a
    message that comes with an old epoch by mistake looks like one of these, and is missing; only
    what comes later, or nothing, tells them apart.

    Args:
      most: messages of one peer that are noted.

    >>> debts = Debts(9)
    >>> offer = Message(Kind.OFFER, epoch=1, round=4, chunk=2)
    >>> debts.note("c2", offer, now=10.0)
    >>> debts.hear("c2", now=12.0)
    >>> [[*debts.due(since)] == [("c2", offer)] for since in (11.0, 12.0)]
    [False, True]
    """

    def __init__(self, most: int):
        self._most = most
        self._owed: dict[str, dict[tuple[Kind, int, int], Message]] = {}
        self._heard: dict[str, float] = {}

    def begin(self) -> None:
        """An epoch begins: nobody owes anything."""
        self._owed.clear()

    def note(self, peer: str, message: Message, now: float) -> None:
        """A peer owes a message."""
        owed = self._owed.setdefault(peer, {})
        if len(owed) < self._most:
            owed[message.kind, message.round, message.chunk] = message
            self._heard[peer] = now

    @property
    def noted(self) -> bool:
        """Whether anybody owes anything."""
        return bool(self._owed)

    def hear(self, peer: str, now: float) -> None:
        """A message of this epoch came from a peer: it goes on sending."""
        if peer in self._owed:
            self._heard[peer] = now

    def forgive(self, peer: str) -> None:
        """A peer owes nothing in this epoch any more."""
        self._owed.pop(peer, None)

    def due(self, since: float) -> Iterator[tuple[str, Message]]:
        """What peers owe that have sent nothing after ``since``."""
        for peer in [peer for peer in self._owed if self._heard[peer] <= since]:
            for message in [*self._owed.get(peer, {}).values()]:
                yield peer, message
