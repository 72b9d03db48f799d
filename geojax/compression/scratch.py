"""Memory that a thread uses again: fresh memory costs a page fault for every 4 KiB."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

SLAB = 65_536  # elements that loops take at a time: what is in work stays in the cache
_mine = threading.local()


def scratch(use: str, elements: int, dtype: Any = np.float32) -> np.ndarray:
    """An array of whatever content, valid until this thread asks for the same use again.

    >>> one = scratch("example", 5)
    >>> np.shares_memory(one, scratch("example", 4, np.uint8))
    True
    >>> np.shares_memory(one, scratch("another example", 5))
    False
    """
    nbytes = elements * np.dtype(dtype).itemsize
    held: dict[str, np.ndarray] = _mine.__dict__.setdefault("held", {})
    kept = held.get(use)
    if kept is None or kept.size < nbytes:
        kept = held[use] = np.empty(nbytes, np.uint8)
    return kept[:nbytes].view(dtype)
