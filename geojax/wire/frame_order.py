"""Frames that came over several connections, back in the order in which they left.

A frame's tag is its number. The connections read side by side, so frames come out of order; each
waits here until all before it have come. What waits is bounded: a connection that is too far ahead
reads no more until the others are there, and TCP tells its sender.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from geojax.errors import FrameError
from geojax.wire.frame import WholeFrame

FRAMES_AHEAD = 32  # of each connection; 1 MiB
_NUMBERS = 1 << 32


class FrameOrder:
    """Takes frames from the threads of several connections, and hands them on in order.

    Nothing is handed on before :meth:`open`.

    Args:
      connections: how many there are.
      take: is given the frames, one at a time, by the thread that brought the one before which
        others waited; what it raises is raised there.
      patience: how long a connection waits for :meth:`open`, s; None: without end.

    Attributes:
      came: bytes of all frames that it was given, in whatever order.
    """

    def __init__(
        self, connections: int, take: Callable[[WholeFrame], None], patience: float | None = None
    ):
        self.came = 0
        self._patience = patience
        self._take = take
        self._most = FRAMES_AHEAD * connections
        self._reading = connections  # they may still bring something
        self._next = 0
        self._held: dict[int, WholeFrame] = {}
        self._blocked = 0  # connections that wait, of those that have looked since the last change
        self._open = self._closing = False
        self._changed = threading.Condition()

    def open(self) -> None:
        """All connections are there: hands on what waits."""
        with self._changed:
            self._open = True
            self._hand_on()

    def put(self, frame: WholeFrame) -> bool:
        """Takes a frame; waits while it is too far ahead of others.

        Returns:
          False: those others will never come, and this frame is dropped.

        Raises:
          FrameError: there was a frame of this number.
        """
        number = frame.header.tag
        with self._changed:
            while (ahead := (number - self._next) % _NUMBERS) >= self._most:
                if ahead >= _NUMBERS // 2:
                    break
                if self._blocked + 1 == self._reading if self._open else self._closing:
                    return False
                self._blocked += 1
                came = self._changed.wait(None if self._open else self._patience)
                if not came and not self._open:
                    return False  # who waits does not read, and learns nothing of its peer
            if ahead >= self._most or number in self._held:
                raise FrameError(f"number of a frame: expected a new one, came {number} again")
            self._held[number] = frame
            self.came += frame.header.frame_bytes
            self._hand_on()
        return True

    def _hand_on(self) -> None:
        began = self._next
        while self._open and (frame := self._held.pop(self._next, None)) is not None:
            self._take(frame)
            self._next = (self._next + 1) % _NUMBERS
        if self._blocked and self._next != began:
            self._look_again()

    def close(self) -> None:
        """Connections end one after the other: nobody waits any more for those that never came."""
        with self._changed:
            self._closing = True
            self._look_again()

    def ended(self) -> None:
        """A connection brings nothing any more."""
        with self._changed:
            self._reading -= 1
            self._look_again()

    def _look_again(self) -> None:
        """Wakes those that wait; until each has looked it does not count as waiting."""
        self._blocked = 0
        self._changed.notify_all()
