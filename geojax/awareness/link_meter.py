"""What one node measures of its incoming links, and notices of its outgoing ones.

A link is timed by the messages that it carries anyway, at the receiver and with the receiver's
clock alone (*packet-train dispersion*; Dovrolis, Ramanathan and Moore, IEEE/ACM ToN 12(6), 2004).
Take messages that left back to back. The rate of the connection is the bytes of all but the first,
divided by the time from the end of the first to the end of the last. So neither latency nor the
sender's pauses nor the sender's clock are in it. Two nodes share one connection in each direction;
all that it carries counts, whatever tree it belongs to. (The released NetStorm subtracts the
sender's time stamp from the receiver's clock. That needs synchronized clocks, and sees only a share
of the link while several chunks are being sent at once.)

Two errors remain. On a link that other connections cross too (routes over several hops, access
caps) a connection sees only its share. While its window still grows, it sees less than the link can
do.
"""

from __future__ import annotations

from collections.abc import Collection

from geojax.wire.message import CHUNK_KINDS
from geojax.wire.transport import Received, Transport

# Less is kept for the next report. A thread may be some milliseconds late in reading what came,
# which makes the time of a few messages too long or too short.
LEAST_BYTES, LEAST_S = 128 * 1024, 0.005


class LinkMeter:
    """Gathers what arrives from each peer between two reports.

    Args:
      transport: the node's own.
      peers: those whose links are of interest: the other members of the WAN group.
    """

    def __init__(self, transport: Transport, peers: Collection[str]):
        self._transport, self._peers = transport, tuple(peers)
        self._ended: dict[str, float] = {}  # when the last message was whole, by peer
        self._before: int | None = None  # bytes sent in the part of a run that this one continues
        self._moved: dict[str, tuple[int, float]] = dict.fromkeys(self._peers, (0, 0.0))

    def arrived(self, item: Received) -> None:
        """Counts a message; ignores those that cannot be timed or come from no peer."""
        if item.at is None or item.peer not in self._moved:
            return
        before = self._ended.get(item.peer)
        self._ended[item.peer] = item.at
        if item.follows and before is not None:
            nbytes, seconds = self._moved[item.peer]
            self._moved[item.peer] = nbytes + item.nbytes, seconds + item.at - before

    def links(self) -> tuple[tuple[str, int, float], ...]:
        """What was measured since the last report, for the heartbeat.

        Returns:
          ``(peer, bytes, seconds)``: so many bytes came from the peer in so many seconds;
          ``(peer, 0, seconds)``: something is being sent to the peer, and nothing has moved for so
          long.
        """
        found: list[tuple[str, int, float]] = []
        for peer, (nbytes, seconds) in self._moved.items():
            if nbytes >= LEAST_BYTES and seconds >= LEAST_S:
                found.append((peer, nbytes, seconds))
                self._moved[peer] = 0, 0.0
        for peer in self._peers:
            seconds = self._transport.stalled(peer)
            if seconds > 0:
                found.append((peer, 0, seconds))
        return tuple(found)

    def sent(self) -> int:
        """Bytes of chunks that this node has sent to these peers since the first call of this.

        Probes do not count.
        """
        counters = [self._transport.sent[p] for p in self._peers if p in self._transport.sent]
        total = sum(link.bytes[kind] for link in counters for kind in CHUNK_KINDS)
        if self._before is None:
            self._before = total
        return total - self._before
