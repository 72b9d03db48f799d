"""What jitter and loss of links do to simulated transfers.

The fluid model knows no packets, so both are modelled by their effect on a TCP connection:

* Loss limits the rate of a connection, see :mod:`testbed.wan.tcp_rates`. Short transfers are not
  slowed down by single losses here.
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
from testbed.wan.tcp_rates import SEGMENT_BYTES

ALMOST_ALL = 1 - 1e-12  # the largest share of a normal distribution that is drawn
PACKET_BYTES = 1480  # an Ethernet frame's worth, less the IP header
UNIFORM_SPAN, NORMAL_SPAN = 2.0, 4.0  # between small and large draws, in the jitter's scale


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
