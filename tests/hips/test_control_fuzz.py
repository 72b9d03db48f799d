"""Broken and lying members: whatever a field of a control message holds, the others go on.

Everything here is made from the definitions of the messages, so a new one is covered at once.
"""

import asyncio
import contextlib
import logging
import math
import random
from dataclasses import fields, replace

import msgpack
import numpy as np
import pytest
from exchange_group import run_virtual
from simulated_runs import simulated, small_config
from test_independent_members import Played as PlayedScheduler
from test_member import Played as PlayedMember

from geojax.errors import FrameError, Refused
from geojax.hips.cluster import SCHEDULER
from geojax.hips.control.messages import KINDS, pack, packed_policies, read, unpacked_policies
from geojax.overlay.policy.policy import Policy, Tree
from geojax.wire.frame import pack_body
from geojax.wire.message import Kind, Message
from geojax.wire.transport import Received
from testbed.simulated.transport import SimulatedTransport

MISSING = object()
WRONG = (
    MISSING, "text", "", [], [1], [[]], [["c9", 1, 2]], {}, {"a": 1}, {"0": "a"}, {0: 0}, None,
    True, math.nan, math.inf, -math.inf, -1, -2, 0, 0.5, 2**31, 2**63, 2**70, -(2**70), b"bytes",
    "x" * 100_000, [0] * 100_000, [[2**62, 2**22]] * 9,
)  # fmt: skip
MESSAGES = [kind for kinds in KINDS.values() for kind in kinds]
OF_MEMBERS = [kind for kind in MESSAGES if SCHEDULER not in kind.senders]
OF_SCHEDULER = [kind for kind in MESSAGES if SCHEDULER in kind.senders]


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def example(kind):
    """A message of a type as it travels."""
    values = {each.name: each.metadata["form"].example for each in fields(kind)}
    return pack(kind(**values), 0)


def changed(message, key, value):
    """The message with one field of its body, or its payload, changed."""
    if key == "payload":
        return replace(message, payload=None if value is MISSING else value)
    body = {name: held for name, held in message.body.items() if name != key}
    return replace(message, body=body if value is MISSING else {**body, key: value})


def broken(kind):
    """Everything that may be wrong with one field of a message."""
    message = example(kind)
    for key in ("type", *message.body):
        for value in WRONG:
            yield changed(message, key, value)


def believed(message, role):
    """Whether its form alone shows nothing wrong."""
    try:
        read(message, role)
    except Refused:
        return False
    return True


def test_what_is_packed_is_read_again():
    for kind in MESSAGES:
        values = {each.name: each.metadata["form"].example for each in fields(kind)}
        values = {k: None if v == b"" else v for k, v in values.items()}
        if kind.name == "routes":
            continue  # its payload is read by who knows the centers' names
        said = kind(**values)
        assert read(pack(said, 7), kind.senders[0]) == said
        assert pack(said, 7).epoch == 7


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_field_is_checked(kind):
    """No field takes all that is wrong, and no check ends otherwise than by refusing."""
    for each in fields(kind):
        if each.metadata["payload"]:
            continue
        taken = [
            v for v in WRONG if believed(changed(example(kind), each.name, v), kind.senders[0])
        ]
        assert len(taken) < len(WRONG) // 2, (each.name, taken)


# ---- at the scheduler


def to_scheduler(messages, peer="c2", **settings):
    """Sends messages to a scheduler of a run that is going on; returns the events of refusals."""

    async def main():
        played = await PlayedScheduler(**settings).started()
        try:
            for message in messages:
                before = len(played.sent)
                played.inbox.put_nowait(Received(peer, message))
                played.inbox.put_nowait(
                    Received("c1", Message(Kind.CONTROL, body={"type": "heartbeat", "held": 0}))
                )
                await asyncio.sleep(0.01)
                assert not played.run.done(), (message, played.run)
                assert "beat" in [b["type"] for name, b in played.sent[before:] if name == "c1"]
            return [event for event in played.events if event["event"] == "refused"]
        finally:
            played.run.cancel()

    return run_virtual(main())


@pytest.mark.parametrize("kind", OF_MEMBERS)
def test_no_field_of_a_member_s_message_ends_the_scheduler(kind):
    role = "server"
    messages = list(broken(kind))
    refusals = to_scheduler(messages)
    assert len(refusals) >= sum(not believed(message, role) for message in messages)
    assert {event["peer"] for event in refusals} == {"c2"}
    assert all(event["reason"] for event in refusals)


@pytest.mark.parametrize("kind", OF_SCHEDULER)
def test_a_member_does_not_speak_for_the_scheduler(kind):
    (refused,) = to_scheduler([example(kind)])
    assert refused["peer"] == "c2"
    hosts = "server" in kind.senders  # of services, but no member's to the scheduler
    why = "not for scheduler" if hosts else "comes from scheduler, not from a server"
    assert why in refused["reason"]


def test_strangers_and_other_kinds_are_refused():
    heartbeat = Message(Kind.CONTROL, body={"type": "heartbeat", "held": 0})
    assert len(to_scheduler([heartbeat, Message(Kind.OFFER), Message(Kind.CONTROL)], "c9")) == 3


CANNOT_BE = {
    "a round that was not granted": ("heartbeat", {"held": 64}),
    "a digest of a round to come": ("heartbeat", {"held": 3, "digests": [[4, "0" * 16]]}),
    "a link to itself": ("heartbeat", {"held": 3, "links": [["c2", 1, 1.0]]}),
    "bytes in no time": ("heartbeat", {"held": 3, "links": [["c1", 1, 0.0]]}),
    "a link to nobody": ("heartbeat", {"held": 3, "links": [["c9", 1, 1.0]]}),
    "done before the end": ("done", {"held": 3}),
    "lost itself": ("lost", {"peer": "c2", "reason": "why"}),
    "lost nobody": ("lost", {"peer": "c9", "reason": "why"}),
    "an epoch to come": (
        "report", {"epoch": 9, "held": {"0": 3}, "keeps": {"0": True}, "has_state": True}
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CANNOT_BE)
def test_what_cannot_be_is_refused(what):
    name, body = CANNOT_BE[what]
    (refused,) = to_scheduler([Message(Kind.CONTROL, body={"type": name, **body})])
    assert refused["peer"] == "c2"


@pytest.mark.parametrize(
    ("held", "keeps"),
    [({"0": 64}, {"0": True}), ({"1": 3}, {"1": True}), ({"0": 3, "3": 3}, {"0": True}), ({}, {})],
)
def test_a_report_of_what_a_member_cannot_hold_is_refused(held, keeps):
    async def main():
        played = await PlayedScheduler().started()
        played.lose("c1")
        await asyncio.sleep(0.1)
        await played.say("c2", "report", epoch=1, held=held, keeps=keeps, has_state=True)
        assert [e["peer"] for e in played.events if e["event"] == "refused"] == ["c2"]
        assert played.scheduler.epochs.changing
        played.run.cancel()

    run_virtual(main())


# ---- at a member


def to_member(messages, peer):
    async def main():
        played = PlayedMember()
        await played.joined()
        try:
            for message in messages:
                played.wire.inbox.put_nowait(Received(peer, message))
                await asyncio.sleep(0)
                assert not played.pump.done(), (message, played.pump)
            await asyncio.sleep(0.1)
            return [event for event in played.events if event["event"] == "refused"]
        finally:
            played.close()

    return run_virtual(main())


@pytest.mark.parametrize("kind", MESSAGES)
def test_control_messages_of_peers_are_refused(kind):
    messages = [example(kind), *broken(kind)]
    refusals = to_member(messages, "c1")
    assert [event["peer"] for event in refusals] == ["c1"] * len(messages)


@pytest.mark.parametrize("kind", OF_SCHEDULER)
def test_what_is_wrong_in_the_scheduler_s_messages_is_refused_too(kind):
    messages = [m for m in broken(kind) if not believed(m, SCHEDULER)]
    assert len(to_member(messages, SCHEDULER)) == len(messages)


POLICY = Policy(
    1, ("c1", "c2"), (Tree("c1", {"c2": "c1"}, 0.5), Tree("c2", {"c1": "c2"}, 0.5, {"c1": "c2"}))
)
PATHS = [
    ("0",), *(("0", key) for key in (*POLICY.to_dict(), "fixed")), ("0", "nodes", 1),
    ("0", "trees", 1), *(("0", "trees", 1, key) for key in ("root", "up", "share", "down")),
    *(("0", "trees", 1, key, 0) for key in ("up", "down")),
]  # fmt: skip
VALUES = (*WRONG[1:], [0], [7, 7], [-1, -1], [0, 0], [1, 0], ["c1"], ["c1", "c9"], [None, None])


def broken_policies():
    """Payloads of policies of which one part is wrong or missing, or that are no policies."""
    for path in PATHS:
        for value in (MISSING, *VALUES):
            content = {"0": {**POLICY.to_dict(), "fixed": [0]}}
            content["0"]["trees"] = [dict(tree) for tree in content["0"]["trees"]]
            *there, key = path
            parent = content
            for step in there:
                parent = parent[step]
            if value is MISSING:
                del parent[key]
            else:
                parent[key] = value
            try:
                yield np.frombuffer(msgpack.packb(content), np.uint8)
            except (ValueError, OverflowError):  # no message holds it
                continue
    whole = packed_policies({0: POLICY})
    for payload in (whole[:-1], whole[: whole.size // 2], np.append(whole, whole), whole[:0]):
        yield payload
    for byte in (0, 127, 192, 255):
        for at in range(0, whole.size, 7):
            payload = whole.copy()
            payload[at] = byte
            yield payload


POLICIES = [*broken_policies()]


def goes_on(policies):
    """Whether they are policies of member c2 that it can go by."""
    (policy,) = policies.values()
    come = 0
    for tree in policy.trees:
        for name in policy.members:
            at = name
            while at != tree.root:
                at = tree.parent[at]
            come += 1
    return come == len(policy.trees) * len(policy.members)


def test_no_policy_is_read_that_does_not_bring_every_member_s_sums_to_a_root():
    read_ones = []
    for payload in POLICIES:
        with contextlib.suppress(ValueError):
            read_ones.append(unpacked_policies(payload))
    assert len(read_ones) < len(POLICIES) // 3
    assert all(goes_on(policies) for policies in read_ones if policies)
    assert unpacked_policies(packed_policies({0: POLICY})) == {0: POLICY}


@pytest.mark.parametrize("kind", ["policy", "resume"])
@pytest.mark.parametrize("part", [0, pytest.param(None, marks=pytest.mark.nightly)])
def test_no_policy_ends_a_member(kind, part):
    """A part of them in ``make test``; each to a member of its own, as some are good ones."""
    fields = {
        "policy": {"epoch": 0, "first": 5},
        "resume": {"epoch": 0, "held": {"0": 0}, "lacking": {"0": []}, "state_to": []},
    }
    body = {"type": kind, **fields[kind]}
    refused = 0
    for payload in POLICIES[part :: 17 if part is not None else 1]:
        refused += len(to_member([Message(Kind.CONTROL, body=body, payload=payload)], SCHEDULER))
    assert refused > len(POLICIES[part :: 17 if part is not None else 1]) // 2


# ---- whole runs


def travels(value):
    """Whether a frame's body can hold the value."""
    try:
        return value is MISSING or bool(pack_body({"key": value}))
    except FrameError:
        return False


SENT = [value for value in WRONG if travels(value)]


class Liar:
    """A node whose control messages may be broken in one field, or followed by a broken one."""

    def __init__(self, seed, name):
        self.rng, self.name, self.said = random.Random(seed), name, []

    def send(self, transport, send, peer, message, priority):
        if transport.name != self.name or peer != SCHEDULER or self.rng.random() < 0.5:
            send(transport, peer, message, priority)
            return
        joins = message.body["type"] == "join"  # without this one there is no run
        if joins or self.rng.random() < 0.5:
            send(transport, peer, message, priority)
        kind = self.rng.choice(OF_MEMBERS)
        other = example(kind) if self.rng.random() < 0.3 else message
        broken = changed(other, self.rng.choice([*other.body]), self.rng.choice(SENT))
        if joins and broken.body.get("type") == "join":
            return
        self.said.append(broken)
        send(transport, peer, broken, priority)


def lying_run(seed, monkeypatch, liar="c3", **settings):
    liar, send = Liar(seed, liar), SimulatedTransport.send

    def lie(transport, peer, message, priority=0):
        liar.send(transport, send, peer, message, priority)

    with monkeypatch.context() as patch:
        patch.setattr(SimulatedTransport, "send", lie)
        faults = [{"at": 0.4, "kind": "kill", "node": "c4"}] if seed % 2 else []
        config = small_config(
            rounds=20, testbed__faults=faults, wan="full_mesh", wan__centers=4,
            timeouts__dead=2.0, timeouts__round=20.0, **settings
        )  # fmt: skip
        outcome = simulated(config)
    honest = {"c1", "c2"} if faults else {"c1", "c2", "c4"}
    assert honest <= set(outcome.finals), (seed, liar.said)
    assert {outcome.finals[name][0] for name in honest} == {19}, seed
    if "sync__name" not in settings:
        assert len({outcome.finals[name] for name in honest}) == 1, seed
    dead = {node.split("/")[0] for event in outcome.of("dead") for node in event["nodes"]}
    assert dead <= {"c3", "c4"}, seed
    assert outcome.accused <= {liar.name}
    return outcome


RUNS = {
    "synchronous": {},
    "asynchronous": {"sync__name": "mixed_sync"},
    "a worker": {"workers": 2, "liar": "c3/w1"},
    "a local server": {"workers": 2},
    "measured": {"overlay__name": "netstorm", "overlay__awareness": "measured"},
}


@pytest.mark.parametrize("kind", RUNS)
def test_honest_members_beside_a_lying_one_come_to_the_end(kind, monkeypatch):
    outcomes = [lying_run(seed, monkeypatch, **RUNS[kind]) for seed in range(6)]
    assert [event for outcome in outcomes for event in outcome.of("refused")]


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", RUNS)
def test_honest_members_beside_a_lying_one_come_to_the_end_often(kind, monkeypatch):
    for seed in range(1000, 1300):
        lying_run(seed, monkeypatch, **RUNS[kind])


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        ({"held": {"0": 60}}, "reported a round that others had no part in"),
        ({"held": {"0": -1}}, "sent what cannot be true"),
        ({"epoch": 7}, "sent what cannot be true"),
        ({"held": {"0": 10}, "keeps": {"0": False}}, "c1 no longer have it whole"),
        ({"held": {"0": 10}, "keeps": {"0": True}}, "round 10: nothing has come"),
    ],
)
def test_who_lies_in_its_report_is_dead_and_the_others_go_on(lie, why, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, logger="geojax.scheduler")
    send = SimulatedTransport.send

    def lying(self, peer, message, priority=0):
        body = message.body or {}
        if self.name == "c1" and body.get("type") == "report":
            message = replace(message, body={**body, **lie})
        send(self, peer, message, priority)

    monkeypatch.setattr(SimulatedTransport, "send", lying)
    # When c2 dies, c1 and c3 hold round 9.
    faults = [{"at": 0.607, "kind": "kill", "node": "c2"}]
    config = small_config(rounds=80, testbed__faults=faults, timeouts__dead=2.0)
    outcome = simulated(config)
    assert set(outcome.finals) == {"c3"}
    assert outcome.finals["c3"][0] == 79
    assert any(why in record.getMessage() for record in caplog.records if "dead" in record.msg)


@pytest.mark.parametrize("liar", ["c1", "c3"])
def test_who_lies_once_of_a_round_that_it_would_hold_is_named_and_the_others_go_on(
    liar, monkeypatch
):
    send, told = SimulatedTransport.send, []

    def lying(self, peer, message, priority=0):
        body = message.body or {}
        if self.name == liar and body.get("type") == "report" and not told:
            told.append(body)
            held = {"0": body["held"]["0"] + 1}
            message = replace(message, body={**body, "held": held, "keeps": {"0": True}})
        send(self, peer, message, priority)

    monkeypatch.setattr(SimulatedTransport, "send", lying)
    faults = [{"at": 0.607, "kind": "kill", "node": "c2"}]
    config = small_config(rounds=20, testbed__faults=faults, timeouts__dead=2.0)
    outcome = simulated(config)
    assert told[0]["held"] == {"0": 9}
    assert outcome.accused == {liar}
    assert set(outcome.finals.values()) == {outcome.finals["c1"]}
    assert outcome.finals.keys() == {"c1", "c3"}
    assert [event["nodes"] for event in outcome.of("dead")] == [["c2"]]
