"""What TCP adds to a fluid transfer: set-up, slow start, the window that stays.

A connection is set up by its first message, which costs one round trip. It then sends its window,
10 segments at first (RFC 6928), at the fair rate of its path, waits until one round trip after the
window's first byte, when the acknowledgements are in, and doubles the window (RFC 5681, §3.1). A
window that takes a round trip or longer to leave fills the path: from then on the acknowledgements
of its beginning release more before its end has left, and the connection sends without pause. The
window is the connection's, not the message's: it is kept from message to message and over idle
times, as with ``tcp_slow_start_after_idle=0``.

Connections that share a bottleneck get shares in proportion to a power of their round trips (the
``rtt_bias`` of the configuration): Reno's windows grow by a segment per round trip and are halved
together, so its rates go as the round trip to the power −1 to −2 (Lakshman and Madhow, IEEE/ACM
ToN 5(3), 1997); CUBIC is not fair either where its windows are small. 0 is max-min fairness; the
default is what the calibration against real TCP found.

What it leaves out: losses by full queues, and the halving and recovery of windows after them (on
average they are in the goodput factor; random losses of links are a limit of the rate, see
:mod:`testbed.simulated.impairments`); queues, whose delay would add to the round trip; limits of
socket buffers; that shares of a queue are unequal, and that a window takes time to grow when a path
becomes freer. A star whose connections share a queue is therefore some 10 % slower in reality. A
bound on the growth alone does not mend that, as ``docs/calibration.md`` tells: here such
connections end together, and none is left to grow.

Several connections that carry one sequence of frames (``wan.connections``) are one flow here: with
as many windows, as many shares of every bottleneck, and as many times the rate that losses allow.
That a message has fewer frames than there are connections, and that frames wait for those before
them, is left out.

A control message of one segment or less leaves at the full rate of its path and takes nothing from
others: its bytes are few, and there are many such messages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

from testbed.simulated.fluid import FluidNetwork
from testbed.simulated.loop import Event, VirtualLoop
from testbed.wan.tcp_rates import SEGMENT_BYTES

INITIAL_SEGMENTS = 10


class Connection:
    """One direction between two nodes: a TCP connection, or several that are used together.

    Args:
      fluid: the network.
      path: the resources that it crosses.
      round_trip: propagation delay there and back, s; with 0 no window ever limits.
      loop: the clock.
      limit: bit/s beyond which a connection does not go, because of losses.
      weight: a connection's share of a bottleneck, relative to the others' there.
      count: how many connections it stands for.
    """

    def __init__(
        self,
        fluid: FluidNetwork,
        path: Sequence[Hashable],
        round_trip: float,
        loop: VirtualLoop,
        limit: float = math.inf,
        weight: float = 1.0,
        count: int = 1,
    ):
        self._fluid, self._loop = fluid, loop
        self._flow = fluid.flow(path, count * limit, count * weight)
        self._round_trip = round_trip
        self._ready_at = loop.time() + round_trip  # set up, or the last window acknowledged
        self._window = count * INITIAL_SEGMENTS * SEGMENT_BYTES
        self._credit = self._window  # bytes of the window that may still leave
        self._began: float | None = None  # when the window's first byte left
        self._filled = round_trip == 0.0  # the path is: no more pauses
        self._left = 0  # bytes of the message that have not been given to the network
        self._part = 0  # bytes that the network has been given last
        self._done: Callable[[], None] = _nothing
        self._timer: Event | None = None

    def send(self, nbytes: int, done: Callable[[], None], *, urgent: bool = False) -> None:
        """Sends one message; ``done()`` when its last byte has left, and the next may follow.

        Args:
          nbytes: its size, frames included.
          done: may call :meth:`send` again.
          urgent: it is a control message.
        """
        self._left, self._done = nbytes, done
        if self._loop._now < self._ready_at and self._began is None:
            self._timer = self._loop.schedule(self._ready_at, self._begin, urgent)
        else:
            self._begin(urgent)

    @property
    def stalled(self) -> float:
        """Seconds for which the message that is being sent has moved no byte."""
        return self._fluid.stalled(self._flow)

    def abort(self) -> None:
        """Drops the message that is being sent."""
        self._fluid.cancel(self._flow)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self, urgent: bool) -> None:
        self._timer = None
        if urgent and self._left <= SEGMENT_BYTES:
            room = self._fluid.room(self._flow)
            if room > 0:
                end = self._loop._now + self._left * 8.0 / room
                self._timer = self._loop.schedule(end, self._urgent_left)
                return
        if self._filled:
            self._fluid.start(self._flow, self._left, self._done)
        else:
            self._next_part()

    def _urgent_left(self) -> None:
        self._timer = None
        self._done()

    def _next_part(self) -> None:
        """Sends what the window allows of the message."""
        now = self._loop._now
        self._timer = None
        if self._began is None or now >= self._ready_at:
            if self._credit == 0:
                self._window *= 2
            self._credit, self._began = self._window, now
            self._ready_at = now + self._round_trip
        elif self._credit == 0:
            self._timer = self._loop.schedule(self._ready_at, self._next_part)
            return
        self._part = min(self._left, self._credit)
        self._fluid.start(self._flow, self._part, self._part_left)

    def _part_left(self) -> None:
        part = self._part
        self._left -= part
        self._credit -= part
        if self._credit == 0 and self._loop._now >= self._ready_at:
            self._filled = True
        if self._left == 0:
            self._done()
        elif self._filled:
            self._fluid.start(self._flow, self._left, self._done)
        else:
            self._next_part()


def _nothing() -> None:
    """What is to be done when no message has been sent yet."""
