"""A synchronization along packed trees, played through chunk by chunk: how long it would take.

Every link sends one chunk at a time, of those that wait the one with the lowest number, and a chunk
goes on when all of it has arrived: what the engine of :mod:`geojax.hips.exchange.tree` does with
idle hosts. So depth, delays, the filling of pipes and the waiting of trees for each other are in
it, which no formula over whole trees knows. A resource that several links share (an access cap, a
link on the way of two relayed ones) takes their chunks one after the other; truly they share it
evenly, which moves the same bits in the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np

from geojax.overlay.planners.columns import Pair
from geojax.overlay.routes.shared_links import SharedLinks

TRANSMISSION = 3e-6  # units of effort of one chunk over one link
_FIRST_WINDOW = 10 * 1460 * 8.0  # bits that a new connection sends at once


class Rehearsal:
    """Plays synchronizations over the same links.

    Args:
      links: what the trees are made of.

    Attributes:
      targets: the member that each link reaches.
      delay: of each link, s.
      slowness: of each link, s/bit: of the slowest resource on its route.
      common: of each link, the resources that others use too, and how slow they are.
    """

    def __init__(self, links: SharedLinks):
        self._sources, self.targets = links.sources.tolist(), links.targets.tolist()
        self.delay = links.delay.tolist()
        ends = zip(self.targets, self._sources, self.delay, strict=True)
        delay = {(source, target): time for target, source, time in ends}
        self._round_trip = [
            there + delay.get((target, source), there)
            for source, target, there in zip(self._sources, self.targets, self.delay, strict=True)
        ]
        self._count = len(links.members)
        shared = np.diff(links.use.tocsr().indptr) > 1
        own: list[float] = [0.0] * len(self._sources)
        common: list[list[tuple[int, float]]] = [[] for _ in self._sources]
        rows, columns = links.use.nonzero()
        times = links.use[rows, columns]
        for row, link, often in zip(rows.tolist(), columns.tolist(), times.tolist(), strict=True):
            slowness = float(often / links.capacity[row])
            own[link] = max(own[link], slowness)
            if shared[row]:
                common[link].append((row, slowness))
        self.slowness, self.common = own, common

    def held(
        self, pairs: Sequence[Pair], placed: Sequence[int], bits: Sequence[float], *,
        cold: bool = False,
    ) -> np.ndarray:  # fmt: skip
        """When all members hold the result of each chunk, s from when all of them offer.

        Args:
          pairs: the trees.
          placed: index of the pair that carries each chunk.
          bits: of each chunk, all that travels for it.
          cold: connections are new, and begin with TCP's slow start.
        """
        starts = [_SlowStart(trip) if cold and trip else None for trip in self._round_trip]
        return _Round(self, pairs, placed, bits, starts).held()

    def below(self, pair: Pair) -> list[list[int]]:
        """The links by which each member sends results on."""
        found: list[list[int]] = [[] for _ in range(self._count)]
        for link in pair.down:
            if link >= 0:
                found[self._sources[link]].append(link)
        return found

    def children(self, pair: Pair) -> list[int]:
        """How many sums each member waits for."""
        found = [0] * self._count
        for link in pair.up:
            if link >= 0:
                found[self.targets[link]] += 1
        return found


class _Round:
    """One synchronization under way."""

    def __init__(
        self,
        network: Rehearsal,
        pairs: Sequence[Pair],
        placed: Sequence[int],
        bits: Sequence[float],
        starts: list[_SlowStart | None],
    ):
        self._network, self._pairs, self._placed, self._bits = network, pairs, placed, bits
        self._starts = starts
        self._below = [network.below(pair) for pair in pairs]  # [pair][member]: links down
        self._children = [network.children(pair) for pair in pairs]
        self._missing = [self._children[pair].copy() for pair in placed]  # [chunk][member]
        links = len(starts)
        self._waiting: list[list[tuple[int, int, bool]]] = [[] for _ in range(links)]
        self._free = [0.0] * links
        self._busy = [False] * links  # it will look for the next chunk when it is free
        self._taken: dict[int, float] = {}
        self._events: list[tuple[float, int, int, int, bool]] = []  # chunk -1: a link is free
        self._number, self._now = 0, 0.0

    def held(self) -> np.ndarray:
        """When all members hold the result of each chunk, s."""
        held, targets = np.zeros(len(self._placed)), self._network.targets
        for chunk, pair in enumerate(self._placed):
            for node, link in enumerate(self._pairs[pair].up):
                if link >= 0 and not self._children[pair][node]:
                    self._send(link, chunk, True)
        while self._events:
            self._now, _, link, chunk, upward = heappop(self._events)
            if chunk < 0:
                self._next(link)
            elif upward:
                self._up(targets[link], chunk)
            else:
                held[chunk] = self._now
                self._down(targets[link], chunk)
        return held

    def _up(self, node: int, chunk: int) -> None:
        """A child's sum has come."""
        missing = self._missing[chunk]
        missing[node] -= 1
        if missing[node]:
            return
        further = self._pairs[self._placed[chunk]].up[node]
        if further >= 0:
            self._send(further, chunk, True)
        else:
            self._down(node, chunk)

    def _down(self, node: int, chunk: int) -> None:
        """A result has come."""
        for link in self._below[self._placed[chunk]][node]:
            self._send(link, chunk, False)

    def _send(self, link: int, chunk: int, upward: bool) -> None:
        if self._free[link] <= self._now and not self._waiting[link]:
            self._begin(link, chunk, upward)
            return
        self._number += 1
        heappush(self._waiting[link], (chunk, self._number, upward))
        if not self._busy[link]:
            self._look_when_free(link)

    def _next(self, link: int) -> None:
        """A link is free, and something waits for it."""
        chunk, _, upward = heappop(self._waiting[link])
        self._begin(link, chunk, upward)
        self._busy[link] = False
        if self._waiting[link]:
            self._look_when_free(link)

    def _look_when_free(self, link: int) -> None:
        self._busy[link] = True
        self._number += 1
        heappush(self._events, (self._free[link], self._number, link, -1, False))

    def _begin(self, link: int, chunk: int, upward: bool) -> None:
        network, now, bits = self._network, self._now, self._bits[chunk]
        start = self._starts[link]
        if start is None:
            end = now + bits * network.slowness[link]
        else:
            end = start.sent(now, bits, network.slowness[link])
            if start.filled:
                self._starts[link] = None
        for resource, slow in network.common[link]:
            since = max(self._taken.get(resource, 0.0), now)
            self._taken[resource] = since + bits * slow
            end = max(end, self._taken[resource])
        self._free[link] = end
        self._number += 1
        heappush(self._events, (end + network.delay[link], self._number, link, chunk, upward))


class _SlowStart:
    """A new connection: a round trip to set it up, then windows that double (RFC 5681, 6928).

    A window that takes a round trip to leave fills the path, which then is never idle again.
    """

    def __init__(self, round_trip: float):
        self._round_trip = round_trip
        self._window = self._credit = _FIRST_WINDOW
        self._ready: float | None = None
        self._began = 0.0
        self.filled = False

    def sent(self, now: float, bits: float, slowness: float) -> float:
        """When so much has left that is to leave from ``now`` on, at the pace of the path."""
        now = max(now, now + self._round_trip if self._ready is None else self._ready)
        while bits > 0 and not self.filled:
            if self._credit == self._window:
                self._began = now
            part = min(bits, self._credit)
            now, bits, self._credit = now + part * slowness, bits - part, self._credit - part
            self._ready = now
            if self._credit == 0:
                self._ready = self._began + self._round_trip
                self.filled = now >= self._ready
                self._window *= 2
                self._credit = self._window
                now = max(now, self._ready) if bits > 0 else now
        return now + bits * slowness
