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


class Rehearsal:
    """Plays synchronizations over the same links.

    Args:
      links: what the trees are made of.
    """

    def __init__(self, links: SharedLinks):
        self._sources, self._targets = links.sources.tolist(), links.targets.tolist()
        self._delay = links.delay.tolist()
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

    def play(self, pairs: Sequence[Pair], placed: Sequence[int], bits: Sequence[float]) -> float:
        """Time from the instant at which all members offer until all hold every result, s.

        Args:
          pairs: the trees.
          placed: index of the pair that carries each chunk.
          bits: of each chunk, all that travels for it.
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
        events: list[tuple[float, int, int, int, bool]] = []  # when, order, link, chunk (-1: free)
        number, now, last = 0, 0.0, 0.0

        def begin(link: int, chunk: int, upward: bool) -> None:
            nonlocal number
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
            last, node = now, targets[link]
            if not upward:
                result(node, chunk)
                continue
            missing[chunk][node] -= 1
            if not missing[chunk][node]:
                further = pairs[placed[chunk]].up[node]
                if further >= 0:
                    send(further, chunk, True)
                else:
                    result(node, chunk)
        return last
