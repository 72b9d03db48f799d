"""Which tree carries which chunk: a pure function that every node computes for itself."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from geojax.overlay.policy.policy import Policy, deal

WHOLE_BELOW = 1_000_000  # elements of a layer; MXNET_KVSTORE_BIGARRAY_BOUND
HASH_FACTOR = 9973


def place(policy: Policy, sizes: Sequence[int], layers: Sequence[int] = ()) -> tuple[int, ...]:
    """Gives every chunk to a tree of a policy, by the policy's placement.

    Args:
      policy: its trees; ``placement`` is one of :data:`PLACEMENTS`, unless the trees are ``fixed``.
      sizes: elements of each chunk, in order.
      layers: elements of each layer, in order; only ``geomx`` looks at them.

    Returns:
      The index of its tree for every chunk.
    """
    return policy.fixed or PLACEMENTS[policy.placement](policy, sizes, layers)


def loads(policy: Policy, sizes: Sequence[int], layers: Sequence[int] = ()) -> tuple[int, ...]:
    """Elements that each tree of a policy carries; arguments as of :func:`place`."""
    carried = [0] * len(policy.trees)
    for size, tree in zip(sizes, place(policy, sizes, layers), strict=True):
        carried[tree] += size
    return tuple(carried)


def by_bytes(count: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """Longest processing time first: the largest chunk left goes to the least loaded tree.

    Graham, *Bounds on Multiprocessing Timing Anomalies*, SIAM J. Appl. Math. 17, 1969: the most
    loaded of m trees carries at most 4/3 - 1/(3m) times what it does in the best placement. Equal
    sizes keep the order of the chunks, and of equally loaded trees the first is taken.

    Args:
      count: number of trees.
      sizes: elements of each chunk.

    >>> by_bytes(2, [3, 1, 4, 2])
    (1, 0, 0, 1)
    """
    carried = [0] * count
    placed = [0] * len(sizes)
    for chunk in sorted(range(len(sizes)), key=lambda chunk: (-sizes[chunk], chunk)):
        least = carried.index(min(carried))
        carried[least] += sizes[chunk]
        placed[chunk] = least
    return tuple(placed)


def by_key(count: int, sizes: Sequence[int], layers: Sequence[int]) -> tuple[int, ...]:
    """The rule of GeoMX, which has it from MXNet's KVStore: by a hash of the layer's number.

    A layer of fewer than a million elements goes whole to tree (key · 9973) mod n, key being its
    number; a larger one is cut evenly over all trees (:func:`ends_of_parts`). Nothing balances the
    bytes: for n = 2 all weights, whose numbers are even, come to one tree and all biases to the
    other one. GeoMX numbers parameters only; here model state, which travels too, is numbered on.

    Args:
      count: number of trees, n.
      sizes: elements of each chunk; no chunk may reach over the end of a layer.
      layers: elements of each layer.

    Raises:
      ValueError: the chunks are not cut at the ends of the layers.

    >>> by_key(2, [10, 4, 3], [14, 3])
    (0, 0, 1)
    """
    ends = list(accumulate(layers))
    placed, start = [], 0
    for size in sizes:
        key = bisect_right(ends, start)
        if key == len(ends) or start + size > ends[key]:
            raise ValueError(f"chunk {len(placed)} does not lie within one layer")
        if layers[key] < WHOLE_BELOW:
            placed.append(key * HASH_FACTOR % count)
        else:
            within = start - (ends[key] - layers[key])
            placed.append(bisect_right(ends_of_parts(layers[key], count), within))
        start += size
    return tuple(placed)


def ends_of_parts(elements: int, count: int) -> tuple[int, ...]:
    """Where the parts of a layer that is cut evenly end: part i at round((i + 1) · N / n).

    >>> ends_of_parts(1_000_001, 2)
    (500001, 1000001)
    """
    return tuple((2 * elements * part + count) // (2 * count) for part in range(1, count + 1))


Rule = Callable[[Policy, Sequence[int], Sequence[int]], tuple[int, ...]]
PLACEMENTS: dict[str, Rule] = {
    "share": lambda policy, sizes, _: deal(policy.trees, sizes),
    "bytes": lambda policy, sizes, _: by_bytes(len(policy.trees), sizes),
    "geomx": lambda policy, sizes, layers: by_key(len(policy.trees), sizes, layers),
}
