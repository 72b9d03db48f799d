"""The fluid network has the very numbers of its plain form, in the same order."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from plain_fluid import PlainNetwork

from testbed.simulated.fluid import Flow, FluidNetwork
from testbed.simulated.loop import run_virtual, virtual_loop

Log = list[tuple[float, int, tuple[float, ...]]]  # time, flow that ended, all rates then


def history(kind: type[FluidNetwork], seed: int, star: bool) -> Log:
    """Transfers that start by chance and again when they end; capacities change as well."""
    draw = random.Random(seed)
    ports = [*range(6)]
    capacity: dict[Any, float] = {key: draw.uniform(1.0, 9.0) for key in range(6 + 25)}
    log: Log = []

    async def main() -> None:
        loop = virtual_loop()
        fluid = kind(capacity, loop)
        flows: list[Flow] = []
        for number in range(25):
            shared = [0] if star else draw.sample(ports, draw.randint(1, 3))
            limit = draw.choice([float("inf"), 0.3])
            path = [*shared, 6 + number]
            flows.append(fluid.flow(path, limit, weight=draw.uniform(0.5, 3.0)))

        def start(number: int) -> None:
            nbytes = draw.choice([0.002, 0.005, 0.02])
            fluid.start(flows[number], nbytes, lambda: ended(number))

        def ended(number: int) -> None:
            log.append((loop.time(), number, tuple(flow.rate for flow in flows)))
            if draw.random() < 0.5:
                start(number)
            else:
                loop.call_later(draw.uniform(0.0, 2.0), start, number)

        for number in range(25):
            loop.call_later(draw.choice([0.0, draw.random()]), start, number)
        for number in range(30):
            key = draw.choice([0, draw.randrange(31)])
            loop.call_later(0.5 * number, fluid.set_capacity, key, draw.choice([0.0, 2.0, 7.0]))
        await asyncio.sleep(15.0)

    run_virtual(main())
    return log


@pytest.mark.parametrize("star", [True, False], ids=["star", "mesh"])
@pytest.mark.parametrize("seed", range(8))
def test_any_history_is_that_of_the_plain_form_bit_for_bit(seed: int, star: bool) -> None:
    exact = history(PlainNetwork, seed, star)
    assert len(exact) > 150
    assert history(FluidNetwork, seed, star) == exact
