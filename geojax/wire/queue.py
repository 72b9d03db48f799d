"""The priority queue of one neighbour: what leaves next, one frame at a time."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from geojax.wire.frame import Frames, frame_count, frames_of
from geojax.wire.message import Kind, Message
from geojax.wire.priority import outdated


class Outbound(NamedTuple):
    """One frame that waits to be sent."""

    message: Message  # that it is a part of
    sequence: int  # number of the message on its connection
    first: bool
    last: bool
    follows: bool  # the queue was not empty since the frame before it
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
    ``take`` from one other thread, which computes the checksums outside of the lock.

    Args:
      wake: called by a push after :meth:`take` returned None, and by :meth:`finish`.
    """

    def __init__(self, wake: Callable[[], None] = lambda: None):
        self._wake = wake
        self._lock = threading.Lock()
        self._heap: list[tuple[int, int, _Entry]] = []  # by priority, then arrival
        self._arrivals = 0
        self._waiting = False
        self._follows = False  # the next frame does: the taker has found none missing since
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
        entry = _Entry(message, frames_of(message, arrival), frame_count(message))
        with self._lock:
            dropped = self._drop_outdated(message)
            heapq.heappush(self._heap, (priority, arrival, entry))
            wake, self._waiting = self._waiting, False
        if wake:
            self._wake()
        return dropped

    def _drop_outdated(self, message: Message) -> int:
        """Drops what a message makes outdated, unless a part of it has left; the lock is held."""
        if message.kind is not Kind.LATE:
            return 0
        kept = [
            item for item in self._heap if item[2].started or not outdated(item[2].message, message)
        ]
        dropped = len(self._heap) - len(kept)
        if dropped:
            heapq.heapify(kept)
            self._heap = kept
        return dropped

    def take(self) -> Outbound | None:
        """The frame that leaves next, or None when there is none (``wake`` will be called)."""
        with self._lock:
            if not self._heap:
                self._waiting, self._follows = True, False
                return None
            priority, arrival, entry = heapq.heappop(self._heap)
        follows, self._follows = self._follows, True
        entry.frames.follows = follows
        head, payload = next(entry.frames)
        first, entry.started = not entry.started, True
        entry.remaining -= 1
        if entry.remaining:
            with self._lock:
                heapq.heappush(self._heap, (priority, arrival, entry))
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
        self._wake()

    @property
    def finished(self) -> bool:
        """Whether :meth:`finish` was called: then None from :meth:`take` means the end."""
        return self._finished
