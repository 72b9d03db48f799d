"""Membership through whole simulated runs: joining, dying, ending, deviating."""

import asyncio
import logging
from dataclasses import replace

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config

from geojax.config import WanConfig
from geojax.errors import Expelled, GeojaxError, ReplicaDeviation, WaitTimeout
from geojax.hips.control.member import Membership
from geojax.hips.control.messages import Heartbeat
from geojax.hips.roles.center_offers import OuterStep
from geojax.hips.roles.local_server import LocalServer
from geojax.hips.roles.scheduler import Scheduler
from geojax.wire.message import Kind
from geojax.wire.transport import Lost
from testbed.simulated.transport import SimulatedTransport


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def test_a_run_ends_when_every_center_holds_the_last_round():
    outcome = simulated(small_config(rounds=6))
    assert set(outcome.finals) == {"c1", "c2", "c3"}
    assert {last for last, _ in outcome.finals.values()} == {5}
    assert len({digest for _, digest in outcome.finals.values()}) == 1
    for center in outcome.finals:
        assert outcome.rounds_of(center) == list(range(6))
    assert [event["rounds"] for event in outcome.of("end")] == [6]


def test_the_final_model_is_the_mean_of_all_workers_gradients_taken_off_round_by_round():
    config = small_config(rounds=4, workers=2)
    outcome = simulated(config)
    generators = [np.random.default_rng((config.seed, worker)) for worker in range(6)]
    numbers = [g.integers(-8, 8, 65_537, endpoint=True).astype(np.float32) for g in generators]
    expected = np.zeros(1000, np.float32)
    for step in range(4):
        expected -= sum(own[step : step + 1000] for own in numbers) / np.float32(6)
    np.testing.assert_array_equal(outcome.final, expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_two_runs_write_the_same_events(workers):
    faults = [kill("c2" if workers == 1 else "c2/w0", 0.15)]
    config = small_config(workers=workers, testbed__faults=faults)
    assert simulated(config).lines() == simulated(config).lines()


# ---- joining


def not_joining(monkeypatch, *names):
    """These nodes start and never say so."""
    join = Membership.join

    async def silent(self, elements, digest=None):
        if self.me in names:
            await asyncio.sleep(1e6)
        return await join(self, elements, digest)

    monkeypatch.setattr(Membership, "join", silent)


def test_who_does_not_join_in_time_is_named(monkeypatch):
    not_joining(monkeypatch, "c2", "c1/w1")
    outcome = simulated(small_config(workers=2, timeouts__start=20.0), fails=True)
    assert isinstance(outcome.error, WaitTimeout)
    assert "join of c1/w1, c2 (2 of 9 nodes) within 20 s" in str(outcome.error)


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("elements", 1001, "join.sizes: expected 1001 elements in all, came 1000"),
        ("layers", [[999, 1]], "join.layers: expected 1000 elements in all, came 999"),
        (
            "sizes",
            [[1000, 1]],
            "join: the models differ in size, or are cut otherwise: c3 has 1000 "
            "in 1 chunks and 1 layers, c1 has 1000 in 4 chunks",
        ),
        ("sizes", "much", "join.sizes: expected a list, came 'much'"),
        ("digest", "much", "join.digest: expected 16 hexadecimal digits, came 'much'"),
    ],
)
def test_who_joins_with_another_model_is_refused_and_named(field, value, why, monkeypatch):
    send = SimulatedTransport.send

    def lying(self, peer, message, priority=0):
        body = message.body or {}
        if self.name == "c3" and body.get("type") == "join":
            message = replace(message, body={**body, field: value})
        send(self, peer, message, priority)

    monkeypatch.setattr(SimulatedTransport, "send", lying)
    outcome = simulated(small_config(timeouts__start=20.0), fails=True)
    assert isinstance(outcome.error, WaitTimeout)
    assert f"join of c3 (1 of 3 nodes); refused that of c3: {why}" in str(outcome.error)
    assert [event["peer"] for event in outcome.of("refused")] == ["c3"]


def test_a_node_that_dies_before_the_start_ends_the_run(monkeypatch):
    not_joining(monkeypatch, "c2")
    receive = SimulatedTransport.receive

    async def receive_and_lose(self):
        item = await receive(self)
        if self.name == "scheduler" and item.peer == "c3":
            self._put(Lost("c3", "connection reset"))
        return item

    monkeypatch.setattr(SimulatedTransport, "receive", receive_and_lose)
    outcome = simulated(small_config(), fails=True)
    assert str(outcome.error) == "c3 died before the run started: connection reset"


def test_an_unforeseen_error_of_the_scheduler_ends_the_run_at_once(monkeypatch):
    def broken(self, name, beat):
        raise ZeroDivisionError("in the scheduler")

    monkeypatch.setattr(Scheduler, "_on_heartbeat", broken)
    with pytest.raises(ZeroDivisionError, match="in the scheduler"):
        simulated(small_config())


# ---- dying


def test_when_all_members_are_dead_the_run_fails_and_says_who_died_last():
    faults = [kill("c1", 0.1), kill("c2", 0.15), kill("c3", 0.2)]
    outcome = simulated(small_config(testbed__faults=faults), fails=True)
    assert str(outcome.error) == "no member is left: c3 died (connection reset)"
    assert outcome.end < 1.0


def test_one_center_alone_goes_on():
    faults = [kill("c1", 0.1), kill("c3", 0.15)]
    outcome = simulated(small_config(rounds=8, testbed__faults=faults))
    assert list(outcome.finals) == ["c2"]
    assert outcome.rounds_of("c2") == list(range(8))


def test_a_member_that_falls_silent_is_dead_within_the_timeout():
    freeze = {"at": 0.2, "kind": "freeze", "node": "c3", "duration": 100.0}
    outcome = simulated(small_config(testbed__faults=[freeze], timeouts__dead=5.0))
    (dead,) = outcome.of("dead")
    assert dead["nodes"] == ["c3"]
    heartbeat, delay = 0.5, 0.05
    assert 5.0 - heartbeat <= dead["t"] - 0.2 <= 5.0 + heartbeat + delay
    assert set(outcome.finals) == {"c1", "c2"}
    assert outcome.end < dead["t"] + 1.0


def test_a_member_that_falls_silent_for_a_short_while_stays():
    freeze = {"at": 0.2, "kind": "freeze", "node": "c3", "duration": 4.0}
    outcome = simulated(small_config(testbed__faults=[freeze], timeouts__dead=5.0))
    assert not outcome.of("dead")
    assert set(outcome.finals) == {"c1", "c2", "c3"}


def test_an_expelled_member_is_told_why_and_comes_back(monkeypatch):
    """c3 wakes up after the others have gone on without it, while they still train."""
    told = []
    pump = Membership.pump

    def note(ended):
        if not ended.cancelled() and isinstance(ended.exception(), Expelled):
            told.append(str(ended.exception()))

    def listen(self):
        failed = pump(self)
        failed.add_done_callback(note)
        return failed

    monkeypatch.setattr(Membership, "pump", listen)
    freeze = {"at": 0.2, "kind": "freeze", "node": "c3", "duration": 7.0}
    config = small_config(rounds=300, testbed__faults=[freeze], timeouts__dead=5.0)
    outcome = simulated(config)
    assert told == ["c3 was expelled from the run: it was declared dead"]
    assert [event["nodes"] for event in outcome.of("back")] == [["c3"]]
    assert set(outcome.finals) == {"c1", "c2", "c3"}
    assert len(set(outcome.finals.values())) == 1
    assert outcome.rounds_of("c1") == list(range(300))


def test_a_member_that_sends_what_cannot_be_true_does_not_come_back(monkeypatch):
    """c3 says again and again that it holds rounds which nobody granted it."""
    heartbeat = Membership._heartbeat

    def lie(self):
        heartbeat(self)
        if self.me == "c3":
            self._say(Heartbeat(10_000))

    monkeypatch.setattr(Membership, "_heartbeat", lie)
    outcome = simulated(small_config(rounds=300, timeouts__dead=5.0))
    assert [event["nodes"] for event in outcome.of("dead")] == [["c3"]]
    assert not outcome.of("back")
    assert set(outcome.finals) == {"c1", "c2"}


def test_workers_go_with_their_local_server_and_a_server_with_its_last_worker():
    outcome = simulated(small_config(workers=2, testbed__faults=[kill("c2", 0.1)]))
    assert [event["nodes"] for event in outcome.of("dead")] == [["c2", "c2/w0", "c2/w1"]]
    faults = [kill("c2/w0", 0.1), kill("c2/w1", 0.2)]
    outcome = simulated(small_config(workers=2, testbed__faults=faults))
    assert [event["nodes"] for event in outcome.of("dead")] == [["c2/w0"], ["c2", "c2/w1"]]
    assert set(outcome.finals) == {"c1", "c3"}


def test_a_killed_scheduler_ends_the_run_at_once():
    config = small_config(rounds=1000, testbed__faults=[kill("scheduler", 0.3)])
    outcome = simulated(config, fails=True)
    assert "scheduler was killed" in str(outcome.error)
    assert outcome.end < 0.5


# ---- a connection between two living members ends


class LostOnce:
    """The n-th chunk from one member to another is lost, and their connection with it."""

    def __init__(self, monkeypatch, source, target, kind, number):
        self.seen, self.dropped = 0, False
        send = SimulatedTransport.send

        def lossy(transport, peer, message, priority=0):
            if (transport.name, peer) == (source, target) and message.kind is kind:
                self.seen += 1
                if self.seen == number:
                    self.dropped = True
                    loop = asyncio.get_running_loop()
                    loop.call_later(0.02, transport._put, Lost(peer, "cut by the test"))
                    return
            send(transport, peer, message, priority)

        monkeypatch.setattr(SimulatedTransport, "send", lossy)


@pytest.mark.parametrize(
    ("source", "target", "kind", "number"),
    [
        ("c2", "c1", Kind.OFFER, 1), ("c2", "c1", Kind.OFFER, 7), ("c1", "c3", Kind.RESULT, 2),
        ("c1", "c3", Kind.RESULT, 8),
    ],
)  # fmt: skip
def test_a_lost_connection_starts_a_new_epoch_and_the_round_completes(
    source, target, kind, number, monkeypatch
):
    whole = simulated(small_config())
    lost = LostOnce(monkeypatch, source, target, kind, number)
    outcome = simulated(small_config(timeouts__dead=2.0))
    assert lost.dropped
    assert [e["peer"] for e in outcome.of("lost")] == [target]
    assert [e["members"] for e in outcome.of("epoch")] == [["c1", "c2", "c3"]]
    assert not outcome.of("dead")
    assert outcome.finals == whole.finals, "nothing is lost or counted twice"
    assert outcome.end < whole.end + 2.0 + 1.0


def test_a_lost_connection_on_the_lan_too(monkeypatch):
    whole = simulated(small_config(workers=2))
    LostOnce(monkeypatch, "c2/w1", "c2", Kind.OFFER, 3)
    outcome = simulated(small_config(workers=2, timeouts__dead=2.0))
    assert len(outcome.of("epoch")) == 1
    assert outcome.finals == whole.finals


# ---- deviating


def deviating(monkeypatch, *centers, after=2):
    """The outer step of these centers goes wrong once."""
    merge = LocalServer._merge

    async def wrong(self, number, bucket):
        moved = await merge(self, number, bucket)
        if self._wan.me in centers and self._wan.held == after:
            moved[centers.index(self._wan.me)] += 1e-3
        return moved

    monkeypatch.setattr(LocalServer, "_merge", wrong)


@pytest.mark.parametrize("center", ["c1", "c2", "c3"])
@pytest.mark.parametrize("every", [1, 10])
def test_a_center_whose_parameters_deviate_is_named(center, every, monkeypatch):
    deviating(monkeypatch, center)
    outcome = simulated(small_config(rounds=200, hash_every=every), fails=True)
    assert isinstance(outcome.error, ReplicaDeviation)
    others = ", ".join(name for name in ("c1", "c2", "c3") if name != center)
    assert f"the parameters of {center} differ from those of {others}" in str(outcome.error)
    compared = 2 if every == 1 else 10
    assert f"after round {compared}" in str(outcome.error)
    assert outcome.end < 1.5, "it is noticed with the next heartbeats"


def test_a_deviation_in_the_last_round_is_noticed_too(monkeypatch):
    deviating(monkeypatch, "c2", after=5)
    outcome = simulated(small_config(rounds=6), fails=True)
    assert "after round 5 the parameters of c2 differ" in str(outcome.error)


def test_without_a_majority_nobody_is_blamed(monkeypatch):
    deviating(monkeypatch, "c1", "c2")
    outcome = simulated(small_config(), fails=True)
    assert isinstance(outcome.error, ReplicaDeviation)
    assert "c1, c2, c3 differ, and no majority" in str(outcome.error)


def test_digests_of_the_dead_are_not_waited_for():
    faults = [kill("c3", 0.1)]
    outcome = simulated(small_config(rounds=60, testbed__faults=faults))
    assert set(outcome.finals) == {"c1", "c2"}


def test_what_the_dead_told_of_a_round_that_ran_again_without_them_is_not_compared():
    """c1 alone holds round 0 when it dies, so the others make it without c1, and c1 fetches it."""
    faults = [kill("c1", 0.38), {"at": 0.93, "kind": "restart", "node": "c1"}]
    config = small_config(
        rounds=4, model__name="mlp", model__hidden=[8], data__name="digits",
        data__train_samples=120, data__test_samples=10, timeouts__dead=0.5,
        timeouts__heartbeat=0.05, testbed__faults=faults,
    )  # fmt: skip
    config.wan = WanConfig(name="wide", generator="uniform", centers=3, rate=1000.0, rtt=200.0)
    outcome = simulated(config)
    assert [epoch["held"] for epoch in outcome.of("epoch")] == [-1, 0]
    assert outcome.rounds_of("c1")[:1] == outcome.rounds_of("c3")[:1] == [0]
    assert set(outcome.finals) == {"c1", "c2", "c3"}
    assert len(set(outcome.finals.values())) == 1


# ---- ending by time


@pytest.mark.parametrize("limit", [0.01, 0.3, 2.0, 7.3])
def test_a_time_limit_is_kept_within_a_round_or_two(limit):
    outcome = simulated(small_config(rounds=10_000, max_time_s=limit))
    starts = {}
    for event in outcome.of("round"):
        starts.setdefault(event["round"], event["offered"] - 0.01)
    longest = max(e["held"] - e["offered"] for e in outcome.of("round")) + 0.01
    assert max(starts.values()) <= limit + 2 * longest
    assert max(event["held"] for event in outcome.of("round")) >= min(limit, 2.0) * 0.8
    lasts = {last for last, _ in outcome.finals.values()}
    assert lasts == {max(starts)}, "all end after the same round"


def test_a_time_limit_costs_no_waiting_for_grants():
    """As many rounds as without a limit, but for the one or two that it cuts off."""
    free = simulated(small_config(rounds=100))
    limited = simulated(small_config(rounds=10_000, max_time_s=2.0))
    in_time = [e for e in free.of("round") if e["node"] == "c1" and e["held"] < 2.0]
    assert len(limited.rounds_of("c1")) >= len(in_time) - 2


def test_an_error_of_a_member_ends_the_run_with_its_text(monkeypatch):
    def broken(self, bucket, results, before):
        raise GeojaxError("the outer step broke")

    monkeypatch.setattr(OuterStep, "apply", broken)
    outcome = simulated(small_config(), fails=True)
    assert str(outcome.error) == "the outer step broke"
