"""Models put together from shards: every grid point once, with the values that it had."""

import asyncio
import logging

import numpy as np
import pytest
from server_group import ServerGroup, run_virtual, stars

from geojax.config import TimeoutsConfig
from geojax.errors import WaitTimeout
from geojax.hips.storage.snapshots import SharedPieces, Snapshots, StoredPieces
from geojax.hollow import hollow
from geojax.telemetry.recorder import Recorder

SIZES = (1, 1, 1)
CENTERS = ("c1", "c2")
NOTHING = np.zeros(0, np.float32)


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


class Aside:
    async def aside(self, work):
        return work()


def figures(vector):
    return {"values": [float(value) for value in vector]}


def clock():
    return asyncio.get_running_loop().time()


class Watched:
    """A group whose servers keep snapshots every second; every push takes 1 off each element."""

    def __init__(self, folder, stored, policy, *, evaluator=figures, servers=(), **options):
        self.group = ServerGroup(CENTERS, SIZES, servers=servers, slowest=0.0, **options)
        self.folder, self.stored, self.shared = folder, stored, SharedPieces()
        self.evaluator, self.events, self.snapshots = evaluator, [], {}
        for name in (*CENTERS, *servers):
            self.watch(name)
        self.group.begin(policy)

    def watch(self, name):
        pieces = StoredPieces(self.folder, name) if self.stored else self.shared
        self.snapshots[name] = Snapshots(
            1.0, self.evaluator, chunks=len(SIZES), pieces=pieces, machine=Aside(), clock=clock,
            recorder=Recorder(name, self.events.append), folder=self.folder,
            timeouts=TimeoutsConfig(round=5.0, warn=1.0),
        )  # fmt: skip
        self.group.shard_servers[name].watcher = self.snapshots[name]

    async def push(self, center, at):
        """A whole push at an instant."""
        await asyncio.sleep(at - clock())
        number = self.group[center].held + 1
        self.group.offer(center, number, np.ones(3, np.float32))
        await self.group[center].whole(number)
        await self.snapshots[center].merged(0.0, 0, NOTHING, speaks=False)

    async def finish(self, at, speaks="c1"):
        await asyncio.sleep(at - clock())
        living = [name for name in self.snapshots if name not in self.group.dead]
        await asyncio.gather(
            *(self.snapshots[n].finish(0.0, 0, NOTHING, speaks=n == speaks) for n in living)
        )

    def told(self):
        return [
            (event["t"], event["round"], [-value for value in event["values"]])
            for event in sorted(self.events, key=lambda event: event["t"])
        ]


POLICIES = {
    "one server": (stars(CENTERS, "c2"), ()),
    "two of the centers": (stars(CENTERS, "c1", "c2", placement=(0, 1, 0)), ()),
    "servers apart": (stars(CENTERS, "g1", "g2", placement=(0, 1, 1)), ("g1", "g2")),
}
each_policy = pytest.mark.parametrize(("policy", "servers"), POLICIES.values(), ids=POLICIES)
both_ways = pytest.mark.parametrize("stored", [False, True], ids=["at once", "after the run"])


@each_policy
@both_ways
def test_a_grid_point_gets_the_values_that_all_shards_had_then(policy, servers, stored, tmp_path):
    async def main():
        watched = Watched(tmp_path, stored, policy, servers=servers)
        await watched.push("c1", 0.5)
        await watched.push("c2", 2.5)
        await watched.push("c1", 2.7)
        await watched.push("c1", 3.0)  # at the grid point: it is in, as in Snapshots
        await watched.push("c2", 5.5)
        await watched.finish(9.5)
        assert watched.told() == [
            (0.0, -1, [0, 0, 0]), (1.0, 0, [1, 1, 1]), (2.0, 0, [1, 1, 1]), (3.0, 2, [4, 4, 4]),
            (4.0, 2, [4, 4, 4]), (5.0, 2, [4, 4, 4]), (5.5, 2, [5, 5, 5]),
        ]  # fmt: skip
        assert np.load(tmp_path / "final.npy").tolist() == [-5, -5, -5]
        assert [path.name for path in tmp_path.glob("*.part") if "final" in path.name] == []

    run_virtual(main())


def test_in_simulation_models_are_evaluated_while_the_run_goes_on(tmp_path):
    async def main():
        watched = Watched(tmp_path, False, POLICIES["two of the centers"][0])
        await watched.push("c1", 0.5)
        await watched.push("c2", 2.5)
        assert [at for at, _, _ in watched.told()] == [0.0, 1.0, 2.0]

    run_virtual(main())


@both_ways
def test_one_model_is_evaluated_once(stored, tmp_path):
    calls = []

    def counting(vector):
        calls.append(vector)
        return figures(vector)

    async def main():
        watched = Watched(tmp_path, stored, stars(CENTERS, "c1"), evaluator=counting)
        await watched.push("c1", 0.5)
        await watched.push("c1", 8.5)
        await watched.finish(9.0)
        assert [at for at, _, _ in watched.told()] == [*map(float, range(9)), 8.5]
        assert len(calls) == 3

    run_virtual(main())


@both_ways
def test_the_successor_of_a_dead_server_fills_what_that_did_not_come_to(stored, tmp_path):
    async def main():
        policy = stars(CENTERS, "c2", "c1", placement=(0, 1, 0))
        watched = Watched(tmp_path, stored, policy)
        await watched.push("c2", 0.5)
        await watched.push("c1", 1.5)
        await watched.push("c2", 2.5)  # c1 has not pulled this
        await asyncio.sleep(1)
        watched.group.kill("c2")
        watched.group.change(spread=0.1)
        await watched.push("c1", 6.5)
        await watched.finish(8.5)
        told = watched.told()
        assert [at for at, _, _ in told] == [0, 1, 2, 3, 4, 5, 6, 6.5]
        assert [values for at, _, values in told if at in (0, 1, 2)] == [
            [0, 0, 0], [1, 1, 1], [2, 2, 2]
        ]  # fmt: skip
        for at, _, values in told[3:-1]:
            assert values == [2, 3, 2], f"at {at}: c2 died with its last update"
        assert told[-1][2] == [3, 4, 3]

    run_virtual(main())


def test_parts_that_never_come_are_named(tmp_path):
    async def main():
        watched = Watched(tmp_path, True, stars(CENTERS, "c1", "c2", placement=(0, 1, 1)))
        await watched.push("c1", 0.5)
        with pytest.raises(WaitTimeout, match=r"no chunks \[1, 2\] of the last model within 5 s"):
            await watched.snapshots["c1"].finish(0.0, 0, NOTHING, speaks=True)

    run_virtual(main())


@both_ways
def test_without_an_evaluator_only_the_last_model_is_written(stored, tmp_path):
    async def main():
        watched = Watched(tmp_path, stored, stars(CENTERS, "c1"), evaluator=None)
        await watched.push("c2", 3.5)
        await watched.finish(4.5)
        assert watched.events == []
        assert [path.name for path in tmp_path.iterdir()] == ["final.npy"]

    run_virtual(main())


def test_a_model_of_sizes_only_leaves_nothing(tmp_path):
    async def main():
        watched = Watched(tmp_path, False, stars(CENTERS, "c1"), evaluator=None, start=hollow(3))
        await watched.finish(1.0)
        assert list(tmp_path.iterdir()) == []

    run_virtual(main())


def test_a_run_that_continues_leaves_the_points_before_alone(tmp_path):
    async def main():
        group = ServerGroup(("c1",), SIZES, slowest=0.0)
        events = []
        snapshots = Snapshots(
            1.0, figures, chunks=3, pieces=SharedPieces(), machine=Aside(), folder=tmp_path,
            clock=lambda: clock() + 10.5, recorder=Recorder("c1", events.append),
            timeouts=TimeoutsConfig(), since=10.5,
        )  # fmt: skip
        group.shard_servers["c1"].watcher = snapshots
        group.begin(stars(("c1",), "c1"))
        await asyncio.sleep(2)
        group.offer("c1", 0, np.ones(3, np.float32))
        await snapshots.merged(0.0, 0, NOTHING, speaks=False)
        assert [event["t"] for event in events] == [11.0, 12.0]

    run_virtual(main())
