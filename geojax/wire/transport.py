"""The face that every transport shows to the protocol."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Protocol

from geojax.wire.message import Kind, Message


@dataclass(frozen=True, slots=True)
class Received:
    """A whole message from a peer."""

    peer: str
    message: Message


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection to or from a peer ended. Reported once per peer."""

    peer: str
    reason: str


@dataclass
class LinkCounters:
    """What went to or came from one peer: results, not debug output."""

    bytes: dict[Kind, int] = field(default_factory=lambda: defaultdict(int))  # whole frames
    messages: dict[Kind, int] = field(default_factory=lambda: defaultdict(int))
    seconds: float = 0.0  # time spent moving these bytes

    def add(self, kind: Kind, nbytes: int, seconds: float = 0.0) -> None:
        """Counts one message of ``nbytes``, headers included."""
        self.bytes[kind] += nbytes
        self.messages[kind] += 1
        self.seconds += seconds


class Transport(Protocol):
    """Moves messages between named nodes. The only clock is the event loop's.

    Messages to one peer leave in order of priority (smaller first), and first-in first-out within
    a priority. ``sent`` and ``received`` hold the counters per peer.
    """

    name: str
    sent: dict[str, LinkCounters]
    received: dict[str, LinkCounters]

    def send(self, peer: str, message: Message, priority: int = 0) -> None:
        """Queues a message for ``peer``. Never blocks; a dead peer shows up as :class:`Lost`."""
        ...

    async def receive(self) -> Received | Lost:
        """The next message from any peer, or the news that a peer is gone."""
        ...

    async def start(self) -> None:
        """Opens the transport; raises ``ConfigError`` if its address is taken."""
        ...

    async def close(self) -> None:
        """Sends what is queued (within the connect timeout), closes, frees everything."""
        ...
