"""What the delaying switch does to the packets of one directed link: delay, jitter, loss, outage.

Only the standard library; the forwarder runs this.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

Send = Callable[[bytes], object]
Depart = Callable[[int, Send, bytes], object]


class Impairment(NamedTuple):
    """What a link does to packets beside delaying them.

    Attributes:
      jitter: ns; the delay varies by U[-jitter, jitter] or, if ``normal``, by N(0, jitter).
      normal: the distribution is the normal one.
      loss: share of packets that vanish.
    """

    jitter: int = 0
    normal: bool = False
    loss: float = 0.0


class Path:
    """One directed link, from a port of the switch to another one.

    A frame is lost or kept by a draw of its own, and each kept frame draws its own delay. A frame
    never overtakes another one of its path: it leaves no sooner than the one before. So where
    frames follow each other closely, one that drew a long delay holds up those behind it, as a
    queue would.

    While the path is held (an outage), frames wait, up to a number of bytes, and those beyond it
    are dropped. What was sent before goes on. When the path is let go, what waited leaves at once.

    Args:
      delay: ns.
      send: gives a frame to the target port.
      impairment: jitter and loss; None: neither.
      seed: of the draws.

    Attributes:
      plain: frames are just delayed by :attr:`delay`; a caller may then do so itself.
      lost: frames lost by draw.
      overflowed: frames dropped in an outage.
    """

    __slots__ = (
        "_impaired", "_impairment", "_last", "_limit", "_random", "_room", "_waiting",
        "delay", "lost", "overflowed", "plain", "send",
    )  # fmt: skip

    def __init__(
        self, delay: int, send: Send, impairment: Impairment | None = None, seed: str = ""
    ):
        self.delay, self.send = delay, send
        self.lost = self.overflowed = 0
        self._impairment = impairment or Impairment()
        self._impaired = impairment is not None
        self._random = random.Random(seed)
        self._last = 0  # release of the latest frame, ns
        self._waiting: deque[bytes] | None = None  # None: the path is not held
        self._room = 0  # bytes that may still wait
        self.plain = not self._impaired

    def __len__(self) -> int:
        """Frames that wait for the end of an outage."""
        return len(self._waiting or ())

    def admit(self, now: int, frame: bytes, depart: Depart) -> None:
        """Takes a frame: it departs, waits, or is gone.

        Args:
          now: its arrival, ns.
          frame: the frame.
          depart: is given (release, send, frame) if the frame is passed on.
        """
        if self._waiting is not None:
            if len(frame) <= self._room:
                self._room -= len(frame)
                self._waiting.append(frame)
            else:
                self.overflowed += 1
            return
        delay = self.delay
        if self._impaired:
            jitter, normal, loss = self._impairment
            if loss and self._random.random() < loss:
                self.lost += 1
                return
            if jitter:
                drawn = self._random.gauss if normal else self._random.uniform
                delay += round(drawn(0, jitter) if normal else drawn(-jitter, jitter))
        self._last = max(self._last, now + max(0, delay))
        depart(self._last, self.send, frame)

    def hold(self, limit: int) -> None:
        """Begins an outage in which ``limit`` bytes may wait; a longer one if it has begun."""
        if self._waiting is None:
            self._waiting, self._room = deque(), limit
        self._refresh()

    def release(self, now: int, depart: Depart) -> None:
        """Ends the outage; harmless if there is none."""
        waiting, self._waiting = self._waiting or (), None
        self._refresh()
        for frame in waiting:
            self.admit(now, frame, depart)

    def impair(self, on: bool) -> None:
        """Switches jitter and loss off, to measure the bare link, or on again."""
        self._impaired = on and self._impairment != Impairment()
        self._refresh()

    def _refresh(self) -> None:
        self.plain = self._waiting is None and not self._impaired
