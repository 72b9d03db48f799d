"""What one node measures of the links that lead to it, and sees of those that lead away.

A link is timed by the messages that it carries anyway, at the receiver and with its clock alone
(*packet-train dispersion*; Dovrolis, Ramanathan and Moore, IEEE/ACM ToN 12(6), 2004): of messages
that left one straight behind the other, the bytes of all but the first ÷ the time from the end of
the first to the end of the last is the rate at which the connection moved them. No latency is in
it, no pause of the sender, and no clock of the sender; and since two nodes share one connection in
each direction, all that goes over it counts, whatever tree it belongs to. (The released NetStorm
takes the time from the sender's stamp to the receiver's clock, which needs synchronized clocks and
sees only a share of the link where several chunks are being sent at once.)

What remains: a connection sees only its share of a link that others cross too (routes over several
hops, access caps), and of one whose window is still growing it sees less than the link could do.
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
        """Takes note of a message. What is not timed, or from anybody else, counts nothing."""
        if item.at is None or item.peer not in self._moved:
            return
        before = self._ended.get(item.peer)
        self._ended[item.peer] = item.at
        if item.follows and before is not None:
            nbytes, seconds = self._moved[item.peer]
            self._moved[item.peer] = nbytes + item.nbytes, seconds + item.at - before

    def links(self) -> tuple[tuple[str, int, float], ...]:
        """What happened since the last report, for the heartbeat.

        Returns:
          ``(peer, bytes, seconds)`` for every peer from which so many bytes came in so many
          seconds, and ``(peer, 0, seconds)`` for every peer to which nothing has moved for so long
          although something is being sent.
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
        """Bytes of chunks that this node has sent to these peers since this was asked first.

        Probes are not included.
        """
        counters = [self._transport.sent[p] for p in self._peers if p in self._transport.sent]
        total = sum(link.bytes[kind] for link in counters for kind in CHUNK_KINDS)
        if self._before is None:
            self._before = total
        return total - self._before
