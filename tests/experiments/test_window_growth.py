"""The connection whose window limits it after slow start, against closed forms."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from experiments.calibrate import window_growth
from experiments.calibrate.fitted import FITTED_CASES
from experiments.calibrate.window_growth import CUT, WindowedConnection
from testbed.simulated.fluid import FluidNetwork
from testbed.simulated.loop import run_virtual, virtual_loop
from testbed.simulated.tcp import Connection
from testbed.wan.tcp_rates import SEGMENT_BYTES

ROUND_TRIP, SLOW, FAST = 0.1, 8e6, 80e6  # s, bit/s
PATH = 100_000  # bytes that the slow path takes in a round trip; the fast one takes ten times that


async def _sent(connection: Connection, nbytes: int) -> float:
    """Seconds that a message takes to leave."""
    loop = virtual_loop()
    start, gone = loop.time(), loop.create_future()
    connection.send(nbytes, lambda: gone.set_result(None))
    await gone
    return loop.time() - start


def durations(kind: Any, messages: list[int], *, round_trip: float = ROUND_TRIP) -> list[float]:
    """Of messages one after the other: the first on a slow path, the others on a fast one."""

    async def main() -> list[float]:
        fluid = FluidNetwork({"link": SLOW}, virtual_loop())
        connection = kind(fluid, ["link"], round_trip, virtual_loop())
        found = [await _sent(connection, messages[0])]
        await asyncio.sleep(1.0)
        fluid.set_capacity("link", FAST)
        await asyncio.sleep(1.0)
        return found + [await _sent(connection, nbytes) for nbytes in messages[1:]]

    return run_virtual(main())


def windowed(headroom: float):
    return lambda *arguments: WindowedConnection(*arguments, headroom=headroom)


@pytest.mark.parametrize("headroom", [1.0, 2.0])
@pytest.mark.parametrize("windows", [1, 2, 5, 30])
def test_a_path_that_becomes_faster_is_grown_into_a_segment_a_round_trip(headroom, windows):
    first = headroom * PATH  # the window on the slow path, long after slow start
    sizes = [int(first + SEGMENT_BYTES * n) for n in range(windows)]
    assert max(sizes) < 10 * PATH
    grown = (windows - 1) * ROUND_TRIP + sizes[-1] * 8 / FAST
    _, seconds = durations(windowed(headroom), [100 * PATH, sum(sizes)])
    assert seconds == pytest.approx(grown, rel=1e-3)
    _, at_once = durations(Connection, [100 * PATH, sum(sizes)])
    assert at_once == pytest.approx(sum(sizes) * 8 / FAST)


def test_where_the_path_stays_full_nothing_changes():
    assert durations(windowed(2.0), [10**7])[0] == pytest.approx(durations(Connection, [10**7])[0])


def test_a_path_without_delay_has_no_window():
    messages = [10**6, 10**6]
    bound, free = (durations(k, messages, round_trip=0.0) for k in (windowed(1.0), Connection))
    assert bound == free


def test_a_window_is_cut_step_by_step_when_the_path_becomes_slower():
    async def main() -> list[float]:
        fluid = FluidNetwork({"link": FAST}, virtual_loop())
        connection = WindowedConnection(fluid, ["link"], ROUND_TRIP, virtual_loop(), headroom=1.0)
        await _sent(connection, 10**8)
        fluid.set_capacity("link", SLOW)
        found = [float(connection._window)]
        for _ in range(10):
            await _sent(connection, int(found[-1]))
            found.append(connection._window)
        return found

    first, *later = run_virtual(main())
    for window in later:
        first = max(CUT * first, PATH)
        assert window == pytest.approx(first, rel=0.02)
    assert later[-1] == pytest.approx(PATH, rel=0.02)


def test_the_table_has_all_cases_with_figures(monkeypatch):
    cases = FITTED_CASES[5:6]
    monkeypatch.setattr(window_growth, "FITTED_CASES", cases)
    shown = window_growth.table([2.0])
    assert shown.row_count == len(cases) + 2
    assert next(iter(shown.columns[1].cells)) == "-12.5%"  # as on the page
