"""What jitter and loss of links do to simulated transfers.

The fluid model knows no packets, so both are modelled by their effect on a TCP connection:

* Loss limits the rate of a connection. Where each packet is lost with probability p, a long
  transfer of Reno gets MSS / RTT · √(3/2) / √p (Mathis et al., *The Macroscopic Behavior of the TCP
  Congestion Avoidance Algorithm*, 1997, eq. 3). CUBIC gets that or, where it is more,
  MSS / RTT · (C (3 + β) / (4 (1 - β)))^¼ · (RTT / p)^¾ with C = 0.4, β = 0.7 (RFC 9438, §5.1). BBR
  does not take a lost packet for congestion, and is not limited. On the emulated testbed CUBIC and
  Reno came within some 40 % of this from p = 0.001 to 0.03 at 20 and 80 ms, and BBR to 85 % of the
  link's rate; below that a transfer of some seconds is still above its steady state. Short
  transfers are not slowed down by single losses here, and timeouts, which rule where p is above
  some per cent, are left out.
* Jitter varies when a message arrives. Order is kept, so a message is there when the slowest of its
  last packets is: of those that left within the span of the jitter. Hence the message's delay is
  the largest of so many draws; a short message's is one draw. Draws come from a seeded stream for
  each pair of nodes. The rate of a connection is not affected.

A datagram travels in packets as they fit the path, and is lost if one of them is.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

from testbed.wan.build import Link

SEGMENT_BYTES = 1448  # an Ethernet frame's worth, less IP and TCP headers with timestamps
MATHIS = math.sqrt(3 / 2)
CUBIC = (0.4 * (3 + 0.7) / (4 * (1 - 0.7))) ** 0.25
ALMOST_ALL = 1 - 1e-12  # the largest share of a normal distribution that is drawn
PACKET_BYTES = 1480  # an Ethernet frame's worth, less the IP header
UNIFORM_SPAN, NORMAL_SPAN = 2.0, 4.0  # between small and large draws, in the jitter's scale


def loss_limit(congestion_control: str, round_trip: float, loss: float) -> float:
    """Bit/s that one long-lived TCP connection reaches at most on a lossy path.

    Args:
      congestion_control: as in the kernel; anything but ``bbr`` backs off as CUBIC or Reno do.
      round_trip: s.
      loss: share of packets lost in the forward direction.

    >>> round(loss_limit("reno", 0.02, 0.01) / 1e6, 2)
    7.09
    """
    if loss == 0 or round_trip == 0 or congestion_control == "bbr":
        return math.inf
    segments = MATHIS / math.sqrt(loss)
    if congestion_control == "cubic":
        segments = max(segments, CUBIC * (round_trip / loss) ** 0.75)
    return segments * SEGMENT_BYTES * 8 / round_trip


def datagram_loss(nbytes: int, loss: float) -> float:
    """How likely a datagram is lost.

    Args:
      nbytes: of the datagram, without its own UDP header of 8 bytes.
      loss: share of packets lost.

    >>> round(datagram_loss(4200, 0.01), 4)
    0.0297
    """
    return 1 - (1 - loss) ** math.ceil((nbytes + 8) / PACKET_BYTES)


class Impairments(NamedTuple):
    """Jitter and loss of a path.

    Attributes:
      loss: share of packets.
      jitters: scale (s) and whether it is normal, of every link that has any.
    """

    loss: float = 0.0
    jitters: tuple[tuple[float, bool], ...] = ()


UNIMPAIRED = Impairments()


def along(links: Sequence[Link]) -> Impairments:
    """What links in a row do together."""
    jitters = tuple(
        (link.jitter, link.jitter_distribution == "normal") for link in links if link.jitter
    )
    return Impairments(1 - math.prod(1 - link.loss for link in links), jitters)


class Arrivals:
    """When the messages of one connection arrive.

    Args:
      delay: of the path without jitter, s.
      jitters: of its links, see :class:`Impairments`.
      seed: of the draws.
    """

    def __init__(self, delay: float, jitters: Sequence[tuple[float, bool]], seed: str):
        self._delay, self._jitters = delay, jitters
        self._random = random.Random(seed)
        self._last = 0.0

    def arrival(self, nbytes: int, began: float, left: float) -> float:
        """The instant at which the last of a message's bytes is there.

        Args:
          nbytes: of the message.
          began: when its first byte left, s.
          left: when its last byte left, s.
        """
        packets = math.ceil(nbytes / SEGMENT_BYTES)
        delay = self._delay
        for scale, normal in self._jitters:
            span = scale * (NORMAL_SPAN if normal else UNIFORM_SPAN)
            recent = min(1.0, span / (left - began)) if left > began else 1.0
            draws = max(1.0, packets * recent)
            largest = (1 - self._random.random()) ** (1 / draws)  # its share of the distribution
            if normal:
                delay += NormalDist(0, scale).inv_cdf(min(largest, ALMOST_ALL))
            else:
                delay += scale * (2 * largest - 1)
        self._last = max(self._last, left + max(0.0, delay))
        return self._last
