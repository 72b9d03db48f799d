"""The simulated connection: set-up, slow start, a window that stays, urgent messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from testbed.simulated.fluid import FluidNetwork
from testbed.simulated.loop import run_virtual, virtual_loop
from testbed.simulated.tcp import INITIAL_SEGMENTS, SEGMENT_BYTES, Connection

WINDOW = INITIAL_SEGMENTS * SEGMENT_BYTES
ROUND_TRIP = 0.1
RATE = 80e6  # bit/s; 10 MB/s, so a path of 1 MB


def durations(
    messages: Sequence[int], *, rate: float = RATE, round_trip: float = ROUND_TRIP
) -> list[float]:
    """Seconds that each of some messages, sent one after the other, takes to leave."""

    async def main() -> list[float]:
        loop = virtual_loop()
        fluid = FluidNetwork({"link": rate}, loop)
        connection = Connection(fluid, ["link"], round_trip, loop)
        seconds = []
        for nbytes in messages:
            start, gone = loop.time(), loop.create_future()
            connection.send(nbytes, lambda gone=gone: gone.set_result(None))
            await gone
            seconds.append(loop.time() - start)
        return seconds

    return run_virtual(main())


def test_set_up_takes_one_round_trip() -> None:
    assert durations([1000]) == pytest.approx([ROUND_TRIP + 1000 / 10e6])


@pytest.mark.parametrize("windows", [1, 2, 3, 4])
def test_windows_double_every_round_trip(windows: int) -> None:
    whole = WINDOW * (2**windows - 1)
    last = WINDOW * 2 ** (windows - 1)
    [seconds] = durations([whole])
    assert seconds == pytest.approx(ROUND_TRIP + (windows - 1) * ROUND_TRIP + last / 10e6)
    [more] = durations([whole + 1])
    assert more == pytest.approx(ROUND_TRIP + windows * ROUND_TRIP + 1 / 10e6)


def test_a_window_that_fills_the_path_ends_slow_start() -> None:
    # The windows double until one is 1 MB, the path's: the 8th has 2^7 initial ones, 1.85 MB.
    paused = sum(WINDOW * 2**n for n in range(7))
    [seconds] = durations([10**8])
    assert seconds == pytest.approx(ROUND_TRIP + 7 * ROUND_TRIP + (10**8 - paused) / 10e6)


def test_the_window_outlives_the_message_and_idle_times() -> None:
    first, second = durations([10**8, 10**6])
    assert first > second
    assert second == pytest.approx(10**6 / 10e6)


def test_messages_share_a_window() -> None:
    one, two, three = durations([WINDOW // 2, WINDOW // 2, 1000])
    assert one == pytest.approx(ROUND_TRIP + WINDOW / 2 / 10e6)
    assert two == pytest.approx(WINDOW / 2 / 10e6)
    assert three == pytest.approx(ROUND_TRIP - WINDOW / 10e6 + 1000 / 10e6)


def test_a_window_that_was_not_used_up_does_not_grow() -> None:
    async def main() -> float:
        loop = virtual_loop()
        fluid = FluidNetwork({"link": RATE}, loop)
        connection = Connection(fluid, ["link"], ROUND_TRIP, loop)
        for _ in range(20):
            connection.send(WINDOW // 2, lambda: None)
            await asyncio.sleep(1.0)
        start, gone = loop.time(), loop.create_future()
        connection.send(WINDOW + 1, lambda: gone.set_result(None))
        await gone
        return loop.time() - start

    assert run_virtual(main()) == pytest.approx(ROUND_TRIP + 1 / 10e6)


def test_a_slow_or_near_path_is_full_at_once() -> None:
    assert durations([10**6], rate=8e4) == pytest.approx([ROUND_TRIP + 100.0])
    assert durations([10**6], round_trip=0.0) == pytest.approx([0.1])


def test_an_urgent_message_takes_nothing_from_others() -> None:
    async def main() -> dict[str, float]:
        loop = virtual_loop()
        fluid = FluidNetwork({"link": 8e3}, loop)
        ended: dict[str, float] = {}

        def ending(name: str):
            return lambda: ended.update({name: loop.time()})

        big, small, bulky = (Connection(fluid, ["link"], 0.0, loop) for _ in range(3))
        big.send(2000, ending("big"))
        small.send(500, ending("small"), urgent=True)
        await asyncio.sleep(2.0)
        bulky.send(SEGMENT_BYTES + 1, ending("bulky"), urgent=True)
        await asyncio.sleep(10.0)
        return ended

    ended = run_virtual(main())
    assert ended == pytest.approx({"small": 0.5, "big": 2.0, "bulky": 2.0 + 1.449})


def test_an_urgent_message_cannot_pass_a_cut_link() -> None:
    async def main() -> float:
        loop = virtual_loop()
        fluid = FluidNetwork({"link": 0.0}, loop)
        connection = Connection(fluid, ["link"], 0.0, loop)
        gone = loop.create_future()
        connection.send(100, lambda: gone.set_result(loop.time()), urgent=True)
        await asyncio.sleep(5.0)
        fluid.set_capacity("link", 8e2)
        return await gone

    assert run_virtual(main()) == pytest.approx(6.0)


@pytest.mark.parametrize("at", [0.05, 0.15, 0.2005, 0.35])
def test_an_aborted_message_is_never_done(at: float) -> None:
    async def main() -> None:
        loop = virtual_loop()
        fluid = FluidNetwork({"link": RATE}, loop)
        connection = Connection(fluid, ["link"], ROUND_TRIP, loop)
        connection.send(10 * WINDOW, lambda: pytest.fail("it was done"))
        await asyncio.sleep(at)
        connection.abort()
        await asyncio.sleep(10.0)
        flow = fluid.flow(["link"])
        gone = loop.create_future()
        fluid.start(flow, 10**6, lambda: gone.set_result(loop.time()))
        assert await gone == pytest.approx(at + 10.0 + 0.1)

    run_virtual(main())


def ends(counts: Sequence[int], each: int, limit: float) -> list[float]:
    """When transfers end that share a link: of ``each`` bytes for each of their connections."""

    async def main() -> list[float]:
        loop = virtual_loop()
        fluid = FluidNetwork({"link": RATE}, loop)
        found: list[asyncio.Future[float]] = []
        for count in counts:
            connection = Connection(fluid, ["link"], ROUND_TRIP, loop, limit, 0.7, count)
            gone = loop.create_future()
            found.append(gone)
            connection.send(count * each, lambda gone=gone: gone.set_result(loop.time()))
        return [await gone for gone in found]

    return run_virtual(main())


@pytest.mark.parametrize("limit", [float("inf"), RATE / 4, RATE / 20])
@pytest.mark.parametrize("each", [1000, 10 * WINDOW, 10**7])
def test_several_connections_are_as_many_flows(each: int, limit: float) -> None:
    bundle, other = ends([5, 1], each, limit)
    *apart, beside = ends([1] * 6, each, limit)
    assert apart == pytest.approx([bundle] * 5)
    assert other == pytest.approx(beside)
