"""Steps keep their pace: stretched, never shortened; in parts they keep it as a whole."""

import asyncio
from types import SimpleNamespace

import pytest

from geojax.config import PaceConfig
from geojax.machine import machine
from geojax.machine.machine import OVERTAKEN_AT_MOST, RealMachine
from testbed.simulated.loop import run_virtual
from testbed.simulated.machine import VirtualMachine


class Time:
    """A clock that work and sleep move; stands for asyncio where nothing else happens."""

    def __init__(self):
        self.now = 100.0

    def time(self):
        return self.now

    async def run_in_executor(self, executor, work):
        del executor
        return work()

    async def sleep(self, seconds):
        self.now += seconds

    def takes(self, seconds):
        """Work that lasts so long."""

        def work():
            self.now += seconds
            return seconds

        return work


@pytest.fixture
def time(monkeypatch):
    made = Time()
    fake = SimpleNamespace(get_running_loop=lambda: made, sleep=made.sleep)
    monkeypatch.setattr(machine, "asyncio", fake)
    return made


@pytest.fixture
def real(time):
    made = RealMachine()
    yield made
    made.close()


def done(coroutine):
    """The result of a coroutine that never waits."""
    with pytest.raises(StopIteration) as caught:
        coroutine.send(None)
    return caught.value.value


def test_a_step_is_stretched_to_its_pace(real, time):
    assert done(real.compute(time.takes(0.3), 1.0)) == 0.3
    assert time.now == pytest.approx(101.0)
    assert (real.steps, real.violations) == (1, 0)


def test_a_slower_step_is_a_violation_unless_it_has_no_pace(real, time):
    done(real.compute(time.takes(1.5), 1.0))
    assert time.now == pytest.approx(101.5)
    assert (real.steps, real.violations) == (1, 1)
    done(real.compute(time.takes(1.5), 0.0))
    assert (real.steps, real.violations) == (2, 1)


def test_what_follows_makes_up_for_a_part_that_was_late(real, time):
    """Parts of 0.1, 0.1 and 1 s; the first two take 0.4 s, as calling the devices may."""
    done(real.compute(time.takes(0.4), 0.1, ends=False))
    assert time.now == pytest.approx(100.4)
    done(real.compute(time.takes(0.4), 0.1, follows=True, ends=False))
    assert time.now == pytest.approx(100.8)
    assert (real.steps, real.violations) == (0, 0)
    done(real.compute(time.takes(0.2), 1.0, follows=True))
    assert time.now == pytest.approx(101.2), "the pace of all three"
    assert (real.steps, real.violations) == (1, 0)


def test_what_happens_between_parts_is_made_up_for_too(real, time):
    done(real.compute(time.takes(0.1), 0.5, ends=False))
    time.now += 0.2
    done(real.compute(time.takes(0.1), 0.5, follows=True))
    assert time.now == pytest.approx(101.0)


def test_after_a_wait_nothing_is_left_to_make_up_for(real, time):
    """The part before ended 0.3 s late; it was in time for what came only 0.2 s later."""
    done(real.compute(time.takes(0.4), 0.1, ends=False))
    time.now += 0.2
    done(real.compute(time.takes(0.1), 0.5))
    assert time.now == pytest.approx(101.1)
    assert (real.steps, real.violations) == (1, 0)


def test_a_step_that_is_late_as_a_whole_is_one_violation(real, time):
    for part in range(3):
        late = real.compute(time.takes(0.4), 0.1, follows=part > 0, ends=part == 2)
        done(late)
    assert time.now == pytest.approx(101.2)
    assert (real.steps, real.violations) == (1, 1)
    done(real.compute(time.takes(0.1), 0.2))
    assert (real.steps, real.violations) == (2, 1), "the next step begins anew"


def test_steps_that_are_one_program_keep_their_paces_as_a_whole(real, time):
    for waits, late in ((0.3, 0), (0.9, 3)):  # the last of three steps of 0.4 s waits for the end
        start = time.now
        for step, takes in enumerate((0.5, 0.0, waits)):
            ends = 3 if step == 2 else 0
            done(real.compute(time.takes(takes), 0.4, follows=step > 0, ends=ends))
        assert time.now - start == pytest.approx(max(1.2, 0.8 + waits))
        assert real.violations == late
    assert real.steps == 6


def test_on_virtual_time_every_part_lasts_its_pace():
    async def run():
        made = VirtualMachine(PaceConfig())
        start = made._loop.time()
        ends = []
        for part in range(3):
            await made.compute(lambda: None, 0.25, follows=part > 0, ends=part == 2)
            ends.append(made._loop.time() - start)
        return ends, made.steps, made.violations

    assert run_virtual(run()) == ([0.25, 0.5, 0.75], 1, 0)


def test_on_virtual_time_the_host_of_a_dead_node_ends_nothing():
    async def run():
        made, ended = VirtualMachine(PaceConfig(sum_gbps=1.0)), []
        for at, nbytes in enumerate((125_000_000, 250_000_000)):
            made.after("sum", nbytes, lambda at=at: ended.append(at))
        made._loop.call_at(0.25, made.stop)
        await asyncio.sleep(1.0)
        made.after("sum", 0, lambda: ended.append(2))
        await asyncio.sleep(1.0)
        return ended

    assert run_virtual(run()) == [0]


def test_on_virtual_time_plans_cost_what_the_table_says_one_after_another():
    """They leave the host core alone, and stand still when it does."""

    async def run():
        made = VirtualMachine(PaceConfig(plan_s=0.5, sum_gbps=1.0))
        ends = {}

        async def note(name, awaited):
            ends[name] = (await awaited, made._loop.time())

        made._loop.call_at(0.25, made.freeze, 2.0)
        await asyncio.gather(
            note("first", made.plan(divmod, 7, 2)),
            note("second", made.plan(divmod, 9, 2)),
            note("sum", made.host("sum", 125_000_000, lambda: None)),
        )
        with pytest.raises(ZeroDivisionError):
            await made.plan(divmod, 1, 0)
        return ends

    ends = run_virtual(run())
    assert ends["sum"] == (None, 0.125)
    assert ends["first"] == ((3, 1), 2.5)
    assert ends["second"] == ((4, 1), 3.0)


def test_on_virtual_time_an_urgent_plan_goes_before_those_that_wait():
    async def run():
        made, order = VirtualMachine(PaceConfig(plan_s=0.5)), []

        async def note(name, *, urgent=False):
            await made.plan(divmod, 7, 2, urgent=urgent)
            order.append((name, made._loop.time()))

        plain = [asyncio.ensure_future(note(name)) for name in ("under way", "given up", "waits")]
        await asyncio.sleep(0.1)
        plain[1].cancel()
        await asyncio.gather(plain[0], plain[2], note("urgent", urgent=True))
        return order

    assert run_virtual(run()) == [("under way", 0.5), ("urgent", 1.0), ("waits", 1.5)]


def test_urgent_plans_do_not_keep_another_one_waiting_for_ever():
    async def run():
        made, order = VirtualMachine(PaceConfig(plan_s=0.5)), []

        async def note(name, *, urgent=False):
            await made.plan(divmod, 7, 2, urgent=urgent)
            order.append(name)

        first, plain = note("under way"), note("plain")
        urgent = [note("urgent", urgent=True) for _ in range(3 * OVERTAKEN_AT_MOST)]
        await asyncio.gather(first, plain, *urgent)
        return order

    assert run_virtual(run()).index("plain") == 1 + OVERTAKEN_AT_MOST
