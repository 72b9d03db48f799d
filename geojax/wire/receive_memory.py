"""Memory for large payloads that is used again, so that the kernel need not clear it each time.

An allocator gives large arrays back to the kernel when they are freed (glibc's malloc from 32 MiB
on), and the kernel clears every page that it hands out next. That takes longer than to receive
what they are for. Smaller arrays stay with the allocator, which does the same for them.
"""

from __future__ import annotations

import mmap
import time
import weakref
from collections import deque

import numpy as np

LEAST_BYTES = 32 << 20  # payloads of up to this are the allocator's
BLOCK_BYTES = 64 << 20  # and those above this, too; a state travels in pieces of this size
KEPT_BLOCKS = 4  # one that is filled, one that is read, and two that wait in between
IDLE_S = 10.0  # what nobody has used for so long is freed by the next message that comes


class ReceiveMemory:
    """Gives arrays for payloads, and takes their memory back when nobody can see it any more.

    Whatever shares the memory of an array, be it another library's, holds its :class:`_Lease`; the
    memory is free when that is gone, and not before. Every method may be called from any thread,
    and at any instant, as an array may end wherever the collector runs: hence no lock, but a queue
    whose operations are atomic.
    """

    def __init__(self) -> None:
        self._free: deque[mmap.mmap] = deque(maxlen=KEPT_BLOCKS)
        self._used = 0.0  # when memory came back, on the monotonic clock, s
        self._closed = False

    def take(self, nbytes: int) -> np.ndarray:
        """An array of so many bytes, uint8, with any content."""
        if LEAST_BYTES < nbytes <= BLOCK_BYTES:
            try:
                block = self._free.pop()
            except IndexError:
                block = _map_block()
            lease = _Lease(block, nbytes)
            weakref.finalize(lease, self._give_back, block).atexit = False
            return np.asarray(lease)
        if self._free and time.monotonic() > self._used + IDLE_S:
            self._free.clear()
        return np.empty(nbytes, np.uint8)  # no memory is touched before it is filled

    def close(self) -> None:
        """Frees what is kept, and keeps no more; what is in use is freed when it ends."""
        self._closed = True
        self._free.clear()

    def _give_back(self, block: mmap.mmap) -> None:
        self._used = time.monotonic()
        self._free.append(block)
        if self._closed:
            self._free.clear()


class _Lease:
    """What an array and all that shares its memory hold.

    A view of the block would not do: numpy lets a view of a view refer to what is at the bottom,
    past all arrays between them. It stops at what is no array.
    """

    __slots__ = ("__array_interface__", "__weakref__", "_block")

    def __init__(self, block: mmap.mmap, nbytes: int):
        self.__array_interface__ = np.frombuffer(block, np.uint8, nbytes).__array_interface__
        self._block = block


def _map_block() -> mmap.mmap:
    block = mmap.mmap(-1, BLOCK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # fewer pages to clear, where there are any
        block.madvise(mmap.MADV_HUGEPAGE)
    return block
