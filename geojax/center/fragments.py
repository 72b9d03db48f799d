"""Fragments: parts of a model, each of whole layers, that are exchanged in turn."""

from __future__ import annotations

from geojax.center.spec import VectorSpec

Pieces = tuple[tuple[int, int], ...]
"""Where something lies in a vector: ascending, disjoint (start, stop) that do not touch."""


def fragments_of(spec: VectorSpec, count: int, pattern: str) -> tuple[Pieces, ...]:
    """Where the fragments of a vector lie.

    A layer is here what one module owns: its arrays (a weight and its bias, say) and its float
    state. Of L layers, counted from 0 in vector order, layer l is of fragment l mod P
    (``strided``) or ⌊l·P/L⌋ (``sequential``); after Douillard et al. (2025), §2.2, arXiv
    2501.18512.

    Args:
      spec: layout of the vector.
      count: P.
      pattern: ``strided`` or ``sequential``.

    >>> spec = VectorSpec.of([("a/w", (3,)), ("a/b", (1,)), ("b/w", (2,)), ("c/w", (4,))])
    >>> fragments_of(spec, 2, "strided")
    (((0, 4), (6, 10)), ((4, 6),))
    >>> fragments_of(spec, 2, "sequential")
    (((0, 6),), ((6, 10),))

    Raises:
      ValueError: there are fewer layers than fragments.
    """
    owners = _owners(spec)
    names = layers_of(spec)
    if count > len(names):
        raise ValueError(f"{count} fragments of {len(names)} layers: {', '.join(names)}")
    number = {
        name: at % count if pattern == "strided" else at * count // len(names)
        for at, name in enumerate(names)
    }
    pieces: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for layer, owner in zip(spec.layers, owners, strict=True):
        mine = pieces[number[owner]]
        if mine and mine[-1][1] == layer.offset:
            mine[-1] = (mine[-1][0], layer.stop)
        elif layer.size:
            mine.append((layer.offset, layer.stop))
    return tuple(tuple(mine) for mine in pieces)


def layers_of(spec: VectorSpec) -> list[str]:
    """The layers that fragments are made of, in vector order.

    >>> layers_of(VectorSpec.of([("a/w", (3,)), ("a/b", (1,)), ("b/w", (2,))]))
    ['a', 'b']
    """
    return list(dict.fromkeys(_owners(spec)))


def _owners(spec: VectorSpec) -> list[str]:
    return [_owner(layer.name, state=layer.kind == "state") for layer in spec.layers]


def _owner(name: str, *, state: bool) -> str:
    """The module of an array; state has its collection in front: ``batch_stats/Norm_0/mean``."""
    path = name.split("/")[state:]
    return "/".join(path[:-1]) or name
