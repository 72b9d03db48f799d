"""How a vector is cut into chunks, and how this is told to others in few bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby, pairwise

from geojax.config import OverlayConfig
from geojax.overlay.base import OVERLAYS
from geojax.overlay.planners.multigps import MULTIGPS, server_count
from geojax.overlay.policy.placement import WHOLE_BELOW, ends_of_parts

LEAST_CHUNKS = 40  # per server, so that the most loaded one is at most 1/40 above the mean

Ranges = tuple[tuple[int, int], ...]


def chunk_ranges(
    config: OverlayConfig, layers: Sequence[int], boundaries: Iterable[int] = ()
) -> Ranges:
    """Contiguous (start, stop) ranges of a vector: the chunks of every node of a run.

    Chunks have ``overlay.chunk_elements``, the last one before a boundary or the end fewer. With
    ``overlay=multigps`` and ``placement=bytes`` they have at most 1/40 of a server's mean share;
    with ``placement=geomx`` none reaches over the end of a layer, or of a part of a large layer.

    Args:
      config: the overlay group of the run's configuration.
      layers: elements of each layer, in order.
      boundaries: further offsets that no chunk may reach over.

    >>> chunk_ranges(OverlayConfig(chunk_elements=4), [7, 3])
    ((0, 4), (4, 8), (8, 10))
    >>> chunk_ranges(OverlayConfig(chunk_elements=4), [7, 3], boundaries=[7])
    ((0, 4), (4, 7), (7, 10))
    """
    total, elements = sum(layers), config.chunk_elements
    cuts = {0, total, *boundaries}
    if config.name == MULTIGPS:
        servers = server_count(config)
        if OVERLAYS.complete(config).placement == "geomx":
            cuts |= _layer_cuts(layers, servers)
        else:
            elements = min(elements, max(1, total // (LEAST_CHUNKS * servers)))
    return tuple(
        (start, min(start + elements, end))
        for begin, end in pairwise(sorted(cuts))
        for start in range(begin, end, elements)
    )


def even_pieces(total: int, elements: int, count: int) -> list[tuple[int, int]]:
    """Cuts a vector into pieces of whole chunks, as even as these allow.

    Args:
      total: elements of the vector.
      elements: of a chunk.
      count: pieces; not more than there are chunks.

    >>> even_pieces(10, 2, 2)
    [(0, 4), (4, 10)]
    >>> even_pieces(10, 4, 1)
    [(0, 10)]
    """
    chunks = chunk_count(total, elements)
    ends = [min(total, number * chunks // count * elements) for number in range(count + 1)]
    return list(pairwise([*ends[:-1], total]))


def chunk_count(total: int, elements: int) -> int:
    """Chunks of a vector that nothing but its end cuts short."""
    return -(-total // elements)


def _layer_cuts(layers: Sequence[int], servers: int) -> set[int]:
    """Ends of the layers, and of the parts of those that are cut over all servers."""
    cuts = set()
    for size, end in zip(layers, accumulate(layers), strict=True):
        cuts.add(end)
        if size >= WHOLE_BELOW:
            cuts |= {end - size + part for part in ends_of_parts(size, servers)}
    return cuts


def packed(sizes: Iterable[int]) -> list[list[int]]:
    """Sizes as runs of equal ones: [size, how many]. A control message has room for thousands.

    >>> packed([8, 8, 8, 5])
    [[8, 3], [5, 1]]
    """
    return [[size, len(list(run))] for size, run in groupby(sizes)]


def unpacked(runs: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """The inverse of :func:`packed`.

    >>> unpacked([[8, 3], [5, 1]])
    (8, 8, 8, 5)
    """
    return tuple(int(size) for size, times in runs for _ in range(times))
