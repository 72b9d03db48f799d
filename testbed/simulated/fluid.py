"""A fluid model of shared links: every flow gets its max-min fair rate.

A flow crosses an ordered set of resources (directed links, access caps, LAN ports), each with a
capacity. Rates follow progressive filling (Bertsekas and Gallager, *Data Networks*, 1992, §6.5.2):
all rates rise together until a resource is full; the flows that cross it are fixed; the rest rise
on. Rates change only when a flow starts or ends or a capacity changes, and only in the component
of flows and resources that this touches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

_DONE_BITS = 1e-3  # what rounding may leave of a finished flow


class Flow:
    """One transfer in progress; made by :meth:`FluidNetwork.start`."""

    __slots__ = ("done", "path", "rate", "remaining", "since", "timer")

    def __init__(self, path: tuple[int, ...], bits: float, done: Callable[[], None], now: float):
        self.path = path
        self.remaining = bits
        self.rate = 0.0
        self.since = now
        self.done = done
        self.timer: asyncio.TimerHandle | None = None


class FluidNetwork:
    """Resources with capacities, and the flows that share them, on the loop's clock.

    Args:
      capacities: bit/s of every resource; 0 stops all its flows until it is raised again.
    """

    def __init__(self, capacities: Mapping[Hashable, float]):
        self._loop = asyncio.get_running_loop()
        self._index = {key: number for number, key in enumerate(capacities)}
        self._capacity = list(map(float, capacities.values()))
        self._flows: list[dict[Flow, None]] = [{} for _ in self._capacity]
        self._touched: dict[int, None] = {}
        self._settling = False

    def start(self, path: Sequence[Hashable], nbytes: float, done: Callable[[], None]) -> Flow:
        """Starts a transfer of ``nbytes`` over ``path``; ``done()`` is called when it has left."""
        indices = tuple(self._index[key] for key in path)
        flow = Flow(indices, nbytes * 8.0, done, self._loop.time())
        if not indices:
            flow.timer = self._loop.call_at(self._loop.time(), done)
            return flow
        for index in indices:
            self._flows[index][flow] = None
        self._touch(indices)
        return flow

    def cancel(self, flow: Flow) -> None:
        """Ends a transfer without calling its ``done``."""
        if flow.timer is not None:
            flow.timer.cancel()
        if self._remove(flow):
            self._touch(flow.path)

    def set_capacity(self, key: Hashable, rate: float) -> None:
        """Changes a resource's capacity (bit/s); flows in progress go on at their new rates."""
        index = self._index[key]
        self._capacity[index] = float(rate)
        self._touch((index,))

    def rates(self) -> dict[Flow, float]:
        """The current rate of every flow, bit/s, as of the last settling."""
        return {flow: flow.rate for flows in self._flows for flow in flows}

    def _remove(self, flow: Flow) -> bool:
        present = False
        for index in flow.path:
            present = self._flows[index].pop(flow, 0) is None or present
        return present

    def _touch(self, indices: Iterable[int]) -> None:
        self._touched.update(dict.fromkeys(indices))
        if not self._settling:
            self._settling = True
            self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        """Brings the touched components up to date and gives their flows new rates."""
        self._settling = False
        flows, resources = self._component(self._touched)
        self._touched = {}
        now = self._loop.time()
        for flow in flows:
            flow.remaining -= flow.rate * (now - flow.since)
            flow.since = now
        rates = max_min_rates(
            {flow: flow.path for flow in flows}, {r: self._capacity[r] for r in resources}
        )
        for flow, rate in rates.items():
            if rate == flow.rate and flow.timer is not None:
                continue
            flow.rate = rate
            if flow.timer is not None:
                flow.timer.cancel()
                flow.timer = None
            if rate > 0:
                end = now + max(flow.remaining, 0.0) / rate
                flow.timer = self._loop.call_at(end, self._finish, flow)

    def _component(self, seeds: Iterable[int]) -> tuple[dict[Flow, None], dict[int, None]]:
        resources = dict.fromkeys(seeds)
        flows: dict[Flow, None] = {}
        frontier = list(resources)
        while frontier:
            for flow in self._flows[frontier.pop()]:
                if flow not in flows:
                    flows[flow] = None
                    for index in flow.path:
                        if index not in resources:
                            resources[index] = None
                            frontier.append(index)
        return flows, resources

    def _finish(self, flow: Flow) -> None:
        left = flow.remaining - flow.rate * (self._loop.time() - flow.since)
        if left > _DONE_BITS:
            raise AssertionError(f"a flow ended with {left} bits left")
        self._remove(flow)
        self._touch(flow.path)
        flow.done()


def max_min_rates(
    paths: Mapping[Flow, Sequence[int]], capacity: Mapping[int, float]
) -> dict[Flow, float]:
    """Max-min fair rates by progressive filling.

    Args:
      paths: resources that each flow crosses.
      capacity: bit/s of each resource.

    Returns:
      bit/s of each flow, in the order of ``paths``.
    """
    left = dict(capacity)
    waiting: dict[int, dict[Flow, None]] = {resource: {} for resource in capacity}
    for flow, path in paths.items():
        for resource in path:
            waiting[resource][flow] = None
    rates = dict.fromkeys(paths, 0.0)
    open_resources = {resource: flows for resource, flows in waiting.items() if flows}
    while open_resources:
        tightest = min(open_resources, key=lambda r: left[r] / len(open_resources[r]))
        share = max(left[tightest], 0.0) / len(open_resources[tightest])
        for flow in list(open_resources[tightest]):
            rates[flow] = share
            for resource in paths[flow]:
                left[resource] -= share
                flows = open_resources[resource]
                flows.pop(flow, None)
                if not flows:
                    del open_resources[resource]
    return rates
