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
    """

    def __init__(self, links: SharedLinks):
        self._sources, self._targets = links.sources.tolist(), links.targets.tolist()
        self._delay = links.delay.tolist()
        ends = zip(self._targets, self._sources, self._delay, strict=True)
        delay = {(source, target): time for target, source, time in ends}
        self._round_trip = [
            there + delay.get((target, source), there)
            for source, target, there in zip(self._sources, self._targets, self._delay, strict=True)
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
        self._slowness, self._common = own, common

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
        sources, targets, delays, count = self._sources, self._targets, self._delay, self._count
        slowness, common = self._slowness, self._common
        below = [
            [[link for link in pair.down if link >= 0 and sources[link] == node] for node in
             range(count)] for pair in pairs
        ]  # fmt: skip
        children = [
            np.bincount([targets[link] for link in pair.up if link >= 0], minlength=count).tolist()
            for pair in pairs
        ]
        missing = [children[pair].copy() for pair in placed]
        waiting: list[list[tuple[int, int, bool]]] = [[] for _ in sources]
        free = [0.0] * len(sources)
        busy = [False] * len(sources)  # it will look for the next chunk when it is free
        taken: dict[int, float] = {}
        starts = [_SlowStart(trip) if cold and trip else None for trip in self._round_trip]
        events: list[tuple[float, int, int, int, bool]] = []  # when, order, link, chunk (-1: free)
        number, now = 0, 0.0
        held = np.zeros(len(placed))

        def begin(link: int, chunk: int, upward: bool) -> None:
            nonlocal number
            if (start := starts[link]) is not None:
                end = start.sent(now, bits[chunk], slowness[link])
                if start.filled:
                    starts[link] = None
            else:
                end = now + bits[chunk] * slowness[link]
            for resource, slow in common[link]:
                since = max(taken.get(resource, 0.0), now)
                taken[resource] = since + bits[chunk] * slow
                end = max(end, taken[resource])
            free[link] = end
            number += 1
            heappush(events, (end + delays[link], number, link, chunk, upward))

        def send(link: int, chunk: int, upward: bool) -> None:
            nonlocal number
            if free[link] <= now and not waiting[link]:
                begin(link, chunk, upward)
                return
            number += 1
            heappush(waiting[link], (chunk, number, upward))
            if not busy[link]:
                busy[link] = True
                heappush(events, (free[link], number, link, -1, False))

        def result(node: int, chunk: int) -> None:
            for link in below[placed[chunk]][node]:
                send(link, chunk, False)

        for chunk, pair in enumerate(placed):
            for node, link in enumerate(pairs[pair].up):
                if link >= 0 and not children[pair][node]:
                    send(link, chunk, True)
        while events:
            now, _, link, chunk, upward = heappop(events)
            if chunk < 0:
                if waiting[link]:
                    chunk, _, upward = heappop(waiting[link])
                    begin(link, chunk, upward)
                busy[link] = bool(waiting[link])
                if busy[link]:
                    number += 1
                    heappush(events, (free[link], number, link, -1, False))
                continue
            node = targets[link]
            if not upward:
                held[chunk] = now
                result(node, chunk)
                continue
            missing[chunk][node] -= 1
            if not missing[chunk][node]:
                further = pairs[placed[chunk]].up[node]
                if further >= 0:
                    send(further, chunk, True)
                else:
                    result(node, chunk)
        return held


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
