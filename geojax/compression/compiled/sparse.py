"""Positions as bytes, compiled; see :mod:`geojax.compression.sparse`."""

from __future__ import annotations

import numpy as np
from numba import types

from geojax.compression.compiled.loop import loop, read, written

_MORE = 255


@loop(types.int64(read(types.int64), written(types.uint8)))
def _distances(positions, out):
    """Returns how many bytes it has written; -1: they are more than there is room for."""
    at, last = 0, -1
    for position in positions:
        between = position - last - 1
        last = position
        if at + between // _MORE >= out.size:
            return -1
        while between >= _MORE:
            out[at] = _MORE
            at += 1
            between -= _MORE
        out[at] = between
        at += 1
    return at


def distances(positions: np.ndarray, room: int) -> np.ndarray | None:
    """See :func:`geojax.compression.sparse.distances`."""
    out = np.empty(room, np.uint8)
    length = _distances(positions, out)
    return None if length < 0 else out[:length]
