from __future__ import annotations

import asyncio
import gc
import sys
import threading
from types import FrameType
from typing import Any

import pytest

from testbed.simulated.loop import NothingLeft, VirtualLoop, run_virtual, virtual_loop


def test_the_clock_jumps_to_the_next_event() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        times = [loop.time()]
        for seconds in (1e6, 0.25, 0.0):
            await asyncio.sleep(seconds)
            times.append(loop.time())
        return times

    assert run_virtual(main()) == [0.0, 1e6, 1e6 + 0.25, 1e6 + 0.25]


def test_equal_times_run_in_order_of_scheduling() -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        order: list[int] = []
        loop.call_at(2.0, order.append, 3)
        loop.call_at(1.0, order.append, 0)
        loop.call_later(1.0, order.append, 1)
        loop.call_at(1.0, order.append, 2)
        loop.call_at(2.0, order.append, 4)
        await asyncio.sleep(2.0)
        return order

    assert run_virtual(main()) == [0, 1, 2, 3, 4]


def test_a_past_time_is_now_and_comes_in_its_turn() -> None:
    async def main() -> tuple[list[str], float]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(5.0)
        order: list[str] = []
        loop.call_soon(order.append, "soon")
        loop.call_at(1.0, order.append, "past")
        loop.call_at(5.0, order.append, "now")
        await asyncio.sleep(0.001)
        return order, loop.time()

    assert run_virtual(main()) == (["soon", "past", "now"], 5.001)


def test_a_cancelled_timer_neither_runs_nor_moves_the_clock() -> None:
    async def main() -> tuple[list[str], float]:
        loop = asyncio.get_running_loop()
        ran: list[str] = []
        loop.call_at(1.0, ran.append, "cancelled").cancel()
        both = [loop.call_at(2.0, ran.append, "second") for _ in range(2)]
        loop.call_at(1.5, both[0].cancel)
        await asyncio.sleep(3.0)
        return ran, loop.time()

    assert run_virtual(main()) == (["second"], 3.0)


def test_many_cancelled_timers_are_cleared_away() -> None:
    async def main() -> tuple[int, list[int]]:
        loop = virtual_loop()
        ran: list[int] = []
        for number in range(5000):
            timer = loop.call_at(10.0 + number, ran.append, number)
            if number % 1000:
                timer.cancel()
        waiting = len(loop._timers)
        await asyncio.sleep(6000.0)
        return waiting, ran

    waiting, ran = run_virtual(main())
    assert waiting < 2500
    assert ran == [0, 1000, 2000, 3000, 4000]


def test_what_is_due_at_one_time_may_cancel_the_rest_of_it() -> None:
    async def main() -> list[str]:
        loop = virtual_loop()
        ran: list[str] = []
        victims: list[Any] = []
        loop.call_at(1.0, lambda: [each.cancel() for each in victims])
        victims.append(loop.call_at(1.0, ran.append, "timer"))
        victims.append(loop.schedule(1.0, ran.append, "event"))
        loop.call_at(1.0, ran.append, "last")
        await asyncio.sleep(2.0)
        for each in victims:
            each.cancel()  # once more, when its time is over
        return ran

    assert run_virtual(main()) == ["last"]


def test_an_error_ends_the_loop_after_all_that_was_due_with_it() -> None:
    ran: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        loop = virtual_loop()
        loop.schedule(1.0, fail)
        loop.call_at(1.0, ran.append, "due with it")
        await asyncio.sleep(5.0)

    with pytest.raises(ZeroDivisionError):
        run_virtual(main())
    assert ran == ["due with it"]


def test_the_end_of_an_instant_comes_after_all_else_at_it() -> None:
    async def main() -> list[tuple[str, float]]:
        loop = virtual_loop()
        order: list[tuple[str, float]] = []

        def note(what: str) -> None:
            order.append((what, loop.time()))

        def ending() -> None:
            note("end")
            loop.call_soon(note, "after the end")

        loop.call_at(1.0, loop.call_at_instant_end, ending)
        loop.call_at(1.0, lambda: loop.call_soon(lambda: loop.call_soon(note, "soon")))
        loop.call_at(1.0, lambda: loop.call_at(1.0, note, "again"))
        await asyncio.sleep(2.0)
        return order

    assert run_virtual(main()) == [
        ("soon", 1.0),
        ("again", 1.0),
        ("end", 1.0),
        ("after the end", 1.0),
    ]


def test_nothing_left_names_the_waiting_tasks() -> None:
    async def wait_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        task = asyncio.create_task(wait_for_ever(), name="c7 pump")
        await asyncio.sleep(2.5)
        await task

    with pytest.raises(NothingLeft, match=r"at 2\.5.* s: .*c7 pump"):
        run_virtual(main())


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: asyncio.to_thread(print),
        lambda: asyncio.open_connection("127.0.0.1", 9),
        lambda: asyncio.start_server(lambda *_: None, "127.0.0.1", 0),
        lambda: asyncio.create_subprocess_exec(sys.executable, "-c", "pass"),
        lambda: asyncio.create_subprocess_shell("true"),
    ],
    ids=["thread", "connection", "server", "subprocess", "shell"],
)
def test_the_real_world_is_refused(attempt) -> None:
    async def main() -> None:
        await attempt()

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="a simulation may not use threads, sockets"):
        run_virtual(main())
    assert threading.active_count() == before


def test_the_loop_refuses_other_threads_and_signals() -> None:
    loop = VirtualLoop()
    try:
        for refused in (loop.call_soon_threadsafe, loop.add_signal_handler, loop.add_reader):
            with pytest.raises(RuntimeError, match="a simulation may not"):
                refused(0, print)
    finally:
        loop.close()


def test_an_error_in_a_callback_ends_the_simulation() -> None:
    def fail() -> None:
        raise ZeroDivisionError("in a callback")

    async def main() -> None:
        asyncio.get_running_loop().call_later(1.0, fail)
        await asyncio.sleep(5.0)

    with pytest.raises(ZeroDivisionError, match="in a callback"):
        run_virtual(main())


def test_run_virtual_cancels_what_is_left_in_a_fixed_order() -> None:
    ended: list[str] = []

    async def wait_for_ever(name: str) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(name)

    async def numbers():
        try:
            yield 1
        finally:
            ended.append("generator")

    async def main() -> str:
        for name in ("b", "c", "a"):
            asyncio.create_task(wait_for_ever(name), name=name)  # noqa: RUF006
        kept.append(numbers())
        await anext(kept[0])
        return "done"

    kept: list = []
    assert run_virtual(main()) == "done"
    assert ended == ["a", "b", "c", "generator"]
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_a_failed_simulation_leaves_nothing_behind_either() -> None:
    ended: list[str] = []

    async def wait_for_ever() -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            ended.append("task")

    async def main() -> None:
        asyncio.create_task(wait_for_ever())  # noqa: RUF006
        await asyncio.sleep(1.0)
        raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        run_virtual(main())
    assert ended == ["task"]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_an_interrupt_at_any_line_comes_out_and_nothing_is_told_of_the_loop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As Ctrl-C: of some 1,500 lines that asyncio and the loop run here, every eleventh."""
    told: list[sys.UnraisableHookArgs] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    async def node() -> None:
        for _ in range(3):
            await asyncio.sleep(1.0)

    async def main() -> None:
        await asyncio.gather(*(asyncio.create_task(node()) for _ in range(2)))

    def interrupted(at: int) -> bool:
        lines = 0

        def trace(frame: FrameType, _event: str, _argument: object) -> Any:
            nonlocal lines
            if frame.f_globals["__name__"].startswith(("asyncio", VirtualLoop.__module__)):
                lines += 1
                if lines == at:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        coroutine = main()
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            run_virtual(coroutine)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
            coroutine.close()
        return False

    tried = [at for at in (*range(1, 60), *range(60, 1400, 11)) if interrupted(at)]
    gc.collect()
    assert len(tried) > 150
    ours = [each for each in told if each.exc_type is not KeyboardInterrupt]  # within a destructor
    assert (ours, caplog.records) == ([], [])


def test_virtual_loop_is_for_simulations_only() -> None:
    async def main() -> None:
        virtual_loop()

    with pytest.raises(RuntimeError, match="run_virtual"):
        asyncio.run(main())


def test_no_wall_time_passes() -> None:
    """A year of sleep; the test's own time limit would end it otherwise."""
    assert run_virtual(asyncio.sleep(3.2e7, "slept")) == "slept"
