"""The fluid model: fairness against brute force, conservation, changes under way."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from examples import examples
from fair_rates import max_min_rates
from hypothesis import given
from hypothesis import strategies as st

from testbed.simulated.fluid import Flow, FluidNetwork
from testbed.simulated.loop import run_virtual, virtual_loop

CLOSE = 1e-6  # relative; all comparisons of rates, bits and times below

capacities = st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 7.5, 1e6]), min_size=1, max_size=6)


@st.composite
def networks(draw: Any) -> tuple[dict[int, float], dict[int, tuple[int, ...]]]:
    """Capacities of a few resources, and the paths of a few flows over them."""
    capacity = dict(enumerate(draw(capacities)))
    path = st.lists(st.sampled_from(sorted(capacity)), min_size=1, max_size=4, unique=True)
    paths = draw(st.lists(path, min_size=1, max_size=8))
    return capacity, {number: tuple(path) for number, path in enumerate(paths)}


def water_filling(
    paths: Mapping[int, Sequence[int]],
    capacity: Mapping[int, float],
    weights: Mapping[int, float] | None = None,
) -> dict[int, float]:
    """All rates rise together, in steps that end where a resource is full; nothing is clever."""
    weight = weights or dict.fromkeys(paths, 1.0)
    rates = dict.fromkeys(paths, 0.0)
    rising = set(paths)
    while rising:
        load = {r: sum(rates[f] for f in paths if r in paths[f]) for r in capacity}
        crossing = {r: sum(weight[f] for f in rising if r in paths[f]) for r in capacity}
        step = min((capacity[r] - load[r]) / w for r, w in crossing.items() if w)
        for flow in rising:
            rates[flow] += step * weight[flow]
        load = {r: sum(rates[f] for f in paths if r in paths[f]) for r in capacity}
        full = {r for r in capacity if load[r] >= capacity[r] * (1 - 1e-9)}
        rising = {f for f in rising if not full & set(paths[f])}
    return rates


def assert_fair(
    rates: Mapping[Any, float], paths: Mapping[Any, Sequence[int]], capacity: Mapping[int, float]
) -> None:
    """No capacity is exceeded, and every flow has a full resource on which none is faster."""
    load = {r: sum(rates[f] for f in paths if r in paths[f]) for r in capacity}
    for resource, used in load.items():
        assert used <= capacity[resource] * (1 + CLOSE)
    for flow, path in paths.items():
        assert any(
            load[r] >= capacity[r] * (1 - CLOSE)
            and all(rates[g] <= rates[flow] * (1 + CLOSE) for g in paths if r in paths[g])
            for r in path
        ), f"flow {flow} has no bottleneck"


@given(networks())
def test_rates_are_those_of_water_filling(network: Any) -> None:
    capacity, paths = network
    rates = max_min_rates(paths, capacity)
    assert list(rates) == list(paths)
    assert rates == pytest.approx(water_filling(paths, capacity), rel=CLOSE)
    assert_fair(rates, paths, capacity)


@given(networks(), st.data())
def test_weighted_rates_are_those_of_weighted_water_filling(network: Any, data: Any) -> None:
    capacity, paths = network
    weights = {flow: data.draw(st.sampled_from([0.5, 1.0, 3.0])) for flow in paths}
    rates = max_min_rates(paths, capacity, weights)
    assert rates == pytest.approx(water_filling(paths, capacity, weights), rel=CLOSE)


@given(networks(), st.data())
def test_a_private_resource_is_an_upper_limit(network: Any, data: Any) -> None:
    capacity, paths = network
    limits = {100 + flow: data.draw(st.sampled_from([0.5, 1.0, 1e9])) for flow in paths}
    limited = {flow: (*path, 100 + flow) for flow, path in paths.items()}
    rates = max_min_rates(limited, {**capacity, **limits})
    assert all(rates[flow] <= limits[100 + flow] * (1 + CLOSE) for flow in paths)
    assert_fair(rates, limited, {**capacity, **limits})


class Running:
    """A fluid network with transfers, and what was seen of them."""

    def __init__(self, capacity: Mapping[Any, float]):
        self.loop = virtual_loop()
        self.fluid = FluidNetwork(capacity, self.loop)
        self.ended: dict[Any, float] = {}
        self.flows: dict[Any, Flow] = {}

    def start(self, name: Any, path: Sequence[Any], nbytes: float) -> Flow:
        flow = self.flows[name] = self.fluid.flow(path)
        self.fluid.start(flow, nbytes, lambda: self.ended.update({name: self.loop.time()}))
        return flow

    def rates(self) -> dict[Any, float]:
        return {name: f.rate for name, f in self.flows.items() if f._done is not None}


def test_shares_and_ends() -> None:
    async def main() -> dict[Any, float]:
        net = Running({"x": 8.0, "y": 24.0})
        net.start("short", ["x"], 1)  # 8 bits at 4 bit/s
        net.start("long", ["x", "y"], 3)  # 8 bits at 4, then 16 at 8
        net.start("wide", ["y"], 12)  # 20 bit/s for 2 s, 16 for 2 s, then 24
        await asyncio.sleep(100)
        return net.ended

    assert run_virtual(main()) == {"short": 2.0, "long": 4.0, "wide": 5.0}


def test_a_capacity_changes_under_way() -> None:
    async def main() -> dict[Any, float]:
        net = Running({"x": 8.0})
        net.start("a", ["x"], 4)
        await asyncio.sleep(1.0)
        net.fluid.set_capacity("x", 2.0)
        await asyncio.sleep(4.0)
        net.fluid.set_capacity("x", 16.0)
        await asyncio.sleep(100)
        return net.ended

    assert run_virtual(main()) == {"a": 6.0}


def test_nothing_moves_without_capacity() -> None:
    async def main() -> tuple[dict[Any, float], dict[Any, float]]:
        net = Running({"x": 8.0, "y": 8.0})
        net.start("stopped", ["x", "y"], 2)
        net.start("free", ["y"], 3)
        await asyncio.sleep(0.5)
        net.fluid.set_capacity("x", 0.0)
        await asyncio.sleep(10.0)
        before = dict(net.ended)
        net.start("later", ["x"], 1)
        net.fluid.set_capacity("x", 8.0)
        await asyncio.sleep(100)
        return before, net.ended

    before, after = run_virtual(main())
    # "free" had 2 bits at 4 bit/s, then 22 bits at 8.
    assert before == {"free": 3.25}
    # Both share x again from 10.5 on: 14 bits are left of one, 8 of the other.
    assert after == {"free": 3.25, "later": 12.5, "stopped": 13.25}


def test_a_cancelled_transfer_makes_room_and_is_not_done() -> None:
    async def main() -> dict[Any, float]:
        net = Running({"x": 8.0})
        gone = net.start("gone", ["x"], 100)
        net.start("a", ["x"], 2)
        await asyncio.sleep(2.0)
        net.fluid.cancel(gone)
        net.fluid.cancel(gone)
        at_once = net.start("at once", ["x"], 1)
        net.fluid.cancel(at_once)
        await asyncio.sleep(100)
        return net.ended

    assert run_virtual(main()) == {"a": 3.0}


def test_without_resources_a_transfer_takes_no_time() -> None:
    async def main() -> dict[Any, float]:
        net = Running({})
        net.start("a", [], 10**9)
        await asyncio.sleep(1.0)
        return net.ended

    assert run_virtual(main()) == {"a": 0.0}


def test_a_flow_that_goes_on_at_once_keeps_its_rate() -> None:
    async def main() -> tuple[list[float], int]:
        net = Running({"x": 8.0})
        flow = net.fluid.flow(["x"])
        ends: list[float] = []
        settled = 0
        settle = net.fluid._settle

        def counted() -> None:
            nonlocal settled
            settled += bool(net.fluid._fresh)
            settle()

        net.fluid._settle = counted  # type: ignore[method-assign]

        def again() -> None:
            ends.append(net.loop.time())
            if len(ends) < 5:
                net.fluid.start(flow, 1, again)

        net.fluid.start(flow, 1, again)
        await asyncio.sleep(100)
        return ends, settled

    assert run_virtual(main()) == ([1.0, 2.0, 3.0, 4.0, 5.0], 1)


def test_one_transfer_at_a_time() -> None:
    async def main() -> None:
        net = Running({"x": 1.0})
        flow = net.start("a", ["x"], 1)
        with pytest.raises(ValueError, match="one transfer"):
            net.fluid.start(flow, 1, print)
        net.fluid.cancel(flow)

    run_virtual(main())


events = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.25, 1.0]),  # s since the event before
        st.sampled_from(["start", "start", "start", "cancel", "capacity"]),
        st.integers(0, 1000),
        st.sampled_from([1.0, 5.0, 40.0]),
    ),
    min_size=1,
    max_size=25,
)


class History(Running):
    """Plays a script of starts, ends, cancels and changes, and checks the rates all the time."""

    def __init__(self, capacity: Mapping[int, float], paths: Mapping[int, tuple[int, ...]]):
        super().__init__(capacity)
        self.capacity, self.paths = dict(capacity), paths
        self.sizes: dict[int, float] = {}
        self.moved: dict[int, float] = {}
        self.taken: dict[int, tuple[int, ...]] = {}  # path of each transfer, ended ones too
        self.cancelled: set[int] = set()

    def running(self) -> list[int]:
        return [n for n in self.taken if n not in self.ended and n not in self.cancelled]

    async def check(self) -> None:
        settled = self.loop.create_future()
        self.loop.call_at_instant_end(lambda: settled.set_result(None))
        await settled
        paths = {number: self.taken[number] for number in self.running()}
        assert self.rates() == pytest.approx(water_filling(paths, self.capacity), rel=CLOSE)

    async def wait(self, seconds: float) -> None:
        """Lets time pass from event to event and integrates the rates that are in force."""
        end = self.loop.time() + seconds
        while (now := self.loop.time()) < end:
            ends = [when for when, _, callback, _ in self.loop._timers if callback is not None]
            step = min([end, *ends]) - now
            for number, rate in self.rates().items():
                self.moved[number] += rate * step
            await asyncio.sleep(step)
            await self.check()

    async def do(self, what: str, which: int, amount: float) -> None:
        running = self.running()
        if what == "start":
            number = len(self.sizes)
            self.sizes[number], self.moved[number] = amount, 0.0
            self.taken[number] = self.paths[which % len(self.paths)]
            self.start(number, self.taken[number], amount)
        elif what == "cancel" and running:
            self.cancelled.add(running[which % len(running)])
            self.fluid.cancel(self.flows[running[which % len(running)]])
        elif what == "capacity":
            self.change(which % len(self.capacity), amount if which % 3 else 0.0)
        await self.check()

    def change(self, resource: int, rate: float) -> None:
        self.capacity[resource] = rate
        self.fluid.set_capacity(resource, rate)


@examples(150)
@given(networks(), events)
def test_any_history_has_fair_rates_and_loses_no_bit(network: Any, script: Any) -> None:
    async def main() -> None:
        history = History(*network)
        for gap, *event in script:
            await history.wait(gap)
            await history.do(*event)
        for resource in history.capacity:
            history.change(resource, 64.0)
        await history.check()
        await history.wait(1000.0)
        assert set(history.ended) == set(history.sizes) - history.cancelled
        for number in history.ended:
            bits = history.sizes[number] * 8
            assert math.isclose(history.moved[number], bits, rel_tol=1e-6, abs_tol=1e-6)

    run_virtual(main())
