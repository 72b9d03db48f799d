"""Exact round times of layer-staged training: what P3 is measured against.

The model. All members compute alike and at the same time, so one member's round stands for all. A
step goes forward through the stages 0 to n - 1 and backward through n - 1 to 0, on one processor,
without a gap but where a forward part must wait for its stage's new parameters. When a stage's
backward part is done its gradient is released; cut into chunks, it passes a line of *hops* (up to
the root, down from it; or LAN up, WAN up, WAN down, LAN down). A hop sends one chunk at a time at
its rate; its latency later the chunk is at the next hop, and goes on when it is whole. Merging, the
outer step, headers and acknowledgements take no time. Up and down are hops of their own (full
duplex). Where several members share the root's access link, a hop's rate is one member's share.

All updates of a round are back before the next backward pass begins (the last forward part needs
the last of them), so nothing is carried from round to round: one round, counted from the start of
its backward pass, is the steady state, exactly.

Three round times, T_serial ≥ T_best ≥ T_ideal:

- :func:`serial_round`: all computing, then all communication (what a run without P3 does);
- :func:`best_round`: the shortest round over all orders of priority among the stages, each hop
  sending the most urgent chunk that it has (preemption between chunks), by trying every order;
- :func:`ideal_round`: a lower bound of every schedule whatever, with preemption anywhere.

The lower bound looks at one hop at a time and lets all others serve any number of chunks at once.
What is left is one machine with release times, preemption and delivery times (a stage that has left
the hop needs at least a chunk's path over the hops behind, and the forward parts from its own on).
Serving the job with the longest delivery time first is optimal there (Horn, *Some simple scheduling
algorithms*, 1974): which is P3's rule, the earliest layer first (Jayarajan et al., MLSys 2019, §4).
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from geojax.center.stages import STATE, Stage

_EXACT = 1e-9  # relative difference at which two round times are one


class StageTimes(NamedTuple):
    """One stage: seconds of its forward and backward part, and bytes in each direction."""

    forward: float
    backward: float
    nbytes: float


class Hop(NamedTuple):
    """One link that every chunk passes: bytes/s, and seconds from sent to received."""

    rate: float
    latency: float = 0.0


def stage_times(stages: Iterable[Stage], step_s: float) -> list[StageTimes]:
    """The stages of a model as dense float32 at a pace of ``step_s`` seconds a step.

    Raises:
      ValueError: one of them is float state, whose place in a round is not modelled here.
    """
    stages = tuple(stages)
    if any(stage.name == STATE for stage in stages):
        raise ValueError("models with float state have no exact schedule here")
    return [
        StageTimes(step_s * each.forward, step_s * each.backward, 4 * (each.stop - each.start))
        for each in stages
    ]


def serial_round(stages: Sequence[StageTimes], hops: Sequence[Hop], chunk: float) -> float:
    """Seconds of a round that computes everything, and then communicates everything."""
    now = math.fsum(stage.forward + stage.backward for stage in stages)
    chunks = [
        _Chunk(now, index, number, size)
        for index, stage in enumerate(stages)
        for number, size in enumerate(_cut(stage.nbytes, chunk))
    ]
    return max(each.at for each in _delivered(chunks, hops))


def priority_round(
    stages: Sequence[StageTimes], hops: Sequence[Hop], chunk: float, order: Sequence[int]
) -> float:
    """Seconds of a round in which every hop sends the most urgent chunk that it has.

    Args:
      stages: of the model, in order of execution.
      hops: the line that every chunk passes.
      chunk: bytes of a chunk; the last chunk of a stage may be smaller.
      order: the stages, the most urgent one first: 0, 1, 2, … is P3's order.
    """
    rank = {index: place for place, index in enumerate(order)}
    chunks = [
        _Chunk(released, rank[index], number, size)
        for index, released in enumerate(_releases(stages))
        for number, size in enumerate(_cut(stages[index].nbytes, chunk))
    ]
    back = [0.0] * len(stages)
    for each in _delivered(chunks, hops):
        index = order[each.rank]
        back[index] = max(back[index], each.at)
    now = math.fsum(stage.backward for stage in stages)
    for stage, at in zip(stages, back, strict=True):
        now = max(now, at) + stage.forward
    return now


def best_round(stages: Sequence[StageTimes], hops: Sequence[Hop], chunk: float) -> float:
    """The shortest :func:`priority_round` over all orders of the stages.

    Orders are tried until one reaches :func:`ideal_round`, which none can beat; P3's is the first.
    If none does (stages of broken chunks), all n! are tried: take :func:`ideal_round` then where
    there are more than six stages.
    """
    bound, best = ideal_round(stages, hops, chunk), math.inf
    for order in itertools.permutations(range(len(stages))):
        best = min(best, priority_round(stages, hops, chunk, order))
        if best <= bound * (1 + _EXACT):
            break
    return best


def ideal_round(stages: Sequence[StageTimes], hops: Sequence[Hop], chunk: float) -> float:
    """Seconds below which no schedule can get; see the module's docstring.

    It is reached, by P3's order, when all hops have one rate and all chunks are equal and leave at
    instants at which the hop has just sent a whole chunk; else up to some chunks' time is missing.
    """
    computing = math.fsum(stage.forward + stage.backward for stage in stages)
    smallest = [min(_cut(stage.nbytes, chunk)) for stage in stages]
    tails = [math.fsum(later.forward for later in stages[index:]) for index in range(len(stages))]
    bound = computing
    for place, hop in enumerate(hops):
        jobs = []
        for index, released in enumerate(_releases(stages)):
            before = [smallest[index] / each.rate + each.latency for each in hops[:place]]
            behind = [smallest[index] / each.rate + each.latency for each in hops[place + 1 :]]
            head = released + math.fsum(before)
            tail = hop.latency + math.fsum(behind) + tails[index]
            jobs.append((head, stages[index].nbytes / hop.rate, tail))
        bound = max(bound, one_machine(jobs))
    return bound


def one_machine(jobs: Iterable[tuple[float, float, float]]) -> float:
    """Shortest time in which all jobs (release, duration, tail) are served and delivered.

    At every instant the released job with the longest tail is served; a job that becomes free
    interrupts one with a shorter tail.
    """
    coming = deque(sorted(jobs))
    waiting: list[list[float]] = []  # [-tail, duration left]
    now, done = 0.0, 0.0
    while coming or waiting:
        if not waiting:
            now = max(now, coming[0][0])
        while coming and coming[0][0] <= now:
            _, duration, tail = coming.popleft()
            heapq.heappush(waiting, [-tail, duration])
        current = waiting[0]
        until = coming[0][0] if coming else math.inf
        if now + current[1] <= until:
            heapq.heappop(waiting)
            now += current[1]
            done = max(done, now - current[0])
        else:
            current[1] -= until - now
            now = until
    return done


def gain(serial: float, measured: float, ideal: float) -> float:
    """Share of what overlap can save that was saved: 0 for the serial round, 1 for the ideal."""
    return (serial - measured) / (serial - ideal)


class _Chunk(NamedTuple):
    """A chunk at a hop, or behind the last one: when it is there, its priority and its size."""

    at: float
    rank: int
    number: int
    size: float


def _releases(stages: Sequence[StageTimes]) -> list[float]:
    """When every stage's backward part is done, from the start of the backward pass."""
    return [math.fsum(later.backward for later in stages[i:]) for i in range(len(stages))]


def _cut(nbytes: float, chunk: float) -> list[float]:
    whole = int(nbytes // chunk)
    rest = nbytes - whole * chunk
    return [chunk] * whole + ([rest] if rest else [])


def _delivered(chunks: Iterable[_Chunk], hops: Iterable[Hop]) -> list[_Chunk]:
    """The same chunks behind the last hop; what a hop does depends on the hops before it alone."""
    arrived = list(chunks)
    for hop in hops:
        coming = deque(sorted(arrived))
        waiting: list[tuple[int, int, float]] = []
        arrived, now = [], 0.0
        while coming or waiting:
            if not waiting:
                now = max(now, coming[0].at)
            while coming and coming[0].at <= now:
                each = coming.popleft()
                heapq.heappush(waiting, each[1:])
            rank, number, size = heapq.heappop(waiting)
            now += size / hop.rate
            arrived.append(_Chunk(now + hop.latency, rank, number, size))
    return arrived
