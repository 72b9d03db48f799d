"""A member's side of the membership protocol, against a scheduler that the test plays."""

import asyncio
import logging

import pytest
from contexts import node_context
from exchange_group import run_virtual, star_policy

from geojax.awareness.link_meter import LinkMeter
from geojax.awareness.views import OUT_AFTER_S
from geojax.compression.dense import dense
from geojax.config import RunConfig, TimeoutsConfig
from geojax.errors import Expelled, SchedulerLost, WaitTimeout
from geojax.hips.cluster import Cluster, NodeSpec
from geojax.hips.control.member import Membership
from geojax.hips.control.messages import packed_policies
from geojax.hips.exchange.contribution import Allowances, ChunkSums
from geojax.hips.exchange.tree import TreeExchange
from geojax.wire.message import Kind, Message
from geojax.wire.transport import Lost, Received

METERS = {False: lambda wire: None, True: lambda wire: LinkMeter(CountingNothing(wire), ["c1"])}
TIMEOUTS = TimeoutsConfig(start=20.0, heartbeat=0.5, dead=5.0, round=60.0, warn=30.0)


class CountingNothing:
    """The wire as a meter sees it."""

    def __init__(self, wire):
        self.stalled, self.sent = wire.stalled, {}


class Wire:
    """The member's transport; the test reads what was sent and puts in what comes."""

    def __init__(self):
        self.sent = []
        self.inbox = asyncio.Queue()
        self.standing = {}

    def stalled(self, peer):
        return self.standing.get(peer, 0.0)

    def send(self, peer, message, priority=0):
        self.sent.append((asyncio.get_running_loop().time(), peer, message))

    def withdraw(self, unwanted):
        return 0  # nothing waits

    async def receive(self):
        return await self.inbox.get()

    def control(self, kind, *, peer="scheduler", epoch=0, policy=None, **fields):
        payload = None if policy is None else packed_policies({0: policy})
        body = {"type": kind, "epoch": epoch, **fields}
        message = Message(Kind.CONTROL, epoch=epoch, body=body, payload=payload)
        self.inbox.put_nowait(Received(peer, message))

    def said(self, kind):
        return [m.body for _, peer, m in self.sent if (m.body or {}).get("type") == kind]

    def start(self, until=5, final=False):
        policy = star_policy(("c1", "c2"))
        self.control("start", policy=policy, until=until, final=final, at=0.0, time=0.0)


class Played:
    """Member c2 of two, with its pump running. ``measures``: it has a meter."""

    def __init__(self, *, measures=False, multipath=None):
        self.wire, self.events = Wire(), []
        config = RunConfig(timeouts=TIMEOUTS)
        cluster = Cluster(tuple(NodeSpec(name, name, "server") for name in ("c1", "c2")))
        context = node_context("c2", self.wire, config=config, events=self.events, cluster=cluster)
        self.engine = TreeExchange(
            "c2", 0, sizes=(1,), transport=self.wire, sums=ChunkSums(dense(), machine=None),
            recorder=context.recorder, allowances=Allowances({}),
        )  # fmt: skip
        self.member = Membership(
            context, engines={0: self.engine}, multipath=multipath,
            meter=METERS[measures](self.wire),
        )  # fmt: skip
        self.pump = asyncio.ensure_future(self.member.pump())

    async def joined(self, **start):
        self.wire.start(**start)
        return await self.member.join(1000)

    def close(self):
        self.member.close()
        self.pump.cancel()


def play(scenario, **options):
    async def main():
        played = Played(**options)
        try:
            return await scenario(played, played.member, played.wire)
        finally:
            played.close()

    return run_virtual(main())


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def test_it_joins_with_the_size_of_its_vector_and_starts_its_engines():
    async def scenario(played, member, wire):
        start = await played.joined()
        assert (start.at, start.time, start.last) == (0.0, 0.0, None)
        assert [body["elements"] for body in wire.said("join")] == [1000]
        assert (played.engine.gate.epoch, played.engine.policy.members) == (0, ("c1", "c2"))

    play(scenario)


def test_it_gives_up_when_the_run_does_not_start():
    async def scenario(played, member, wire):
        with pytest.raises(
            SchedulerLost, match="c2: no start of the run from the scheduler within 25 s"
        ):
            await member.join(1000)

    play(scenario)


def test_it_beats_as_often_as_configured_and_says_what_it_holds():
    async def scenario(played, member, wire):
        await played.joined()
        played.engine.skip_to(3)
        await asyncio.sleep(1.6)
        assert [body["held"] for body in wire.said("heartbeat")] == [-1, 3, 3, 3]

    play(scenario)


def test_a_heartbeat_says_what_came_over_the_links_only_if_that_is_wanted():
    async def scenario(played, member, wire):
        await played.joined()
        for at, follows in ((1.0, False), (1.5, True)):
            offer = Received("c1", Message(Kind.OFFER, group=7), 1_000_000, at, follows)
            wire.inbox.put_nowait(offer)
        wire.standing["c1"] = 0.25
        await asyncio.sleep(0.6)
        told = [[body.get(key) for key in ("links", "sent")] for body in wire.said("heartbeat")]
        wire.standing.clear()
        return told

    assert play(scenario) == [[None, None]] * 2
    links = [["c1", 1_000_000, 0.5], ["c1", 0, 0.25]]
    assert play(scenario, measures=True) == [[[], 0], [links, 0]]


def test_it_sends_the_probes_that_the_scheduler_asks_for_unless_nothing_moves_there():
    wanted = {"type": "probe", "peer": "c1", "bytes": 70_000, "count": 3}

    async def scenario(played, member, wire):
        await played.joined()
        wire.inbox.put_nowait(Received("scheduler", Message(Kind.CONTROL, body=wanted)))
        await asyncio.sleep(0.1)
        wire.standing["c1"] = OUT_AFTER_S
        wire.inbox.put_nowait(Received("scheduler", Message(Kind.CONTROL, body=wanted)))
        await asyncio.sleep(0.1)
        probes = [(peer, m) for _, peer, m in wire.sent if m.kind is Kind.PROBE]
        assert [(peer, m.payload_bytes) for peer, m in probes] == [("c1", 70_000)] * 3

    play(scenario)


def test_probes_go_the_way_that_chunks_go():
    wanted = {"type": "probe", "peer": "c1", "bytes": 70_000, "count": 3}
    multipath = Wire()

    async def scenario(played, member, wire):
        wire.inbox.put_nowait(Received("scheduler", Message(Kind.CONTROL, body=wanted)))
        await asyncio.sleep(0.1)
        assert [m.kind for _, _, m in multipath.sent] == [Kind.PROBE] * 3
        assert not [m for _, _, m in wire.sent if m.kind is Kind.PROBE]

    play(scenario, multipath=multipath)


def test_probes_that_come_do_nothing_else():
    async def scenario(played, member, wire):
        await played.joined()
        wire.inbox.put_nowait(Received("c1", Message(Kind.PROBE, group=7)))
        await asyncio.sleep(0.1)
        assert not played.pump.done()

    play(scenario)


def test_a_silent_scheduler_is_given_up_after_twice_the_timeout():
    async def scenario(played, member, wire):
        await played.joined()
        with pytest.raises(SchedulerLost, match="c2: no answer from the scheduler in 10"):
            await member.failed
        assert 10.0 <= asyncio.get_running_loop().time() <= 11.0

    play(scenario)


def test_a_scheduler_that_answers_is_not_given_up():
    async def scenario(played, member, wire):
        await played.joined()
        for _ in range(10):
            await asyncio.sleep(6.0)
            wire.control("beat", until=5, final=False)
        assert not member.failed.done()

    play(scenario)


def test_a_lost_connection_to_the_scheduler_ends_it_at_once():
    async def scenario(played, member, wire):
        wire.inbox.put_nowait(Lost("scheduler", "connection reset"))
        with pytest.raises(SchedulerLost, match="c2: the scheduler is gone: connection reset"):
            await played.pump

    play(scenario)


@pytest.mark.parametrize("goodbye", [True, False])
def test_a_member_that_is_done_takes_a_goodbye_for_the_end(goodbye):
    """The scheduler left in order while a heartbeat to it was unsent, and its end never came."""

    async def scenario(played, member, wire):
        await played.joined()
        finished = asyncio.ensure_future(member.finish())
        await asyncio.sleep(1)
        wire.inbox.put_nowait(Lost("scheduler", "closed before 1 messages had left", goodbye))
        if goodbye:
            await finished
            return
        with pytest.raises(SchedulerLost, match="closed before 1 messages had left"):
            await played.pump
        finished.cancel()

    play(scenario)


def test_a_goodbye_of_the_scheduler_ends_a_member_that_is_at_work():
    async def scenario(played, member, wire):
        await played.joined()
        wire.inbox.put_nowait(Lost("scheduler", "said goodbye", goodbye=True))
        with pytest.raises(SchedulerLost, match="said goodbye"):
            await played.pump

    play(scenario)


def test_after_the_end_the_scheduler_may_go():
    async def scenario(played, member, wire):
        await played.joined()
        wire.control("end")
        await member.finish()
        wire.inbox.put_nowait(Lost("scheduler", "connection reset"))
        await asyncio.sleep(30)
        assert not played.pump.done()
        assert not member.failed.done()

    play(scenario)


def test_an_expelled_member_says_so():
    async def scenario(played, member, wire):
        await played.joined()
        wire.control("expelled", reason="c2/w0: connection reset", may_return=True)
        with pytest.raises(Expelled, match="run: c2/w0: connection reset") as caught:
            await played.pump
        assert caught.value.may_return

    play(scenario)


def test_a_member_that_asks_to_come_back_is_not_expelled_for_its_life_before():
    async def scenario(played, member, wire):
        wire.control("expelled", reason="it was declared dead", may_return=True)
        await played.joined()
        assert not played.pump.done()
        wire.control("expelled", reason="the run is over", may_return=False)
        with pytest.raises(Expelled, match="the run is over") as caught:
            await played.pump
        assert not caught.value.may_return

    play(scenario)


def test_a_lost_peer_is_told_to_the_scheduler():
    async def scenario(played, member, wire):
        await played.joined()
        wire.inbox.put_nowait(Lost("c1", "timed out"))
        await asyncio.sleep(0)
        assert wire.said("lost") == [{"type": "lost", "peer": "c1", "reason": "timed out"}]
        assert [event["event"] for event in played.events] == ["lost"]

    play(scenario)


@pytest.mark.parametrize(
    ("peer", "kind"), [("c1", "expelled"), ("c1", "end"), ("scheduler", "nonsense")]
)
def test_control_messages_of_others_and_unknown_ones_are_refused(peer, kind, caplog):
    async def scenario(played, member, wire):
        caplog.set_level(logging.WARNING, logger="geojax")
        wire.control(kind, peer=peer, reason="because")
        await asyncio.sleep(1)
        assert not played.pump.done()
        assert f"c2: refused '{kind}' from {peer}" in caplog.text
        (event,) = [event for event in played.events if event["event"] == "refused"]
        assert (event["peer"], event["type"]) == (peer, repr(kind))

    play(scenario)


def test_a_chunk_of_a_group_that_it_is_not_in_is_refused(caplog):
    async def scenario(played, member, wire):
        caplog.set_level(logging.WARNING, logger="geojax")
        wire.inbox.put_nowait(Received("c1", Message(Kind.OFFER, group=7)))
        await asyncio.sleep(1)
        assert "refused OFFER from c1: no exchange of group 7" in caplog.text

    play(scenario)


# ---- grants


def test_a_round_without_a_grant_waits_for_one():
    async def scenario(played, member, wire):
        await played.joined(until=3)
        assert [await member.granted(number) for number in range(3)] == [True] * 3
        waiting = asyncio.ensure_future(member.granted(3))
        wire.control("beat", until=3, final=False)
        await asyncio.sleep(1)
        assert not waiting.done()
        wire.control("beat", until=4, final=False)
        assert await waiting

    play(scenario)


def test_a_final_grant_ends_the_run_after_its_last_round():
    async def scenario(played, member, wire):
        await played.joined(until=3)
        waiting = asyncio.ensure_future(member.granted(3))
        await asyncio.sleep(1)
        wire.control("beat", until=3, final=True)
        assert await waiting is False
        assert await member.granted(2)

    play(scenario)


def test_a_grant_never_shrinks_at_the_member():
    async def scenario(played, member, wire):
        await played.joined(until=9)
        wire.control("beat", until=4, final=False)
        await asyncio.sleep(0.1)
        assert await member.granted(8)

    play(scenario)


def test_it_asks_for_more_once_for_every_round_that_it_holds():
    """And not before it comes near the end of the grant."""

    async def scenario(played, member, wire):
        await played.joined(until=10)
        asked = []
        for number in range(10):
            before = len(wire.said("heartbeat"))
            played.engine.skip_to(number - 1)
            await member.granted(number)
            await member.granted(number)
            asked.append(len(wire.said("heartbeat")) - before)
        assert asked == [0] * 8 + [1, 1]

    play(scenario)


def test_a_wait_for_a_grant_ends_with_an_error():
    async def scenario(played, member, wire):
        await played.joined(until=1)
        with pytest.raises(WaitTimeout, match="no grant of round 1 from the scheduler"):
            await member.granted(1)

    play(scenario)


# ---- digests


def test_every_digest_is_sent_once_with_the_next_heartbeat():
    async def scenario(played, member, wire):
        await played.joined()
        member.report_digest(0, "aa")
        member.report_digest(1, "bb")
        await asyncio.sleep(1.1)
        told = [body["digests"] for body in wire.said("heartbeat") if "digests" in body]
        assert told == [[[0, "aa"], [1, "bb"]]]

    play(scenario)


def test_the_last_digest_is_sent_before_it_says_that_it_is_done():
    async def scenario(played, member, wire):
        await played.joined()
        member.report_digest(4, "cc")
        wire.control("end")
        await member.finish()
        kinds = [(m.body["type"], m.body.get("digests")) for _, _, m in wire.sent][-2:]
        assert kinds == [("heartbeat", [[4, "cc"]]), ("done", None)]

    play(scenario)


# ---- changes of the membership


def test_it_stops_and_reports_and_goes_on():
    async def scenario(played, member, wire):
        await played.joined()
        wire.control("prepare", epoch=1, dead=["c3"])
        await asyncio.sleep(0)
        (report,) = wire.said("report")
        assert (report["epoch"], report["held"]) == (1, {"0": -1})
        assert played.engine.gate.epoch == 1
        fields = {"held": {"0": -1}, "lacking": {}, "state_to": []}
        wire.control("resume", epoch=1, policy=star_policy(("c2",), version=1), **fields)
        await asyncio.sleep(0)
        assert played.engine.policy.version == 1

    play(scenario)


def test_a_resume_of_an_epoch_that_is_over_changes_nothing():
    async def scenario(played, member, wire):
        await played.joined()
        for epoch in (1, 2):
            wire.control("prepare", epoch=epoch, dead=[])
        fields = {"held": {"0": -1}, "lacking": {}, "state_to": []}
        wire.control("resume", epoch=1, policy=star_policy(("c2",), version=1), **fields)
        await asyncio.sleep(0)
        assert played.engine.policy.version == 0
        assert played.engine.gate.epoch == 2

    play(scenario)


# ---- policies by round


def test_it_hears_of_another_policy_before_its_rounds_are_granted():
    async def scenario(played, member, wire):
        await played.joined(until=3)
        wire.control("policy", policy=star_policy(("c1", "c2"), "c2", version=1), first=3)
        wire.control("beat", until=5, final=False)
        assert await member.granted(3)
        versions = [played.engine._policies.of(number).policy.version for number in range(5)]
        assert versions == [0, 0, 0, 1, 1]

    play(scenario)


def test_a_policy_of_an_epoch_that_is_over_changes_nothing():
    async def scenario(played, member, wire):
        await played.joined()
        wire.control("prepare", epoch=1, dead=[])
        wire.control("policy", policy=star_policy(("c1", "c2"), version=7), first=3)
        fields = {"held": {"0": -1}, "lacking": {}, "state_to": []}
        wire.control("resume", epoch=1, policy=star_policy(("c1", "c2"), version=8), **fields)
        await asyncio.sleep(0)
        assert [played.engine._policies.of(number).policy.version for number in (0, 3)] == [8, 8]

    play(scenario)
