"""WANs that follow from a few numbers; each generator writes out centers and links like a user."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

from geojax.config import WanConfig
from geojax.registry import Registry
from testbed import wan_fields

WrittenOut = tuple[list[Any], list[Any]]  # ``wan.centers`` and ``wan.links`` as in a file

GENERATORS: Registry[Callable[[WanConfig], WrittenOut]] = Registry("wan.generator")


@GENERATORS.register("uniform")
def uniform(wan: WanConfig) -> WrittenOut:
    """A full mesh of ``wan.centers`` centers c1, c2, …; every link ``wan.rate`` and ``wan.rtt``."""
    size = wan_fields.integer("wan.centers", wan.centers, "the number of centers", least=1)
    if wan.draw is None and wan.dynamics is None:
        wan_fields.number("wan.rate", wan.rate, "the rate of every link in Mbit/s")
    wan_fields.number("wan.rtt", wan.rtt, "the round-trip time in ms", zero=True)
    centers = [f"c{index}" for index in range(1, size + 1)]
    return list(centers), [{"between": list(pair)} for pair in combinations(centers, 2)]
