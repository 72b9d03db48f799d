"""A fluid model of shared links: every flow gets its (weighted) max-min fair rate.

A flow crosses a set of resources (directed links, access caps, LAN ports), each with a capacity.
Rates follow progressive filling (Bertsekas and Gallager, *Data Networks*, 1992, §6.5.2): all rates
rise together, in proportion to the flows' weights, until a resource is full; the flows that cross
it are fixed; the rest rise on.

An allocation is max-min fair exactly if every flow has a *bottleneck*: a full resource on which no
flow is faster (lemma in §6.5.2 there). So when a flow starts or ends, not all rates need to be
computed again. It is enough to fill again among the flows whose bottleneck changed, with all others
as they are, and to add the flows that lose their bottleneck by it, until none does. All changes of
one instant are settled together, at its end. So a flow that ends and
starts again at the same instant, as a connection does between two messages, keeps its rate and
costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush

from testbed.simulated.loop import Entry, VirtualLoop

_SAME = 1e-9  # relative difference between rates, or of a load from its capacity, that is none
_UNCHANGED = 1e-12  # relative change of a rate that is not worth a new timer
_DONE_BITS, _DONE_S = 1e-3, 1e-9  # what rounding may leave of a finished flow
_LOCAL_TRIES = 4  # fillings before the whole component is taken in
_NONE = -1  # no resource


class Flow:
    """A path through the network, and the transfer that is under way on it, if any.

    Attributes:
      rate: bit/s as of the last settling; 0 between transfers.
      weight: its share of a bottleneck, relative to the other flows' there.
    """

    __slots__ = (
        "_bottleneck",
        "_done",
        "_ending",
        "_next",
        "_path",
        "_remaining",
        "_since",
        "_tight",
        "_timer",
        "rate",
        "weight",
    )

    def __init__(self, path: tuple[int, ...], weight: float):
        self.rate = 0.0
        self.weight = weight
        self._path = path
        self._bottleneck = _NONE
        self._next, self._tight = 0.0, _NONE  # rate and bottleneck that are being worked out
        self._remaining = 0.0  # bits, at time _since
        self._since = 0.0
        self._done: Callable[[], None] | None = None  # None: nothing is under way
        self._ending = False  # it is among those that ended at this instant
        self._timer: Entry | None = None


class FluidNetwork:
    """Resources with capacities, and the flows that share them, on the loop's clock.

    Args:
      capacities: bit/s of every resource; 0 stops all its flows until it is raised again.
      loop: the clock.
    """

    def __init__(self, capacities: Mapping[Hashable, float], loop: VirtualLoop):
        self._loop = loop
        self._index = {key: number for number, key in enumerate(capacities)}
        self._capacity = list(map(float, capacities.values()))
        self._crossing: list[dict[Flow, None]] = [{} for _ in self._capacity]
        # While rates are worked out, of each resource: the flows that take part, their weight as
        # far as they are not fixed, and bit/s that it has to give.
        self._through: list[list[Flow]] = [[] for _ in self._capacity]
        self._weight, self._left = [0.0] * len(self._capacity), [0.0] * len(self._capacity)
        self._fresh: dict[Flow, None] = {}  # began at this instant
        self._ended: dict[Flow, None] = {}  # ended at this instant, not yet taken off their path
        self._changed: dict[int, None] = {}  # capacities set at this instant
        self._settling = False

    def flow(self, path: Sequence[Hashable], limit: float = math.inf, weight: float = 1.0) -> Flow:
        """A path over some resources, each at most once, on which transfers can be started.

        Args:
          path: the resources.
          limit: bit/s beyond which the flow does not go, whatever it is offered.
          weight: its share of a bottleneck, relative to the other flows' there.
        """
        indices = tuple(self._index[key] for key in path)
        if limit < math.inf:
            indices = (*indices, len(self._capacity))  # a resource that only this flow crosses
            self._capacity.append(limit)
            self._crossing.append({})
            self._through.append([])
            self._weight.append(0.0)
            self._left.append(0.0)
        return Flow(indices, weight)

    def start(self, flow: Flow, nbytes: float, done: Callable[[], None]) -> None:
        """Starts a transfer; ``done()`` is called when it has left, and may start the next one."""
        if flow._done is not None:
            raise ValueError("a flow has one transfer at a time")
        flow._done = done
        flow._remaining = nbytes * 8.0
        flow._since = self._loop._now
        if not flow._path:
            flow._timer = self._loop.at(flow._since, self._finish, flow)
        elif flow._ending:
            flow._ending = False
            if self._ended:
                self._ended.pop(flow, None)
            self._schedule(flow)
        else:
            self._fresh[flow] = None
            self._settle_later()

    def cancel(self, flow: Flow) -> None:
        """Ends a transfer without calling its ``done``; does nothing if there is none."""
        if flow._done is None:
            return
        flow._done = None
        if flow._timer is not None:
            self._loop.cancel(flow._timer)
            flow._timer = None
        if flow in self._fresh:
            del self._fresh[flow]
        elif flow._path:
            flow._ending = True
            self._ended[flow] = None
            self._settle_later()

    def set_capacity(self, key: Hashable, rate: float) -> None:
        """Changes a resource's capacity (bit/s); transfers under way go on at their new rates."""
        index = self._index[key]
        self._capacity[index] = float(rate)
        self._changed[index] = None
        self._settle_later()

    def room(self, flow: Flow) -> float:
        """Bit/s that a flow would get if it were alone."""
        return min([self._capacity[index] for index in flow._path], default=math.inf)

    def stalled(self, flow: Flow) -> float:
        """Seconds for which a transfer has had no rate; 0 if it has one, or if there is none."""
        idle = flow._done is None or flow.rate > 0 or not flow._path
        return 0.0 if idle else self._loop._now - flow._since

    def _settle_later(self) -> None:
        if not self._settling:
            self._settling = True
            self._loop.call_at_instant_end(self._settle)

    def _schedule(self, flow: Flow) -> None:
        rate, left = flow.rate, flow._remaining
        if rate > 0:
            at = self._loop._now + (left if left > 0 else 0.0) / rate
            flow._timer = self._loop.at(at, self._finish, flow)

    def _finish(self, flow: Flow) -> None:
        done, rate = flow._done, flow.rate
        flow._done = flow._timer = None
        assert done is not None
        if not flow._path:
            done()
            return
        left = flow._remaining - rate * (self._loop._now - flow._since)
        if abs(left) > _DONE_BITS + _DONE_S * rate:
            raise AssertionError(f"a flow ended with {left} bits left")
        flow._ending = True
        done()
        if flow._ending:
            self._ended[flow] = None
            self._settle_later()

    def _settle(self) -> None:
        """Gives new rates to all transfers that this instant's changes concern."""
        self._settling = False
        touched, self._changed = self._changed, {}
        concerned = {flow: None for index in touched for flow in self._crossing[index]}
        self._let_go(touched, concerned)
        self._take_in(touched, concerned)
        for index in touched:
            for flow in self._crossing[index]:
                if flow._bottleneck == index:
                    concerned[flow] = None
        if concerned:
            self._apply(self._fair_rates(concerned))

    def _let_go(self, touched: dict[int, None], concerned: dict[Flow, None]) -> None:
        """Takes ended flows off their paths; touches the resources that others still cross."""
        for flow in self._ended:
            flow.rate, flow._ending = 0.0, False
            concerned.pop(flow, None)
            for index in flow._path:
                crossing = self._crossing[index]
                del crossing[flow]
                if crossing:
                    touched[index] = None
        self._ended.clear()

    def _take_in(self, touched: dict[int, None], concerned: dict[Flow, None]) -> None:
        """Puts new flows on their paths; those that share nothing have their rate at once."""
        for flow in self._fresh:
            for index in flow._path:
                crossing = self._crossing[index]
                if crossing:
                    touched[index] = None
                crossing[flow] = None
        for flow in self._fresh:
            if touched and not touched.keys().isdisjoint(flow._path):
                flow._bottleneck = _NONE
                concerned[flow] = None
            else:
                flow._bottleneck = min(flow._path, key=self._capacity.__getitem__)
                flow.rate = self._capacity[flow._bottleneck]
                self._schedule(flow)
        self._fresh.clear()

    def _fair_rates(self, flows: dict[Flow, None]) -> list[Flow]:
        """Finds rates and bottlenecks of ``flows`` and of all that this concerns further.

        Returns:
          All these flows, in the order in which they were fixed; see :meth:`_fill`.
        """
        for tries in range(_LOCAL_TRIES + 1):
            if tries == _LOCAL_TRIES:
                flows = self._component(flows)
            fixed, levels, others = self._fill(flows)
            joining = self._join_barrier(flows, levels, others) if others else None
            if not joining:
                break
            flows = {**flows, **joining}
        return fixed

    def _fill(
        self, flows: dict[Flow, None]
    ) -> tuple[list[Flow], dict[int, float], dict[int, list[Flow]]]:
        """Progressive filling among some flows; all others keep their rates.

        Each gets the rate and the bottleneck that :meth:`_apply` makes its own.

        Returns:
          The flows in the order in which they were fixed; for each bottleneck the rate ÷ weight of
          the flows that it limits; and of each resource that others cross as well, these others.
        """
        left, weight, through = self._left, self._weight, self._through
        crossed: list[int] = []
        for flow in flows:
            flow._tight, share = _NONE, flow.weight
            for index in flow._path:
                if through[index]:
                    weight[index] += share
                else:
                    crossed.append(index)
                    weight[index] = share
                through[index].append(flow)
        others: dict[int, list[Flow]] = {}
        for index in crossed:
            room, crossing = self._capacity[index], self._crossing[index]
            if len(through[index]) < len(crossing):
                others[index] = rest = [flow for flow in crossing if flow not in flows]
                room -= sum([flow.rate for flow in rest])
            left[index] = room
        if len(flows) == 1:
            fixed, levels = self._alone(*flows)
        else:
            fixed, levels = self._rise(len(flows), crossed)
        for index in crossed:
            through[index].clear()
        return fixed, levels, others

    def _alone(self, flow: Flow) -> tuple[list[Flow], dict[int, float]]:
        """The filling of a single flow."""
        left = self._left
        flow._tight = min(flow._path, key=left.__getitem__)
        flow._next = rate = max(left[flow._tight], 0.0)
        for index in flow._path:
            left[index] -= rate
        return [flow], {flow._tight: rate / flow.weight}

    def _rise(self, count: int, crossed: list[int]) -> tuple[list[Flow], dict[int, float]]:
        """Fixes ``count`` flows, one bottleneck after another."""
        left, weight, through = self._left, self._weight, self._through
        fixed: list[Flow] = []
        levels: dict[int, float] = {}
        # A resource's share only grows while others fill up, so an entry may be out of date, never
        # too large.
        heap = [(left[index] / weight[index], index) for index in crossed]
        heapify(heap)
        while len(fixed) < count:
            share, tightest = heappop(heap)
            rising = [flow for flow in through[tightest] if flow._tight == _NONE]
            if not rising:
                continue
            level = max(left[tightest], 0.0) / weight[tightest]
            if heap and level > share and level > heap[0][0]:
                heappush(heap, (level, tightest))
                continue
            levels[tightest] = level
            fixed += rising
            for flow in rising:
                own = flow.weight
                flow._next = rate = level * own
                flow._tight = tightest
                for index in flow._path:
                    left[index] -= rate
                    weight[index] -= own
        return fixed, levels

    def _join_barrier(
        self, flows: dict[Flow, None], levels: dict[int, float], others: dict[int, list[Flow]]
    ) -> dict[Flow, None]:
        """The flows beside ``flows`` that these would leave without a bottleneck, or too fast."""
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
            full = self._left[index] <= _SAME * self._capacity[index]
            top = max([f._next / f.weight for f in self._crossing[index] if f in flows])
            for flow in relying:
                if not full or top > flow.rate / flow.weight * (1 + _SAME):
                    joining[flow] = None
        return joining

    def _component(self, flows: Iterable[Flow]) -> dict[Flow, None]:
        """All flows that share resources with these, directly or through others."""
        found = dict.fromkeys(flows)
        seen: set[int] = set()
        waiting = list(found)
        while waiting:
            for index in waiting.pop()._path:
                if index not in seen:
                    seen.add(index)
                    new = [flow for flow in self._crossing[index] if flow not in found]
                    found.update(dict.fromkeys(new))
                    waiting += new
        return found

    def _apply(self, fixed: list[Flow]) -> None:
        """Gives flows the rates that were found for them."""
        loop = self._loop
        now = loop._now
        for flow in fixed:
            flow._bottleneck = flow._tight
            rate, old, timer = flow._next, flow.rate, flow._timer
            if timer is not None:
                if abs(rate - old) <= _UNCHANGED * old:
                    continue
                loop.cancel(timer)
                flow._timer = None
            elif rate == old == 0.0:
                continue  # it stands still, since the same instant as before
            flow._remaining -= old * (now - flow._since)
            flow._since = now
            flow.rate = rate
            self._schedule(flow)
