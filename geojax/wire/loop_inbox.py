"""What threads hand to an event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from geojax.errors import WireError
from geojax.wire.transport import Lost, Received


class LoopInbox:
    """What came in, for a coroutine to take; the loop is woken once for all that gathers.

    Args:
      name: of the node.

    Attributes:
      loop: set when the transport starts; None: nobody can be woken yet.
    """

    def __init__(self, name: str):
        self._name = name
        self.loop: asyncio.AbstractEventLoop | None = None
        self._gathered: deque[Received | Lost] = deque()  # filled by threads, emptied by the loop
        self._flush_is_due = False
        self._arrived: asyncio.Queue[Received | Lost | None] = asyncio.Queue()  # None: closed

    def post(self, item: Received | Lost) -> None:
        """Hands something to the loop; may be called from any thread."""
        self._gathered.append(item)
        if not self._flush_is_due:
            self._flush_is_due = True
            self.call(self._flush)

    def call(self, callback: Callable[[], object]) -> None:
        """Has the loop call something; may be called from any thread."""
        if self.loop is not None:
            with suppress(RuntimeError):  # the loop was closed before the transport
                self.loop.call_soon_threadsafe(callback)

    def _flush(self) -> None:
        self._flush_is_due = False  # before the deque is emptied: what comes now is never missed
        while self._gathered:
            self._arrived.put_nowait(self._gathered.popleft())

    def close(self) -> None:
        """Nothing more is taken after what has arrived already."""
        self._arrived.put_nowait(None)

    async def take(self) -> Received | Lost:
        """The next item.

        Raises:
          WireError: the inbox is closed.
        """
        item = await self._arrived.get()
        if item is None:
            self._arrived.put_nowait(None)  # for the next one who asks
            raise WireError(f"{self._name} cannot receive: its transport is closed")
        return item
