"""Plans have a process of their own, which ends with its parent whatever happens to that."""

import asyncio
import os
import select
import subprocess
import sys
import threading
from pathlib import Path

import plans
import pytest

from geojax.config import OverlayConfig
from geojax.errors import ConfigError, GeojaxError
from geojax.machine.machine import RealMachine
from geojax.overlay.policy.planning import Task, propose
from geojax.overlay.view import NetworkView

ROOT = Path(__file__).resolve().parents[2]
CENTERS = ("c1", "c2", "c3")
EDGES = [(a, b) for a in CENTERS for b in CENTERS if a != b]
VIEW = NetworkView(CENTERS, dict.fromkeys(EDGES, 1e8), dict.fromkeys(EDGES, 0.01))

# As `python -m geojax.node` is for the process that it spawns, with a pipe as its standard input.
PARENT = """
import asyncio, sys
from pathlib import Path
import geojax.node, plans
from geojax.machine.machine import RealMachine
sys.modules["__main__"].__spec__ = geojax.node.__spec__
machine = RealMachine()
async def run():
    print(*await machine.plan(plans.whole_process), flush=True)
    await machine.plan(plans.forever, Path(sys.argv[1]))
asyncio.run(run())
"""


def with_machine(use):
    """What ``use(machine)`` comes to, on a machine that is closed after it."""

    async def run():
        machine = RealMachine()
        try:
            return await use(machine)
        finally:
            machine.close()

    return asyncio.run(run())


def test_a_plan_is_that_of_the_same_inputs_here():
    task = Task(VIEW, CENTERS, (7, 5, 3), (15,), 4)
    inputs = (OverlayConfig(name="netstorm"), CENTERS, (), task)
    there = with_machine(lambda machine: machine.plan(propose, *inputs))
    assert there == propose(*inputs)
    assert there.policy.version == 4


def test_plans_come_one_after_another_from_one_process_while_the_loop_goes_on():
    async def use(machine):
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticking = asyncio.create_task(tick())
        asked = [machine.plan(plans.divided, number, 2) for number in range(4)]
        found = await asyncio.gather(*asked, *(machine.plan(os.getpid) for _ in range(2)))
        ticking.cancel()
        return found, ticks

    (*halves, first, second), ticks = with_machine(use)
    assert halves == [0, 0.5, 1, 1.5]
    assert first == second != os.getpid()
    assert ticks > 10


def test_an_urgent_plan_goes_before_those_that_wait():
    async def use(machine):
        order = []

        async def note(number, *, urgent=False):
            order.append(await machine.plan(plans.divided, number, 1, urgent=urgent))

        await asyncio.gather(*(note(number, urgent=number == 3) for number in range(4)))
        return order

    assert with_machine(use) == [0, 3, 1, 2]


def test_what_a_plan_raises_is_raised_to_who_asked_and_the_next_is_made():
    async def use(machine):
        with pytest.raises(ZeroDivisionError) as caught:
            await machine.plan(plans.divided, 1, 0)
        assert "in divided" in caught.value.__notes__[0]
        task = Task(VIEW, (), (), (), 0)
        with pytest.raises(ConfigError) as wrong:
            await machine.plan(propose, OverlayConfig(name="stra"), CENTERS, (), task)
        assert wrong.value.key == "overlay.name"
        with pytest.raises(GeojaxError, match="not this one: 3"):
            await machine.plan(plans.stubborn, 3)
        with pytest.raises(Exception, match="lambda"):
            await machine.plan(plans.a_function)
        return await machine.plan(plans.divided, 1, 2)

    assert with_machine(use) == 0.5


def test_a_process_that_is_killed_is_named_and_replaced():
    async def use(machine):
        with pytest.raises(GeojaxError, match="ended with code -9"):
            await machine.plan(plans.killed)
        return await machine.plan(plans.divided, 1, 2)

    assert with_machine(use) == 0.5


def test_closing_ends_a_plan_that_is_under_way(tmp_path):
    said = tmp_path / "process"

    async def use(machine):
        planning = asyncio.create_task(machine.plan(plans.forever, said))
        while not said.exists():
            await asyncio.sleep(0)
        machine.close()
        with pytest.raises(GeojaxError, match="ended with code -9"):
            await planning
        with pytest.raises(RuntimeError):
            await machine.plan(os.getpid)

    with_machine(use)
    with pytest.raises(ProcessLookupError):
        os.kill(int(said.read_text()), 0)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("plan")]


@pytest.fixture
def parent(tmp_path):
    """A process that has another one plan for ever, and the file where that says its id."""
    path = os.pathsep.join([str(ROOT), str(Path(plans.__file__).parent)])
    said = tmp_path / "process"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, said],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:  # fmt: skip
        yield process, said
        process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="waits for a process that is no child")
def test_it_is_a_light_process_that_ends_with_its_killed_parent(parent):
    process, said = parent
    child, rest = process.stdout.readline().split(" ", 1)
    threads, modules = rest.split("] [")
    assert threads == "['MainThread', 'parent'", "no node's threads"
    loaded = set(modules.strip("]\n").replace("'", "").split(", "))
    assert "geojax.assemble" in loaded, "by importing the parent's main module"
    assert not {"jax", "jaxlib", "flax", "optax"} & loaded
    while not said.exists():  # then it is planning, and nothing but its parent's end stops it
        assert process.poll() is None
    assert said.read_text() == child
    ended = os.pidfd_open(int(child))
    process.kill()
    process.wait()
    assert select.select([ended], [], [], 20)[0], "it lives on"
    os.close(ended)
