"""Max-min fair rates, as the fluid network shares them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from testbed.simulated.fluid import FluidNetwork
from testbed.simulated.loop import VirtualLoop


def max_min_rates(
    paths: Mapping[Any, Sequence[int]],
    capacity: Mapping[Any, float],
    weights: Mapping[Any, float] | None = None,
) -> dict[Any, float]:
    """Max-min fair rates, bit/s; a flow's own upper limit is a resource that only it crosses.

    With ``weights`` it is the rates ÷ weights that are fair.

    >>> max_min_rates({"a": [0], "b": [0, 1], "c": [1]}, {0: 10.0, 1: 30.0})
    {'a': 5.0, 'b': 5.0, 'c': 25.0}
    """
    loop = VirtualLoop()
    try:
        fluid = FluidNetwork(capacity, loop)
        each = weights or dict.fromkeys(paths, 1.0)
        flows = {name: fluid.flow(path, weight=each[name]) for name, path in paths.items()}
        for flow in flows.values():
            fluid.start(flow, 1.0, lambda: None)
        fluid._settle()
        return {name: flow.rate for name, flow in flows.items()}
    finally:
        loop.close()
