"""Max-min fair rates, as the fluid network shares them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from testbed.simulated.fluid import crossings, fill


def max_min_rates(
    paths: Mapping[Any, Sequence[int]],
    capacity: Mapping[int, float],
    weights: Mapping[Any, float] | None = None,
) -> dict[Any, float]:
    """Max-min fair rates, bit/s; a flow's own upper limit is a resource that only it crosses.

    With ``weights`` it is the rates ÷ weights that are fair.

    >>> max_min_rates({"a": [0], "b": [0, 1], "c": [1]}, {0: 10.0, 1: 30.0})
    {'a': 5.0, 'b': 5.0, 'c': 25.0}
    """
    each = weights or dict.fromkeys(paths, 1.0)
    rates, _ = fill(paths, crossings(paths), dict(capacity), each)
    return {flow: rates[flow][0] for flow in paths}
