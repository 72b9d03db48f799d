"""The priority queue of one neighbour: what leaves next, one frame at a time."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from geojax.wire.frame import Frames, frame_count, frames_of
from geojax.wire.message import Kind, Message, fragment_bytes
from geojax.wire.priority import outdated


class Outbound(NamedTuple):
    """One frame that waits to be sent."""

    message: Message  # that it is a part of
    sequence: int  # number of the message on its connection
    first: bool
    last: bool
    follows: bool  # nobody who takes has found the queue empty since the frame before it
    head: bytes  # header and body
    payload: memoryview

    @property
    def nbytes(self) -> int:
        """Size of the whole frame."""
        return len(self.head) + self.payload.nbytes


@dataclass(slots=True)
class _Entry:
    """One queued message and the frames of it that have not left."""

    message: Message
    frames: Frames
    remaining: int
    started: bool = False


class SendQueue:
    """Messages in order of (priority, arrival), cut into frames as they leave.

    A message of higher priority (smaller number) overtakes between the frames of another; within
    a priority messages leave one after the other. Late parts that are outdated
    (:func:`geojax.wire.priority.outdated`) are dropped. ``push`` may be called from any thread,
    ``take`` from one other thread for each connection; checksums are computed without the lock that
    pushes need.

    Where there are several takers, frames are smaller and have a number in the order in which they
    leave, modulo 2**32, as their tag; and after one of them has found the queue empty, as many
    frames as there are takers follow none: these were on their way side by side, and could not be
    timed.

    Args:
      wakes: one for each taker, called when there is something to take after it found the queue
        empty, and by :meth:`finish`.
    """

    def __init__(self, *wakes: Callable[[], None]):
        self._wakes = wakes or (lambda: None,)
        self._lock, self._taking = threading.Lock(), threading.Lock()
        self._heap: list[tuple[int, int, _Entry]] = []  # by priority, then arrival
        self._arrivals = self._number = 0
        self._idle: dict[int, None] = {}  # takers that found it empty, in order
        self._apart = len(self._wakes)  # so many frames from now on follow none
        self._finished = False

    def push(self, message: Message, priority: int = 0) -> int:
        """Queues a message.

        Returns:
          How many others it made outdated; they are dropped.

        Raises:
          FrameError: the message fits no frame; nothing is queued.
        """
        with self._lock:
            arrival = self._arrivals
            self._arrivals += 1
        fragment = fragment_bytes(len(self._wakes))
        frames = frames_of(message, arrival, fragment=fragment)
        entry = _Entry(message, frames, frame_count(message, fragment))
        with self._lock:
            dropped = 0
            if message.kind is Kind.LATE:
                dropped = self._drop(lambda waiting: outdated(waiting, message))
            heapq.heappush(self._heap, (priority, arrival, entry))
            idle = self._first_idle()
        if idle is not None:
            self._wakes[idle]()
        return dropped

    def _first_idle(self) -> int | None:
        """Who is to be woken for a frame, if anybody waits; the lock is held."""
        idle = next(iter(self._idle), None)
        if idle is not None:
            del self._idle[idle]
        return idle

    def withdraw(self, unwanted: Callable[[Message], bool]) -> int:
        """Drops messages of which no part has left; returns how many."""
        with self._lock:
            return self._drop(unwanted)

    def _drop(self, unwanted: Callable[[Message], bool]) -> int:
        """As :meth:`withdraw`; the lock is held."""
        kept = [item for item in self._heap if item[2].started or not unwanted(item[2].message)]
        dropped = len(self._heap) - len(kept)
        if dropped:
            heapq.heapify(kept)
            self._heap = kept
        return dropped

    def take(self, taker: int = 0) -> Outbound | None:
        """The frame that leaves next, or None when there is none (the taker will be woken)."""
        with self._taking:
            return self._take(taker)

    def _take(self, taker: int) -> Outbound | None:
        idle, several = None, len(self._wakes) > 1
        with self._lock:
            if not self._heap:
                self._idle[taker], self._apart = None, len(self._wakes)
                return None
            self._idle.pop(taker, None)
            priority, arrival, entry = heapq.heappop(self._heap)
        frames = entry.frames
        frames.follows = follows = not self._apart
        self._apart -= not follows
        if several:
            frames.tag, self._number = self._number, (self._number + 1) & 0xFFFFFFFF
        head, payload = next(frames)
        first, entry.started = not entry.started, True
        entry.remaining -= 1
        if entry.remaining or several:
            with self._lock:
                if entry.remaining:
                    heapq.heappush(self._heap, (priority, arrival, entry))
                if self._heap:
                    idle = self._first_idle()
        if idle is not None:
            self._wakes[idle]()
        last = not entry.remaining
        return Outbound(entry.message, arrival, first, last, follows, head, payload)

    @property
    def unsent(self) -> int:
        """Messages that have not left, or not all of them."""
        with self._lock:
            return len(self._heap)

    def finish(self) -> None:
        """Says that nothing more will be pushed."""
        with self._lock:
            self._finished = True
        for wake in self._wakes:
            wake()

    @property
    def finished(self) -> bool:
        """Whether :meth:`finish` was called: then None from :meth:`take` means the end."""
        return self._finished
