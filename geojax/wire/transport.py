"""The face that every transport shows to the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from geojax.wire.message import Kind, Message


class Received(NamedTuple):
    """A whole message from a peer, and what it tells of the path that it came.

    Attributes:
      peer: who sent it.
      message: what was sent.
      nbytes: bytes of the frames that came from this peer since its message before was whole,
        those of unfinished messages between them included.
      at: loop time at which the last of these bytes was read, whatever the loop was doing; None
        for what is not timed (datagrams).
      follows: all these frames left the peer straight behind the frame before them: there was
        always something to send. Then ``nbytes`` ÷ (``at`` − ``at`` of the message before) is the
        rate at which the connection moved them.
    """

    peer: str
    message: Message
    nbytes: int = 0
    at: float | None = None
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection to or from a peer ended.

    Reported once per peer, and again only when the peer had come back in between. A peer that
    closes its transport in order is not lost, unless messages to it had not left yet.

    Attributes:
      peer: who is lost.
      reason: in words, for people.
      goodbye: it had closed its transport in order.
    """

    peer: str
    reason: str
    goodbye: bool = False


@dataclass
class LinkCounters:
    """What went to or came from one peer: results, not debug output."""

    bytes: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))  # whole frames
    messages: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    seconds: float = 0.0  # time spent moving these bytes

    def add(self, kind: Kind, nbytes: int, seconds: float = 0.0, messages: int = 1) -> None:
        """Counts one message of ``nbytes``, headers included.

        A transport that counts frame by frame passes ``messages=0`` for all but the first frame.
        """
        self.bytes[kind] += nbytes
        self.messages[kind] += messages
        self.seconds += seconds


Observer = Callable[[str, Message, int, float, float], None]


class Transport(Protocol):
    """Moves messages between named nodes. The only clock is the event loop's.

    Messages to one peer leave in order of priority (smaller first), and first-in first-out within
    a priority. ``sent`` and ``received`` hold the counters per peer; the bytes of a message are
    those of :func:`geojax.wire.frame.wire_bytes`. A received payload belongs to
    the receiver, or is marked read-only. ``observers`` are called on the loop, in order, with
    (peer, message, nbytes, start, end) when a whole message has left, datagrams too; ``nbytes`` are
    those of all its frames, times are the loop's. They may send. Where several connections carry
    what goes to a peer, messages arrive in the same order, but a small one may have left before the
    large one that it follows.
    """

    name: str
    sent: dict[str, LinkCounters]
    received: dict[str, LinkCounters]
    observers: list[Observer]

    def send(self, peer: str, message: Message, priority: int = 0) -> None:
        """Queues a message for ``peer``. Never blocks; a dead peer shows up as :class:`Lost`.

        The payload is not copied: it must not change until the message has left. Messages of kind
        LATE that are outdated by this one (:func:`geojax.wire.priority.outdated`) and of which
        nothing has left are dropped.

        Raises:
          ValueError: ``peer`` is this node, or nobody that the transport knows.
          FrameError: the message fits no frame, see :func:`geojax.wire.frame.frames_of`.
        """
        ...

    def withdraw(self, unwanted: Callable[[Message], bool]) -> int:
        """Drops messages, for any peer, of which nothing has left; returns how many."""
        ...

    def waiting(self, peer: str) -> int:
        """How many messages for ``peer`` have not left, or not all of them; datagrams apart.

        0 for who is not connected. When observers hear of a message it does not count any more.
        """
        ...

    def send_datagram(self, peer: str, message: Message, priority: int = 0) -> None:
        """Queues a message of kind LATE that may get lost, and may arrive in any order.

        It leaves when no message waits for ``peer``, after those of older rounds and of smaller
        priorities. It is dropped if it still waits when one is queued whose round is higher by two
        or more, when too much waits, or at :meth:`close`.

        Raises:
          ValueError: ``peer`` is this node, or nobody that the transport knows; another kind.
          FrameError: the message fits no datagram.
        """
        ...

    def stalled(self, peer: str) -> float:
        """Seconds for which nothing has moved towards ``peer`` although something is being sent.

        0 where something moves, or nothing is to be sent.
        """
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


Take = Callable[[Received | Lost], None]


@runtime_checkable
class Delivers(Protocol):
    """A transport that can do without a task that waits for each message."""

    def deliver_to(self, take: Take) -> asyncio.Future[None]:
        """See :func:`deliver`; there are no other readers."""
        ...


def deliver(transport: Transport, take: Take, name: str) -> asyncio.Future[None]:
    """Hands ``take`` all that comes, in order, as it comes.

    Args:
      transport: where from; nobody else may read it.
      take: raises what ends it.
      name: of the task, if there is one.

    Returns:
      What gets the error of ``take``. To cancel it ends the deliveries.
    """
    if isinstance(transport, Delivers):
        return transport.deliver_to(take)
    return asyncio.create_task(_deliver(transport, take), name=name)


async def _deliver(transport: Transport, take: Take) -> None:
    while True:
        take(await transport.receive())
