"""The exact schedule of P3 against cases by hand and against every schedule there is."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from experiments.bench.p3_schedule import (
    Hop,
    StageTimes,
    best_round,
    gain,
    ideal_round,
    one_machine,
    priority_round,
    serial_round,
    stage_times,
)
from geojax.center.stages import build_stages
from geojax.config import ModelConfig, RunConfig
from geojax.models.registry import SyntheticConfig

UP_DOWN = (Hop(1.0), Hop(1.0))


def p3_round(stages, hops, chunk):
    return priority_round(stages, hops, chunk, range(len(stages)))


def test_two_equal_stages_by_hand():
    """Backward 1, 0 until 2; up 1-2 and 2-3, down 2-3 and 3-4; forward 0, 1 from 4 to 6."""
    stages = [StageTimes(1, 1, 1)] * 2
    assert serial_round(stages, UP_DOWN, 1) == 4 + 3
    assert p3_round(stages, UP_DOWN, 1) == best_round(stages, UP_DOWN, 1) == 6
    assert ideal_round(stages, UP_DOWN, 1) == 6


def test_a_heavy_last_stage_lets_the_first_one_pass():
    """First stage: up at 3, down at 4; last one: nine chunks behind it, down at 13, then 1 s."""
    stages = [StageTimes(1, 1, 1), StageTimes(1, 1, 10)]
    assert serial_round(stages, UP_DOWN, 1) == 4 + 12
    assert p3_round(stages, UP_DOWN, 1) == ideal_round(stages, UP_DOWN, 1) == 14
    assert priority_round(stages, UP_DOWN, 1, (1, 0)) == 15  # first come, first served
    assert best_round(stages, UP_DOWN, 1) == 14
    # In one piece nothing can pass: up 1-11, 11-12; down 11-21, 21-22; forward 22 to 24.
    assert p3_round(stages, UP_DOWN, 10) == 24


def test_latency_and_slower_hops_by_hand():
    """Up at 2 bytes/s: at the root at 1 + 1 + 0.5; down at 1 byte/s: back 2 + 0.5 later."""
    stages = [StageTimes(1, 1, 2)]
    hops = (Hop(2.0, 0.5), Hop(1.0, 0.5))
    assert serial_round(stages, hops, 2) == 2 + 1 + 0.5 + 2 + 0.5
    assert p3_round(stages, hops, 2) == ideal_round(stages, hops, 2) == 6
    # Chunks of 1: the second one waits for the first one on the way down.
    assert p3_round(stages, hops, 1) == 1 + 0.5 + 0.5 + 2 + 0.5 + 1
    assert ideal_round(stages, hops, 1) == 5.5


def test_computing_alone_bounds_a_round_over_a_fast_line():
    stages = [StageTimes(1, 2, 1)] * 3
    hops = (Hop(1e9), Hop(1e9))
    assert ideal_round(stages, hops, 1) == pytest.approx(9)
    assert serial_round(stages, hops, 1) == pytest.approx(9)


def test_one_machine_interrupts_for_longer_tails():
    # Job 0 runs 0-1 and 3-6, job 1 runs 1-3: done at 6 + 1 and 3 + 5.
    assert one_machine([(0, 4, 1), (1, 2, 5)]) == 8
    assert one_machine([(0, 4, 5), (1, 2, 1)]) == 9  # no interruption: 4 + 5 and 6 + 1
    assert one_machine([(5, 1, 0)]) == 6


def test_gain():
    assert gain(10, 10, 6) == 0
    assert gain(10, 6, 6) == 1
    assert gain(10, 7, 6) == 0.75


def test_stages_of_a_configured_model():
    config = RunConfig(
        model=SyntheticConfig(bytes=48, stages=2, stage_bytes=[8, 40], stage_paces=[[1, 1], [1, 1]])
    )
    assert stage_times(build_stages(config), 4.0) == [(1, 1, 8), (1, 1, 40)]
    config = RunConfig(model=ModelConfig("cnn_batchnorm"))
    with pytest.raises(ValueError, match="float state"):
        stage_times(build_stages(config), 1.0)


def every_schedule(stages) -> int:
    """The shortest round over all schedules of unit chunks in unit slots, idling included.

    Up and down at one chunk a slot; in every slot each of the two sends any chunk that it has, or
    none. Plain search, to judge the bound.
    """
    count = len(stages)
    released = [sum(later.backward for later in stages[index:]) for index in range(count)]
    tails = [sum(later.forward for later in stages[index:]) for index in range(count)]
    horizon = max(released) + sum(stage.nbytes for stage in stages) + 2

    def take(left, index):
        return tuple(each - (place == index) for place, each in enumerate(left))

    @functools.cache
    def shortest(slot, above, below):
        if not any(above) and not any(below):
            return 0
        if slot > horizon:
            return math.inf
        ups = [i for i in range(count) if above[i] and released[i] <= slot]
        downs = [i for i in range(count) if below[i]]
        found = math.inf
        for up, down in itertools.product([*ups, None], [*downs, None]):
            after = take(below, down)
            done = 0
            if down is not None and above[down] == after[down] == 0:
                done = slot + 1 + tails[down]
            if up is not None:
                after = tuple(each + (place == up) for place, each in enumerate(after))
            found = min(found, max(done, shortest(slot + 1, take(above, up), after)))
        return found

    computing = sum(stage.forward + stage.backward for stage in stages)
    start = tuple(stage.nbytes for stage in stages)
    return max(computing, shortest(0, start, (0,) * count))


SMALL = st.lists(
    st.builds(StageTimes, st.integers(0, 3), st.integers(0, 3), st.integers(1, 3)),
    min_size=1,
    max_size=3,
)


@examples(40)
@given(SMALL)
def test_the_bound_is_the_optimum_of_unit_chunks_and_p3_reaches_it(stages):
    ideal = ideal_round(stages, UP_DOWN, 1)
    assert ideal == every_schedule(stages)
    assert ideal == best_round(stages, UP_DOWN, 1) == p3_round(stages, UP_DOWN, 1)


TIMES = st.builds(
    StageTimes, st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 3).map(lambda size: round(size, 2))
)
HOPS = st.lists(st.builds(Hop, st.floats(0.5, 4), st.floats(0, 0.5)), min_size=1, max_size=4)


@examples(40)
@given(st.lists(TIMES, min_size=1, max_size=4), HOPS)
def test_no_order_beats_the_bound_and_small_chunks_come_close(stages, hops):
    chunk = 0.05
    ideal, p3 = ideal_round(stages, hops, chunk), p3_round(stages, hops, chunk)
    serial = serial_round(stages, hops, chunk)
    times = [
        priority_round(stages, hops, chunk, order)
        for order in itertools.permutations(range(len(stages)))
    ]
    assert ideal <= min(times) + 1e-9
    assert p3 <= serial + 1e-9
    # On every hop each stage may find one chunk in its way, and end in one more of its own.
    slack = sum(chunk / hop.rate for hop in hops) * (len(stages) + 1)
    assert p3 <= ideal + slack + 1e-9


def test_eight_stages_of_a_synthetic_model():
    """P3 saves all that can be saved; first come, first served much less."""
    chunk = 65_536 * 4
    stages = [StageTimes(0.05, 0.1, 20 * chunk)] * 8
    hops = (Hop(100 * chunk, 0.02), Hop(100 * chunk, 0.02))  # 0.01 s a chunk
    serial, ideal = serial_round(stages, hops, chunk), ideal_round(stages, hops, chunk)
    best = best_round(stages, hops, chunk)  # by the bound: the first order of 40,320 reaches it
    assert best == p3_round(stages, hops, chunk) == pytest.approx(ideal)
    backwards = priority_round(stages, hops, chunk, range(7, -1, -1))
    assert 0.5 < gain(serial, backwards, ideal) < 0.8
    coarse = p3_round(stages, hops, 20 * chunk)
    assert gain(serial, coarse, ideal) < gain(serial, best, ideal)
