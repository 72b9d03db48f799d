"""The scheduler where centers go at paces of their own, against members that the test plays."""

import asyncio
import logging

import pytest
from contexts import node_context
from exchange_group import run_virtual
from simulated_runs import small_config

from geojax.awareness.views import OracleView
from geojax.config import RunConfig, TimeoutsConfig
from geojax.errors import GeojaxError, WaitTimeout
from geojax.hips.cluster import Cluster, NodeSpec
from geojax.hips.control.member import Membership
from geojax.hips.control.messages import unpacked_policies
from geojax.hips.control.round_numbers import RoundNumbers
from geojax.hips.exchange.base import Gate
from geojax.hips.roles.scheduler import Scheduler
from geojax.overlay.planners.star import star
from geojax.overlay.policy.cutting import packed
from geojax.overlay.policy.planning import Proposal
from geojax.overlay.view import NetworkView
from geojax.telemetry.clock import Clock
from geojax.wire.message import Kind, Message
from geojax.wire.transport import Lost, Received
from testbed.simulated.machine import VirtualMachine

CENTERS = ("c1", "c2", "c3")


class Played:
    """A scheduler among three centers; c3 has two workers. Chunks of 300 elements, 1000 in all."""

    def __init__(self, **settings):
        self.config = small_config(timeouts__dead=1e6, **settings)
        self.sent, self.inbox, self.events = [], asyncio.Queue(), []
        roles = [("scheduler", "c1", "scheduler"), *((c, c, "server") for c in CENTERS)]
        roles += [(f"c3/w{i}", "c3", "worker") for i in (0, 1)]
        self.cluster = Cluster(tuple(NodeSpec(*role) for role in roles))
        self.clock = Clock()
        view = NetworkView(CENTERS, {}, {})

        def propose(task):
            return Proposal(star().plan(task.view, task.members, task.sizes, task.version))

        context = node_context(
            "scheduler", self, config=self.config, cluster=self.cluster, clock=self.clock,
            machine=VirtualMachine(self.config.pace), events=self.events,
        )  # fmt: skip
        self.oracle = context.oracle
        self.scheduler = Scheduler(
            context,
            propose=propose, wan_view=OracleView(lambda: view),
            numbers=RoundNumbers(independent=True),
        )  # fmt: skip
        self.run = asyncio.ensure_future(self.scheduler.run())

    # ---- its transport

    def send(self, peer, message, priority=0):
        policies = unpacked_policies(message.payload)
        self.sent.append((peer, {**message.body, "policies": policies}))

    async def receive(self):
        return await self.inbox.get()

    # ---- the members

    async def say(self, name, kind, **fields):
        """What a member says, and the last that the scheduler says to it after that."""
        before = len(self.sent)
        body = {"type": kind, **fields}
        self.inbox.put_nowait(Received(name, Message(Kind.CONTROL, body=body)))
        await asyncio.sleep(0.1)
        answers = [body for peer, body in self.sent[before:] if peer == name]
        return answers[-1] if answers else None

    async def join(self, name):
        cut = {"sizes": packed([300, 300, 300, 100]), "layers": packed([1000])}
        await self.say(name, "join", elements=1000, **cut)

    async def started(self):
        for name in self.cluster.members:
            await self.join(name)
        await asyncio.sleep(0.5)
        return self

    async def beat(self, name, held):
        """A member holds this round; on the way there it has asked for all that it needed."""
        while True:
            told = [body for peer, body in self.sent if peer == name and "until" in body]
            holds = min(held, told[-1]["until"] - 1)
            answer = await self.say(name, "heartbeat", held=holds)
            if holds == held:
                return answer

    async def at(self, time):
        await asyncio.sleep(time - self.clock())

    async def report(self, held, *, stateless=()):
        """Everybody reports on the epoch that has begun; returns what each is told then."""
        before = len(self.sent)
        for name in self.scheduler.epochs.roster.alive:
            center = name.split("/")[0]
            holds = {"0": held.get(center, -1)} if name in CENTERS else {}
            if center == "c3":
                holds["3"] = held.get("c3", -1)
            await self.say(
                name, "report", epoch=self.scheduler.epochs.number, held=holds,
                keeps=dict.fromkeys(holds, True), has_state=name not in stateless,
            )  # fmt: skip
        await asyncio.sleep(0.1)
        return dict(self.sent[before:])

    def lose(self, *names):
        for name in names:
            self.inbox.put_nowait(Lost(name, "killed"))


def play(scenario, **settings):
    async def main():
        played = await Played(**settings).started()
        try:
            return await scenario(played)
        finally:
            played.run.cancel()

    return run_virtual(main())


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


# ---- grants


def test_every_center_has_a_grant_of_its_own_which_its_workers_share():
    async def scenario(played):
        assert (await played.beat("c1", 99))["until"] == 164
        assert (await played.beat("c2", 9))["until"] == 74
        assert (await played.beat("c3/w0", 19))["until"] == 84
        assert (await played.beat("c3", 18))["until"] == 84
        assert (await played.beat("c2", 9))["until"] == 74
        assert (await played.beat("c1", 999 - 64))["final"]
        assert not (await played.beat("c2", 9))["final"]

    play(scenario, rounds=1000)


def test_a_slow_center_is_not_granted_rounds_by_the_pace_of_a_fast_one():
    async def scenario(played):
        await played.at(10.0)
        slow, fast = await played.beat("c2", 1), await played.beat("c1", 99)
        assert fast["until"] == 100 + 8
        assert slow["until"] == 2 + 8
        await played.at(57.0)
        await played.beat("c2", 9)
        await played.at(60.0)
        assert (await played.beat("c2", 11))["until"] == 12 + 4, "half of the rounds of 5 s left"
        await played.at(100.5)
        fast, slow = await played.beat("c1", 107), await played.beat("c2", 14)
        assert (fast["until"], fast["final"]) == (108, True)
        assert (slow["until"], slow["final"]) == (16, True)

    play(scenario, rounds=10_000, max_time_s=100.0)


def test_a_beat_tells_how_far_everybody_is():
    async def scenario(played):
        assert (await played.beat("c1", 5))["progress"] == 5
        assert (await played.beat("c2", 7))["progress"] == 12
        assert (await played.beat("c1", 6))["progress"] == 13

    play(scenario, rounds=1000)


def test_the_run_ends_when_everybody_has_ended_wherever_that_was():
    async def scenario(played):
        for name, held in (("c1", 19), ("c2", 4)):
            await played.beat(name, held)
        played.oracle.reached = True
        names = ("c1", "c2", "c3", "c3/w0", "c3/w1")
        last = {name: (await played.beat(name, 4))["until"] - 1 for name in names}
        assert last == {"c1": 83, "c2": 68, "c3": 63, "c3/w0": 63, "c3/w1": 63}
        for name in names[:-1]:
            assert (await played.say(name, "done", held=last[name])) is None
        assert (await played.say("c3/w1", "done", held=63))["type"] == "end"
        await played.run
        assert [event["rounds"] for event in played.events if event["event"] == "end"] == [84]

    play(scenario, rounds=1000)


# ---- replicas


def test_parameters_are_not_compared():
    async def scenario(played):
        for name in CENTERS:
            await played.say(
                name, "heartbeat", held=1, digests=[[1, f"{CENTERS.index(name):016x}"]]
            )
        assert not played.run.done()

    play(scenario)


# ---- changes of the membership


def homes(told):
    policy = told["policies"][0]
    return [policy.trees[tree].root for tree in policy.fixed]


def test_after_a_death_nothing_runs_again_and_the_servers_stay():
    async def scenario(played):
        await played.beat("c1", 5)
        played.lose("c2")
        await asyncio.sleep(0.1)
        told = await played.report({"c1": 5, "c3": 2})
        assert {name: told[name]["type"] for name in told} == dict.fromkeys(
            ("c1", "c3", "c3/w0", "c3/w1"), "resume"
        )
        for name in ("c1", "c3"):
            assert told[name]["lacking"].get("0", []) == []
            assert told[name]["state_to"] == []
            assert homes(told[name]) == ["c1"] * 4
        assert (told["c3"]["held"]["3"], told["c3/w0"]["held"]) == (2, {"3": 2})

    play(scenario)


def test_when_the_server_dies_its_chunks_move():
    async def scenario(played):
        played.lose("c1")
        await asyncio.sleep(0.1)
        told = await played.report({"c2": 3, "c3": 4})
        assert homes(told["c2"]) == ["c2"] * 4

    play(scenario)


@pytest.mark.parametrize("noticed", [True, False])
def test_who_comes_back_goes_on_behind_the_highest_round_and_serves_nothing(noticed):
    async def scenario(played):
        await played.at(10.0)
        for name, held in (("c1", 40), ("c2", 30), ("c3", 20)):
            await played.beat(name, held)
        if noticed:
            played.lose("c1")
            await asyncio.sleep(0.1)
            await played.report({"c2": 30, "c3": 20})
        await played.join("c1")
        told = await played.report({"c1": -1, "c2": 30, "c3": 20}, stateless=["c1"])
        assert told["c1"]["type"] == "start"
        assert told["c1"]["held"]["0"] == 40, "c1 itself had been there"
        assert homes(told["c1"]) == homes(told["c2"]) == ["c2"] * 4
        assert told["c1"]["until"] == 43
        assert [told[name]["type"] for name in ("c2", "c3")] == ["resume"] * 2
        # Its pace is that of the rounds which it makes from now on: 2 s each.
        begun = played.clock()
        await played.at(begun + 4.0)
        assert (await played.beat("c1", 42))["until"] == 43 + 8
        await played.at(begun + 84.0)
        assert (await played.beat("c1", 50))["until"] == 51 + 1

    play(scenario, rounds=10_000, max_time_s=100.0)


def test_a_center_of_several_workers_comes_back_whole_with_one_grant():
    async def scenario(played):
        await played.beat("c1", 12)
        played.lose("c3")
        await asyncio.sleep(0.1)
        await played.report({"c1": 12, "c2": 3})
        for name in ("c3", "c3/w0", "c3/w1"):
            await played.join(name)
        told = await played.report({"c1": 12, "c2": 3}, stateless=["c3", "c3/w0", "c3/w1"])
        assert [told[n]["held"] for n in ("c3", "c3/w0")] == [{"0": 12, "3": 12}, {"3": 12}]
        assert [told[n]["until"] for n in ("c3", "c3/w0", "c3/w1")] == [13 + 64] * 3

    play(scenario, rounds=1000)


def test_a_worker_that_comes_back_alone_gets_its_centers_round():
    async def scenario(played):
        await played.beat("c1", 12)
        await played.beat("c3", 4)
        played.lose("c3/w1")
        await asyncio.sleep(0.1)
        await played.report({"c1": 12, "c2": 3, "c3": 4})
        await played.join("c3/w1")
        told = await played.report({"c1": 12, "c2": 3, "c3": 5}, stateless=["c3/w1"])
        assert told["c3/w1"]["held"] == {"3": 5}
        assert told["c3"]["lacking"]["3"] == ["c3/w1"]
        assert told["c3/w1"]["until"] == 5 + 64

    play(scenario, rounds=1000)


def test_when_nobody_with_parameters_is_left_the_run_fails():
    async def scenario(played):
        await played.join("c1")
        played.lose("c2", "c3")
        await asyncio.sleep(0.1)
        await played.report({"c1": -1}, stateless=["c1"])
        await played.run

    with pytest.raises(GeojaxError, match="parameters are lost: c1 is dead"):
        play(scenario)


# ---- a member that is done before the others


class Silent:
    """A transport on which nothing comes but what the test hands to the member."""

    def send(self, peer, message, priority=0): ...


class Engine:
    held, sizes, layers = 9, (), ()

    def __init__(self):
        self.gate = Gate("c1", None, 0)

    def grant(self, until):
        pass


def finished_after(beats):
    """How long a member waits for the end, given (time, progress) of the beats that it gets."""

    async def main():
        member = Membership(
            node_context(
                "c1", Silent(), config=RunConfig(timeouts=TimeoutsConfig(round=10.0, warn=100.0))
            ),
            engines={0: Engine()},
        )
        loop = asyncio.get_running_loop()
        for time, progress in beats:
            body = {"type": "beat", "until": 10, "final": True, **progress}
            message = Message(Kind.CONTROL, body=body)
            loop.call_later(
                time, member._channel.take, Received("scheduler", message), member._handlers
            )
        with pytest.raises(WaitTimeout, match="end of the run"):
            await member.finish()
        return loop.time()

    return run_virtual(main())


def test_a_fast_member_waits_as_long_as_slower_ones_make_progress():
    told = [(time, {"progress": time}) for time in range(1, 35)]
    assert finished_after(told) == 50.0


def test_without_progress_it_waits_no_longer_than_for_a_round():
    assert finished_after([(time, {"progress": 7}) for time in range(-1, 35)]) <= 20.0
    assert finished_after([(time, {}) for time in range(35)]) == 10.0
