"""An offer tells how many local steps it stands for: on the wire, in sums, and to who merges."""

import asyncio
import logging
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from examples import examples
from exchange_group import Group, policy_of, random_pair, run_virtual
from hypothesis import given
from hypothesis import strategies as st
from simulated_runs import kill, simulated, small_config

from geojax.center.outer import PlainSgd
from geojax.compression.dense import dense
from geojax.config import WanConfig
from geojax.hips.exchange.contribution import Contribution, received
from geojax.hips.exchange.served_shard import ServedShard
from geojax.hips.exchange.shard import shard_maker
from geojax.sync.admission import buffer
from geojax.sync.fedbuff import fedbuff
from geojax.telemetry.summary import merged_steps
from geojax.wire.frame import Assembler, frames_of, parse_header
from geojax.wire.message import HEADER_BYTES, Kind, Message
from testbed.simulated.transport import SimulatedTransport

THREE = ("c1", "c2", "c3")
# Seconds of a step: c1 is fast, c3 is slow.
PACES = {"c1": 0.1, "c2": 0.3, "c3": 1.0}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def near(**settings):
    config = small_config(**{"rounds": 4, "pace__centers": PACES, **settings})
    config.wan = WanConfig(name="near", generator="uniform", centers=3, rate=1000.0, rtt=1.0)
    config.model.pace_s = 0.1
    return config


# ---- sums


@examples(15)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 7))
def test_a_sum_stands_for_the_steps_of_all_that_are_in_it_along_any_tree(seed, count):
    names = tuple(f"c{number}" for number in range(1, count + 1))

    async def main():
        told = []
        group = Group(names, (2, 3), seed=seed, options={
            name: {"counts": lambda *args: told.append(args)} for name in names
        })  # fmt: skip
        trees = [random_pair(names, group.rng, 0.5) for _ in range(2)]
        group.start(policy_of(names, *trees))
        taken = {name: group.rng.randrange(1000) for name in names}
        for name in names:
            for chunk, size in enumerate((2, 3)):
                values = np.ones(size, np.float32)
                group[name].offer(0, chunk, Contribution(values, 1.0, 1, steps=taken[name]))
        for name in names:
            held = await asyncio.wait_for(group.whole(name, 0), 1000)
            assert [each.steps for each in held] == [sum(taken.values())] * 2
        ((number, came),) = told  # once, at the root of the first chunk
        return number, came, taken

    number, came, taken = run_virtual(main())
    assert number == 0
    assert sum(came.values()) == sum(taken.values())


def test_who_abstains_stands_for_none():
    message = Message(Kind.OFFER, body={"abstains": True})
    assert received(message, dense(), 3).steps == 0
    with pytest.raises(Exception, match="abstains, but brings values, a weight or steps"):
        received(replace(message, steps=1), dense(), 3)


# ---- on the wire


def test_it_travels_in_the_header_of_every_frame_which_is_no_longer_for_it():
    payload = np.zeros(300_000, np.uint8)
    frames = [*frames_of(Message(Kind.OFFER, steps=2**31, payload=payload))]
    assembler = Assembler()
    for head, part in frames:
        header = parse_header(head[:HEADER_BYTES])
        assert header.steps == 2**31
        assembler.begin(header)[:] = part
        whole = assembler.finish(header, memoryview(head)[:HEADER_BYTES], head[HEADER_BYTES:])
    assert HEADER_BYTES == 80
    assert whole is not None
    assert whole.steps == 2**31


SENT = {  # by run: what members say in their offers, over the LAN and over the WAN
    "fsa": ({}, {1}, {2}),
    "mixed_sync": ({"sync__name": "mixed_sync"}, {1}, {2}),
    "local_steps": ({"sync__name": "local_steps", "sync__local_steps": 3}, {3}, {6}),
    "p3": ({"sync__p3": True, "model__stages": 2}, {1}, {2}),
    "ring": ({"overlay__name": "ring"}, {1}, {2, 4}),
    "hfa": ({"sync__name": "hfa", "sync__local_steps": 3, "sync__lan_rounds": 4}, {3}, {24}),
    "streaming": (
        {"sync__name": "streaming_diloco", "sync__local_steps": 8, "sync__fragments": 2,
         "sync__overlap": 2, "model__stages": 2}, {4}, {8},
    ),
    "fedbuff": (
        {"sync__name": "fedbuff", "sync__buffer": 2, "sync__local_steps": 5}, {5}, {10},
    ),
    "halos": (
        {"sync__name": "halos", "sync__local_steps": 4, "sync__dylu": False, "sync__offers": 5},
        {4}, {20},
    ),
}  # fmt: skip


@pytest.mark.parametrize("run", SENT)
def test_an_offer_says_what_was_trained_for_it(run, monkeypatch):
    settings, lan, wan = SENT[run]
    send, told = SimulatedTransport.send, defaultdict(set)

    def seen(self, peer, message, priority=0):
        if message.kind is Kind.OFFER and message.payload is not None:
            told[message.group > 0].add(message.steps)
        if message.kind is Kind.RESULT and message.group > 0:
            assert message.steps == 0, "parameters stand for none"
        send(self, peer, message, priority)

    monkeypatch.setattr(SimulatedTransport, "send", seen)
    outcome = simulated(near(workers=2, **settings))
    assert told == {True: lan, False: wan}
    assert not outcome.of("refused")


# ---- what servers saw is what members say


def said(outcome, event="steps"):
    """By round of the WAN and node: the steps that it took."""
    found = defaultdict(Counter)
    for each in outcome.of(event):
        found[each["round"]][each["node"]] += each["steps"]
    return found


def of_centers(steps):
    found = Counter()
    for name, count in steps.items():
        found[name.partition("/")[0]] += count
    return found


ESYNC = {"sync__name": "esync"}
ALIGNED = {
    "centers": {},
    "centers, in flight": {"sync__query": "in_flight"},
    "centers, to a site of its own": {},
    "workers": {"sync__level": "workers", "workers": 2},
    "both": {"sync__level": "both", "workers": 2},
}  # fmt: skip


@pytest.mark.parametrize("level", ALIGNED)
def test_the_server_has_seen_the_steps_that_members_say_they_took(level):
    config = near(**ESYNC, **ALIGNED[level])
    if "workers" in ALIGNED[level]:
        config.pace.profile = {"kind": "two_groups", "h": 5}
    if "site" in level:
        config.wan.server_center, config.wan.external = "external", {"rate": 1000, "rtt": 1}
    outcome = simulated(config)
    members, seen = said(outcome), {e["round"]: e["steps"] for e in outcome.of("merged")}
    assert sorted(seen) == [0, 1, 2, 3]
    assert {number: of_centers(members[number]) for number in seen} == seen
    assert len({*seen[3].values()}) > 1, "not all take equally many"
    assert merged_steps(outcome.events) == sum(sum(each.values()) for each in members.values())
    within = defaultdict(Counter)
    for event in outcome.of("lan_merged"):
        within[event["round"]].update(event["steps"])
    assert within == (members if "workers" in ALIGNED[level] else {})


def test_along_a_chain_each_child_answers_for_all_below_it():
    outcome = simulated(near(**ESYNC, overlay__name="ring"))
    for event in outcome.of("merged"):
        steps = said(outcome)[event["round"]]
        assert sum(event["steps"].values()) == sum(steps.values())
        assert event["node"] in event["steps"]
        assert len(event["steps"]) == 2


@pytest.mark.parametrize("dead", ["c2", "c3"])
def test_a_round_that_runs_again_counts_once_and_only_who_is_in_it(dead):
    outcome = simulated(near(
        **ESYNC, rounds=12, timeouts__dead=0.5, timeouts__heartbeat=0.1,
        testbed__faults=[kill(dead, 0.35)],
    ))  # fmt: skip
    members = said(outcome)
    last = {event["round"]: event["steps"] for event in outcome.of("merged")}
    assert sorted(last) == [*range(12)]
    for number, steps in last.items():
        assert steps == {name: members[number][name] for name in steps}
        assert {*steps} >= {*THREE} - {dead}
    assert any(dead in steps for steps in last.values())
    assert not all(dead in steps for steps in last.values())
    assert merged_steps(outcome.events) == sum(sum(steps.values()) for steps in last.values())


def test_where_the_plan_says_it_nothing_is_recorded():
    for settings in ({}, {"sync__name": "fedbuff"}, {"sync__name": "hfa", "workers": 2}):
        outcome = simulated(near(**settings))
        assert not outcome.of("merged")
        assert not any("steps" in event for event in outcome.of("applied"))
        assert merged_steps(outcome.events) is None


def test_a_center_of_halos_tells_the_steps_of_the_pushes_that_its_offer_has():
    """Pushes that came between an offer and its answer are in none."""
    outcome = simulated(near(
        workers=2, rounds=5, sync__name="halos", sync__offers=3, sync__local_steps=4,
    ))  # fmt: skip
    per = {}  # steps of each worker between two exchanges, from what it counted itself
    for name, report in outcome.reports.items():
        if "/w" in name:
            pushes = sum(e["center"] == name for e in outcome.of("lan_applied"))
            per[name] = round(report["steps"] / pushes)
    assert {*per.values()} > {1}
    expected = defaultdict(list)
    for center in THREE:
        since = []
        for event in (e for e in outcome.of("lan_applied") if e["node"] == center):
            if event["center"] == center:
                since = []
            else:
                since.append(per[event["center"]])
                if len(since) == 3:
                    expected[center].append(sum(since))
    seen = defaultdict(list)
    for event in outcome.of("applied"):
        if event["chunk"] == 0:
            seen[event["center"]].append(event["steps"])
    assert {center: steps[:5] for center, steps in expected.items()} == seen
    taken = sum(report["steps"] for name, report in outcome.reports.items() if "/w" in name)
    assert 0 < merged_steps(outcome.events) < taken


# ---- a merge rule sees it


def test_a_merge_rule_sees_how_many_steps_each_offer_stands_for():
    """The mean of what one step has moved: two offers of unequal length count the same."""
    seen = []

    def by_step(offers, now, outer, state):
        del now
        seen.append([offer.steps for offer in offers])
        mean = sum(offer.value / np.float32(offer.steps) for offer in offers) / len(offers)
        return outer(mean), state

    base = fedbuff(steps=1, size=2, s="constant")
    algorithm = base._replace(merge=base.merge._replace(apply=by_step))
    make = shard_maker(algorithm, [(0, 2)], 2, lambda spec: PlainSgd(1.0, spec))
    served = ServedShard(make([0], [np.zeros(2, np.float32)], 0), {}, buffer(2, "sync.buffer"))
    for name, steps in (("c1", 4), ("c2", 1)):
        moved = np.full(2, steps, np.float32)
        served.collect(name, 0, 0, Contribution(moved, 1.0, 1, steps=steps), 0, 0.0)
    served.apply(served.admit((), 0.0), dense(), 2)
    assert seen == [[4, 1]]
    assert served.steps == 5
    np.testing.assert_array_equal(served.shard.vector, [1.0, 1.0])


def test_pushes_in_a_buffer_keep_it_in_a_cut():
    make = shard_maker(
        fedbuff(steps=1, size=2, s="constant"), [(0, 2)], 2,
        lambda spec: PlainSgd(1.0, spec),
    )  # fmt: skip

    def fresh():
        return ServedShard(make([0], [np.zeros(2, np.float32)], 0), {}, buffer(2, "sync.buffer"))

    served, again = fresh(), fresh()
    served.steps = 7
    served.collect("c1", 0, 0, Contribution(np.ones(2, np.float32), 1.0, 1, steps=4), 0, 0.0)
    served.answerable((), 0.0)
    again.load(served.state(), 1.0)
    assert again.steps == 7
    again.collect("c2", 0, 0, Contribution(np.ones(2, np.float32), 1.0, 1, steps=2), 0, 1.0)
    batch = again.admit((), 1.0)
    assert [push.steps for push in batch] == [4, 2]
