"""Waiting: bounded, named, logged, in a fixed order."""

import asyncio
import logging

import pytest

from geojax.errors import DataError, WaitTimeout
from geojax.machine.waits import first_failure, wait_for
from testbed.simulated.loop import run_virtual


def now():
    return asyncio.get_running_loop().time()


def waiting(what, *, timeout=10.0, warn=100.0, describe=lambda: "chunk 3 from c2"):
    return wait_for(what, describe=describe, timeout=timeout, warn=warn)


async def after(seconds, value=None, error=None):
    await asyncio.sleep(seconds)
    if error is not None:
        raise error
    return value


# ---- wait_for


def test_it_returns_what_it_waited_for():
    async def main():
        assert await waiting(after(9.9, "done")) == "done"
        assert now() == 9.9

    run_virtual(main())


def test_a_timeout_names_what_was_awaited_at_that_moment_and_from_whom():
    async def main():
        missing = ["c2", "c3"]
        asyncio.get_running_loop().call_later(5, missing.pop)
        with pytest.raises(WaitTimeout) as caught:
            await waiting(after(11), describe=lambda: f"offer from {', '.join(missing)}")
        assert now() == 10.0
        assert str(caught.value).startswith("no offer from c2 within 10 s")
        assert "timeouts.*" in str(caught.value)
        assert caught.value.__suppress_context__

    run_virtual(main())


def test_what_is_awaited_is_cancelled_at_the_timeout():
    async def main():
        future = asyncio.get_running_loop().create_future()
        with pytest.raises(WaitTimeout):
            await waiting(future)
        assert future.cancelled()

    run_virtual(main())


def test_long_waits_are_logged_again_and_again(caplog):
    async def main():
        await waiting(after(95), timeout=1000, warn=30)
        await asyncio.sleep(500)

    run_virtual(main())
    said = [r.getMessage() for r in caplog.records if r.name == "geojax.hips"]
    assert said == [f"waiting for chunk 3 from c2 since {s:.1f} s" for s in (30, 60, 90)]


def test_short_waits_are_not(caplog):
    caplog.set_level(logging.DEBUG, logger="geojax.hips")
    run_virtual(waiting(after(1), warn=30))
    assert not [record for record in caplog.records if record.name == "geojax.hips"]


@pytest.mark.parametrize("error", [DataError("no data"), TimeoutError("a socket's own")])
def test_an_error_of_what_is_awaited_comes_through_as_it_is(error):
    async def main():
        with pytest.raises(type(error)) as caught:
            await waiting(after(1, error=error))
        assert caught.value is error
        assert now() == 1.0

    run_virtual(main())


def test_cancelling_the_wait_cancels_what_is_awaited_and_is_no_timeout():
    async def main():
        future = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(waiting(future))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert future.cancelled()

    run_virtual(main())


def test_a_result_that_comes_at_the_very_instant_of_the_timeout_counts():
    async def main():
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_at(10.0, future.set_result, "just in time")
        assert await waiting(future) == "just in time"

    run_virtual(main())


# ---- first_failure


def tasks_of(*coroutines):
    return tuple(asyncio.ensure_future(coroutine) for coroutine in coroutines)


def test_it_waits_for_all():
    async def main():
        await first_failure(tasks_of(after(1), after(3), after(2)))
        assert now() == 3.0
        await first_failure(())

    run_virtual(main())


def test_the_first_failure_in_time_is_raised_and_the_rest_cancelled():
    async def main():
        tasks = tasks_of(after(5), after(2, error=DataError("second")), after(1.5), after(9))
        with pytest.raises(DataError, match="second"):
            await first_failure(tasks)
        assert now() == 2.0
        assert [task.cancelled() for task in tasks] == [True, False, False, True]

    run_virtual(main())


def test_the_rest_is_cancelled_in_the_order_of_the_tasks():
    order = []

    async def note(name):
        try:
            await asyncio.sleep(100)
        finally:
            order.append(name)

    async def main():
        names = [f"task {number}" for number in range(20)]
        tasks = tasks_of(*(note(name) for name in names), after(1, error=DataError("stop")))
        with pytest.raises(DataError):
            await first_failure(tasks)
        assert order == names

    run_virtual(main())


def test_of_two_failures_at_one_instant_the_one_that_was_first_counts():
    async def main():
        one, two = DataError("one"), DataError("two")
        with pytest.raises(DataError, match="one"):
            await first_failure(tasks_of(after(1, error=one), after(1, error=two)))

    run_virtual(main())


def test_a_cancelled_task_is_no_failure():
    async def main():
        tasks = tasks_of(after(5), after(3))
        asyncio.get_running_loop().call_later(1, tasks[0].cancel)
        await first_failure(tasks)
        assert now() == 3.0

    run_virtual(main())


def test_when_it_is_cancelled_itself_all_tasks_are():
    async def main():
        tasks = tasks_of(after(5), after(3))
        whole = asyncio.ensure_future(first_failure(tasks))
        await asyncio.sleep(1)
        whole.cancel()
        with pytest.raises(asyncio.CancelledError):
            await whole
        assert all(task.cancelled() for task in tasks)

    run_virtual(main())


def test_it_waits_for_the_cancelled_to_clean_up():
    done = []

    async def tidy():
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(2)
            done.append(now())

    async def main():
        with pytest.raises(DataError):
            await first_failure(tasks_of(tidy(), after(1, error=DataError("stop"))))
        assert done == [3.0]

    run_virtual(main())
