"""WANs that follow from a few numbers; each generator writes out centers and links like a user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, count
from typing import Any

import numpy as np

from geojax import fields
from geojax.config import WanConfig
from geojax.errors import ConfigError
from geojax.registry import Registry
from geojax.settings import key

WrittenOut = tuple[list[Any], list[Any]]  # ``wan.centers`` and ``wan.links`` as in a file

GENERATORS: Registry[Callable[[Any, int], WrittenOut]] = Registry("wan.generator", WanConfig)

_STREAM = 1  # keeps these draws apart from those of rates, which come from (seed, number)


@dataclass
class DegreeConfig(WanConfig):
    """Keys of ``wan.generator=random_sparse`` and ``random_geometric``."""

    degree: int | None = key(None, "neighbours of a center", least=1)


@GENERATORS.register("uniform")
@GENERATORS.register("full_mesh")
def full_mesh(wan: WanConfig, seed: int) -> WrittenOut:  # noqa: ARG001
    """Every pair of centers c1, c2, … has a link, each with ``wan.rtt``.

    Rates are ``wan.rate``, or drawn (``wan.draw``).
    """
    centers = _centers(wan)
    return list(centers), [{"between": list(pair)} for pair in combinations(centers, 2)]


@GENERATORS.register("random_sparse", DegreeConfig)
def random_sparse(wan: DegreeConfig, seed: int) -> WrittenOut:
    """A random connected WAN in which every center has exactly ``wan.degree`` neighbours.

    A random regular graph, drawn until it is connected (degree 2: a random ring); every link has
    ``wan.rtt``, and ``wan.rate`` or a drawn rate.
    """
    centers = _centers(wan)
    size, degree = len(centers), _degree(wan, len(centers))
    if size * degree % 2:
        fix = f"{size} centers cannot have {degree} neighbours each; one of the two must be even"
        raise ConfigError("wan.degree", degree, fix)
    if degree == 2:
        order = np.random.default_rng([seed, _STREAM, size]).permutation(size).tolist()
        pairs = list(zip(order, [*order[1:], order[0]], strict=True))
    else:
        import networkx  # slow to load, and every command knows this module

        graphs = (
            networkx.random_regular_graph(degree, size, np.random.default_rng([seed, _STREAM, k]))
            for k in count(1)
        )
        pairs = list(next(filter(networkx.is_connected, graphs)).edges)
    pairs = sorted((min(pair), max(pair)) for pair in pairs)
    return list(centers), [{"between": [centers[a], centers[b]]} for a, b in pairs]


@GENERATORS.register("random_geometric", DegreeConfig)
def random_geometric(wan: DegreeConfig, seed: int) -> WrittenOut:
    """Centers at random points of a square; near ones have links, as long as they are far apart.

    Links are the Euclidean minimum spanning tree, which connects all, and then the shortest other
    pairs until centers have ``wan.degree`` neighbours on average. A link's round-trip time is
    ``wan.rtt`` times its length, the side of the square being 1.
    """
    from scipy.sparse.csgraph import minimum_spanning_tree  # slow to load, like networkx
    from scipy.spatial.distance import pdist, squareform

    names = _centers(wan)
    size, degree = len(names), _degree(wan, len(names))
    rtt = fields.number("wan.rtt", wan.rtt, "the round-trip time over the square's side in ms")
    points = np.random.default_rng([seed, _STREAM, size]).random((size, 2))
    distances = squareform(pdist(points))
    tree = minimum_spanning_tree(distances).tocoo()
    chosen = {
        (min(a, b), max(a, b)) for a, b in zip(tree.row.tolist(), tree.col.tolist(), strict=True)
    }
    rows, columns = np.triu_indices(size, 1)
    for index in np.argsort(distances[rows, columns], kind="stable"):
        if len(chosen) >= size * degree / 2:
            break
        chosen.add((int(rows[index]), int(columns[index])))
    centers = [
        {"name": name, "position": [round(x, 4), round(y, 4)]}
        for name, (x, y) in zip(names, points.tolist(), strict=True)
    ]
    links = [
        {"between": [names[a], names[b]], "rtt": round(rtt * float(distances[a, b]), 3)}
        for a, b in sorted(chosen)
    ]
    return centers, links


def _centers(wan: WanConfig) -> list[str]:
    """Names c1, c2, … of ``wan.centers`` centers; and that rates and delays are known."""
    size = fields.integer("wan.centers", wan.centers, "the number of centers", least=1)
    if wan.draw is None and wan.dynamics is None:
        fields.number("wan.rate", wan.rate, "the rate of every link in Mbit/s")
    fields.number("wan.rtt", wan.rtt, "the round-trip time in ms", zero=True)
    return [f"c{index}" for index in range(1, size + 1)]


def _degree(wan: DegreeConfig, size: int) -> int:
    degree = fields.integer("wan.degree", wan.degree, "the neighbours of a center", least=1)
    if degree >= size:
        raise ConfigError("wan.degree", degree, f"{size} centers have at most {size - 1} others")
    if degree == 1 and size > 2:
        raise ConfigError("wan.degree", degree, "more than two centers need at least 2 neighbours")
    return degree
