"""In which order the members stand in a ring: the cheapest round trip, or the widest.

Costs are directed, ``[from, to]``. Up to :data:`EXACT` members the order is optimal, by dynamic
programming over subsets (Held, Karp 1962); beyond, it is the best nearest-neighbour tour, improved
by reversing segments (2-opt) until nothing helps. Equal inputs give equal orders; each begins with
member 0.
"""

from __future__ import annotations

import numpy as np

EXACT = 12  # members; the effort doubles with each


def cheapest_order(cost: np.ndarray) -> list[int]:
    """The round trip over all members with the least sum of costs.

    Args:
      cost: of each step ``[from, to]``, finite; the diagonal plays no part.

    >>> cheapest_order(np.array([[0, 9, 1, 9], [1, 0, 9, 9], [9, 9, 0, 1], [9, 1, 9, 0]]))
    [0, 2, 3, 1]
    """
    if len(cost) <= 2:
        return list(range(len(cost)))
    return _dynamic(cost, np.add) if len(cost) <= EXACT else _improved(cost)


def widest_order(rate: np.ndarray) -> list[int]:
    """The round trip whose slowest step is fastest; of these, the one with least Σ 1 / rate.

    Beyond :data:`EXACT` members a threshold is searched by bisection: the highest below which the
    heuristic round trip needs no step. It may be lower than the best one.

    Args:
      rate: of each step ``[from, to]``, greater than 0 but on the diagonal.

    >>> widest_order(np.array([[0, 9, 5, 5], [5, 0, 9, 5], [5, 5, 0, 1], [2, 9, 9, 0]]))
    [0, 3, 1, 2]
    """
    count = len(rate)
    if count <= 2:
        return list(range(count))
    cost = 1.0 / np.where(np.eye(count, dtype=bool), 1.0, rate)
    if count <= EXACT:
        slowest = _slowest(rate, _dynamic(cost, np.maximum))
        return _dynamic(np.where(rate < slowest, np.inf, cost), np.add)
    order = _improved(cost)
    thresholds = np.unique(rate[~np.eye(count, dtype=bool)])
    low, high = int(np.searchsorted(thresholds, _slowest(rate, order))), len(thresholds)
    dear = count * float(cost.max())  # one step below the threshold costs more than all others
    while low + 1 < high:
        middle = (low + high) // 2
        tried = _improved(np.where(rate < thresholds[middle], cost + dear, cost))
        if _slowest(rate, tried) < thresholds[middle]:
            high = middle
        else:
            low, order = middle, tried
    return order


def _slowest(rate: np.ndarray, order: list[int]) -> float:
    return float(rate[order, np.roll(order, -1)].min())


def _dynamic(cost: np.ndarray, join: np.ufunc) -> list[int]:
    """The round trip from member 0 with the least cost, steps joined by sum or by maximum.

    ``best[subset, last]``: of the paths from member 0 through all of a subset (a bit for each of
    the others) to ``last`` in it.
    """
    others = len(cost) - 1
    inner, bits = cost[1:, 1:], 1 << np.arange(others)
    best = np.full((1 << others, others), np.inf)
    before = np.zeros((1 << others, others), int)
    best[bits, np.arange(others)] = cost[0, 1:]
    for subset in range(1, 1 << others):
        through = join(best[subset][:, None], inner)
        last = np.argmin(through, axis=0)
        free = np.nonzero((bits & subset) == 0)[0]
        best[subset | bits[free], free] = through[last[free], free]
        before[subset | bits[free], free] = last[free]
    subset = (1 << others) - 1
    last = int(np.argmin(join(best[subset], cost[1:, 0])))
    order = []
    while subset:
        order.append(last + 1)
        subset, last = subset & ~(1 << last), int(before[subset, last])
    return [0, *reversed(order)]


def _improved(cost: np.ndarray) -> list[int]:
    """A good round trip: nearest neighbours from the best start, then 2-opt."""
    tours = [_nearest(cost, start) for start in range(len(cost))]
    best = min(tours, key=lambda tour: _total(cost, tour))
    order = [*best[best.index(0) :], *best[: best.index(0)]]
    while True:
        first, last = _best_reversal(cost, np.array(order))
        tried = [*order[:first], *order[first : last + 1][::-1], *order[last + 1 :]]
        if _total(cost, tried) >= _total(cost, order):  # no rounding can lead round in circles
            return order
        order = tried


def _total(cost: np.ndarray, order: list[int]) -> float:
    return float(cost[order, np.roll(order, -1)].sum())


def _nearest(cost: np.ndarray, start: int) -> list[int]:
    """Always on to the nearest member that is left."""
    order, left = [start], np.ones(len(cost), bool)
    left[start] = False
    while left.any():
        order.append(int(np.argmin(np.where(left, cost[order[-1]], np.inf))))
        left[order[-1]] = False
    return order


def _best_reversal(cost: np.ndarray, order: np.ndarray) -> tuple[int, int]:
    """First and last place of the segment whose reversal spares most, or costs least.

    The steps inside are walked in the opposite direction: their costs come from running sums.
    """
    after = np.roll(order, -1)
    onward = np.concatenate([[0.0], np.cumsum(cost[order, after])])
    back = np.concatenate([[0.0], np.cumsum(cost[after, order])])
    first, last = np.triu_indices(len(order), 1)
    first, last = first[first > 0], last[first > 0]  # member 0 stays where it is
    into, start, end, out = order[first - 1], order[first], order[last], after[last]
    now = cost[into, start] + (onward[last] - onward[first]) + cost[end, out]
    then = cost[into, end] + (back[last] - back[first]) + cost[start, out]
    best = int(np.argmax(now - then))
    return int(first[best]), int(last[best])
