"""The fluid network in its plainest form: a mapping for everything, and nothing kept for later."""

from __future__ import annotations

import heapq
from typing import Any

from testbed.simulated.fluid import _LOCAL_TRIES, _SAME, _UNCHANGED, Flow, FluidNetwork

Rates = dict[Flow, tuple[float, int]]


class PlainNetwork(FluidNetwork):
    """Settles with the same numbers, added and subtracted in the same order."""

    def _fair_rates(self, flows: dict[Flow, None]) -> Any:
        rates: Rates = {}
        for tries in range(_LOCAL_TRIES + 1):
            if tries == _LOCAL_TRIES:
                flows = self._component(flows)
            others: dict[int, list[Flow]] = {}
            left: dict[int, float] = {}
            for flow in flows:
                for index in flow._path:
                    if index not in left:
                        rest = [other for other in self._crossing[index] if other not in flows]
                        left[index] = self._capacity[index]
                        if rest:
                            others[index] = rest
                            left[index] -= sum(other.rate for other in rest)
            rates, levels = fill(flows, left)
            joining = self._left_without(rates, levels, left, others)
            if not joining:
                break
            flows = {**flows, **joining}
        return rates

    def _left_without(
        self, rates: Rates, levels: dict[int, float], left: dict[int, float],
        others: dict[int, list[Flow]],
    ) -> dict[Flow, None]:  # fmt: skip
        joining: dict[Flow, None] = {}
        for index, rest in others.items():
            level = levels.get(index)
            if level is not None:
                for flow in rest:
                    own = flow.rate / flow.weight
                    slow = flow._bottleneck == index and own < level * (1 - _SAME)
                    if slow or own > level * (1 + _SAME):
                        joining[flow] = None
                continue
            relying = [flow for flow in rest if flow._bottleneck == index]
            if not relying:
                continue
            full = left[index] <= _SAME * self._capacity[index]
            top = max(rates[f][0] / f.weight for f in self._crossing[index] if f in rates)
            for flow in relying:
                if not full or top > flow.rate / flow.weight * (1 + _SAME):
                    joining[flow] = None
        return joining

    def _apply(self, fixed: Any) -> None:
        now = self._loop._now
        for flow, (rate, bottleneck) in fixed.items():
            flow._bottleneck = bottleneck
            old = flow.rate
            if flow._timer is not None:
                if abs(rate - old) <= _UNCHANGED * old:
                    continue
                self._loop.cancel(flow._timer)
                flow._timer = None
            elif rate == old == 0.0:
                continue
            flow._remaining -= old * (now - flow._since)
            flow._since = now
            flow.rate = rate
            self._schedule(flow)


def fill(flows: dict[Flow, None], left: dict[int, float]) -> tuple[Rates, dict[int, float]]:
    """Progressive filling: rates and bottlenecks, and the level of each bottleneck."""
    rates: Rates = {}
    levels: dict[int, float] = {}
    if len(flows) == 1:
        (flow,) = flows
        tightest = min(flow._path, key=left.__getitem__)
        rate = max(left[tightest], 0.0)
        for index in flow._path:
            left[index] -= rate
        return {flow: (rate, tightest)}, {tightest: rate / flow.weight}
    crossing: dict[int, list[Flow]] = {index: [] for index in left}
    for flow in flows:
        for index in flow._path:
            crossing[index].append(flow)
    count = {index: len(those) for index, those in crossing.items()}
    weight = {index: sum(flow.weight for flow in those) for index, those in crossing.items()}
    heap = [(left[index] / weight[index], index) for index in crossing]
    heapq.heapify(heap)
    while heap:
        share, tightest = heapq.heappop(heap)
        if not count[tightest]:
            continue
        level = max(left[tightest], 0.0) / weight[tightest]
        if heap and level > share and level > heap[0][0]:
            heapq.heappush(heap, (level, tightest))
            continue
        levels[tightest] = level
        for flow in crossing[tightest]:
            if flow not in rates:
                rate = level * flow.weight
                rates[flow] = (rate, tightest)
                for index in flow._path:
                    left[index] -= rate
                    count[index] -= 1
                    weight[index] -= flow.weight
    return rates, levels
