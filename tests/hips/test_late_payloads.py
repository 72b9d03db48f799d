"""Late parts of offers: added when they are there, once, in a fixed order, whoever dies."""

import asyncio
import logging
import random
from dataclasses import replace

import numpy as np
import pytest
from examples import examples
from exchange_group import Group, forged, policy_of, random_tree, run_virtual, star_policy
from hypothesis import given
from hypothesis import strategies as st

from geojax.center.spec import VectorSpec
from geojax.compression.codec import SplitPayload
from geojax.compression.dense import dense
from geojax.compression.dgt import dgt
from geojax.hips.exchange.contribution import Contribution, contribution_of
from geojax.overlay.policy.policy import Tree
from geojax.wire.message import Kind

PARTS = 4  # of an offer: the important one, a reliable late one, and two datagrams
THREE = ("c1", "c2", "c3")


class Ledger:
    """Every part of every offer is a vector that is 1 at a place of its own; so sums count them."""

    def __init__(self, members, rounds, *, datagrams):
        self.members, self.rounds, self._datagrams = tuple(members), rounds, datagrams
        self.size = len(members) * rounds * PARTS

    def place(self, name, number, part):
        return (self.members.index(name) * self.rounds + number) * PARTS + part

    def offer(self, name, number):
        now, late, *pieces = (self._one(name, number, part) for part in range(PARTS))
        if self._datagrams:
            return Contribution(now, 1.0, 1, None, (late, *pieces))
        return Contribution(now, 1.0, 1, late)

    def _one(self, name, number, part):
        vector = np.zeros(self.size, np.float32)
        if number < self.rounds:  # later rounds only give parts that are still under way their time
            vector[self.place(name, number, part)] = 1
        return vector

    @property
    def parts(self):
        return range(PARTS) if self._datagrams else range(2)


async def take_part(group, ledger, name, rounds, pause):
    for number in range(rounds):
        if number < ledger.rounds:
            await asyncio.sleep(group.rng.uniform(0, pause))
        else:
            await asyncio.sleep(2 * pause + 5)  # all that is under way arrives
        for chunk in range(len(group.sizes)):
            group[name].offer(number, chunk, ledger.offer(name, number))
        await group.whole(name, number)


def counted(group, name, rounds, chunk):
    """(rounds, places): how often every part is in each merged chunk."""
    held = [group.results[name][number][chunk] for number in range(rounds)]
    return np.stack([c.payload.view(np.float32) for c in held])


@given(
    count=st.integers(1, 5), trees=st.integers(1, 2), datagrams=st.booleans(),
    slowest=st.sampled_from([0.3, 3.0]), work=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**32),
)  # fmt: skip
def test_every_part_counts_once_in_its_round_or_later(count, trees, datagrams, slowest, work, seed):
    members, rounds, chunks = tuple(f"c{n}" for n in range(1, count + 1)), 4, 2
    ledger = Ledger(members, rounds, datagrams=datagrams)
    rng = random.Random(seed)

    async def main():
        group = Group(members, (ledger.size,) * chunks, seed=seed, slowest=slowest, work=work)
        if datagrams:
            group.network.copies = lambda message: rng.choice([1, 1, 2])
        group.start(policy_of(members, *(random_tree(members, rng) for _ in range(trees))))
        await asyncio.gather(
            *(take_part(group, ledger, name, rounds + 1, slowest) for name in members)
        )
        return group

    group = run_virtual(main())
    for chunk in range(chunks):
        found = counted(group, members[0], rounds + 1, chunk)
        for name in members:
            np.testing.assert_array_equal(counted(group, name, rounds + 1, chunk), found)
            for number in range(rounds):
                for part in ledger.parts:
                    times = found[:, ledger.place(name, number, part)]
                    if part == 0:
                        assert times.tolist() == [float(r == number) for r in range(rounds + 1)]
                    elif datagrams and times.sum() == 0:
                        assert slowest > 1, "only a datagram that is rounds late is given up"
                    else:
                        assert times.sum() == 1
                        assert not times[:number].any()
    assert all(c.weight == c.contributors == count for c in group.results[members[0]][rounds])


def test_late_parts_of_that_test_are_really_late_at_times():
    members, rounds = THREE, 6
    ledger = Ledger(members, rounds, datagrams=False)

    async def main():
        group = Group(members, (ledger.size,), seed=4, slowest=2.0)
        group.start(star_policy(members))
        await asyncio.gather(*(take_part(group, ledger, name, rounds + 1, 0.5) for name in members))
        return counted(group, "c1", rounds + 1, 0)

    found = run_virtual(main())
    delays = [
        int(found[:, ledger.place(name, number, 1)].argmax()) - number
        for name in ("c2", "c3")
        for number in range(rounds)
    ]
    assert set(delays) >= {0, 1}
    own = [found[number, ledger.place("c1", number, 1)] for number in range(rounds)]
    assert own == [1.0] * rounds, "the root's own late parts cross no network"


def lone_group(members=THREE, **options):
    group = Group(members, (1,), slowest=0.01, **options)
    group.start(star_policy(members))
    return group


def late(number, value, epoch=0):
    made = forged(Kind.LATE, number=number, values=[value], epoch=epoch)
    return replace(made, weight=0.0, contributors=0)


async def offer_and_hold(group, number, values):
    for name, value in values.items():
        group.offer(name, number, [[value]])
    await asyncio.gather(*(group.whole(name, number) for name in values))
    return float(group.values(next(iter(values)), number)[0])


def test_order_is_important_ones_first_then_members_then_rounds():
    async def main():
        group = lone_group()
        group["c1"].handle("c3", late(0, 1.0))
        assert await offer_and_hold(group, 0, {"c1": 0.0, "c2": 0.0, "c3": 0.0}) == 1.0
        group["c1"].handle("c3", late(0, 50.0))  # a second time: it is counted already
        for name, number, value in (
            ("c3", 2, 4.0),
            ("c3", 1, -1e8),
            ("c2", 2, 1.0),
            ("c2", 0, 1.0),
        ):
            group["c1"].handle(name, late(number, value))
        await offer_and_hold(group, 1, {"c1": 0.0, "c2": 1e8, "c3": 0.0})
        return float(group.values("c1", 1)[0]), await offer_and_hold(
            group, 2, dict.fromkeys(THREE, 0.0)
        )

    # In float32, 1e8 + 1 = 1e8: so (((0 + 1e8) + 0) + 1) - 1e8 = 0, and any other order gives 1.
    # What is of round 2 waits for that.
    assert run_virtual(main()) == (0.0, 5.0)


DATAGRAMS = dense()._replace(splits=True, datagrams=lambda elements: 2)
CHAIN = Tree("c1", {"c2": "c1", "c3": "c2"})  # c2 has a child, so it sends sums
LIES = {
    "of a stranger": ("stranger", {}, "no child without children"),
    "of who is no child": ("c3", {}, "no child without children"),
    "of who sends sums": ("c2", {}, "no child without children"),
    "of a part that no offer has": ("c4", {"body": {"part": 2}}, "no offer of chunk 0 has part 2"),
    "of a round that nobody can offer to": ("c4", {"round": 2}, "no offer of that round"),
    "of the last round there is": ("c4", {"round": 2**31 - 1}, "no offer of that round"),
    "of a chunk that is not": ("c4", {"chunk": 1}, "no such chunk"),
}


@pytest.mark.parametrize(("peer", "fields", "why"), LIES.values(), ids=LIES)
def test_a_late_part_that_nobody_may_send_is_refused_by_name(peer, fields, why):
    """Round 0 is under way at c1, so its child may be at round 1."""

    async def main():
        group = Group((*THREE, "c4"), (1,), slowest=0.01, codec=DATAGRAMS)
        group.start(policy_of(group.members, Tree("c1", {**CHAIN.parent, "c4": "c1"})))
        group["c1"].handle("c4", late(1, 10.0))  # this one may come
        group["c1"].handle(peer, replace(late(0, 99.0), **fields))
        refused = [event for event in group.events if event["event"] == "refused"]
        for number in range(2):
            value = await offer_and_hold(group, number, dict.fromkeys(group.members, 1.0))
        return refused, value

    (refused, value) = run_virtual(main())
    assert [(event["node"], event["peer"]) for event in refused] == [("c1", peer)]
    assert why in refused[0]["why"]
    assert value == 14.0


def test_a_part_that_no_datagram_holds_is_refused():
    async def main():
        size = 20_000
        group = Group(THREE, (size,), slowest=0.01, codec=DATAGRAMS)
        group.start(star_policy(THREE))
        values = np.ones(size, np.float32)
        for index in (0, -1):
            body = None if index < 0 else {"part": index}
            group["c1"].handle("c2", replace(late(0, 0.0), payload=values, body=body))
        return [event["why"] for event in group.events if event["event"] == "refused"]

    assert run_virtual(main()) == ["no datagram has 80000 bytes"]


def test_a_reliable_part_that_comes_again_long_after_counts_no_second_time():
    async def main():
        group = lone_group()
        values = dict.fromkeys(THREE, 0.0)
        group["c1"].handle("c3", late(0, 1.0))
        found = [await offer_and_hold(group, 0, values)]
        for number in range(1, 40):
            group["c1"].handle("c3", late(0, 1.0))
            found.append(await offer_and_hold(group, number, values))
        return found

    assert run_virtual(main()) == [1.0] + [0.0] * 39


def test_parts_of_a_policy_that_is_over_are_known_by_its_children():
    """A child's late part may come when another policy holds, in which it is no child."""

    async def main():
        group = lone_group()
        await offer_and_hold(group, 0, dict.fromkeys(THREE, 0.0))
        chain = Tree("c1", {"c2": "c1", "c3": "c2"})
        for name in THREE:
            group[name].change(1, policy_of(THREE, chain, version=1))
        first = await offer_and_hold(group, 1, dict.fromkeys(THREE, 0.0))
        group["c1"].handle("c3", late(0, 5.0))
        group["c1"].handle("c3", replace(late(1, 7.0), policy=1))
        refused = [event["round"] for event in group.events if event["event"] == "refused"]
        return refused, first, await offer_and_hold(group, 2, dict.fromkeys(THREE, 0.0))

    assert run_virtual(main()) == ([1], 0.0, 5.0)


def test_only_the_first_hop_carries_late_parts():
    members = ("c1", "c2", "c3", "c4")

    async def main():
        group = Group(members, (4, 4), slowest=0.01)
        group.start(policy_of(members, Tree("c1", {"c2": "c1", "c3": "c2", "c4": "c2"})))
        parts = np.ones(4, np.float32), np.ones(4, np.float32) / 2
        for name in members:
            for chunk in range(2):
                group[name].offer(0, chunk, Contribution(parts[0], 1.0, 1, parts[1]))
        await asyncio.gather(*(group.whole(name, 0) for name in members))
        await asyncio.sleep(1)
        hops = sorted((a, b, m.chunk) for a, b, m in group.sent(Kind.LATE))
        assert hops == [("c3", "c2", 0), ("c3", "c2", 1), ("c4", "c2", 0), ("c4", "c2", 1)]
        assert all(m.weight == m.contributors == 0 for _, _, m in group.sent(Kind.LATE))

    run_virtual(main())


# ---- while the membership changes


def change(group, members, *, held):
    group.epoch += 1
    for name in members:
        group[name].freeze(group.epoch)
    for name in members:
        group[name].resume(group.epoch, star_policy(members, version=group.epoch), held=held)


def test_a_round_that_runs_again_counts_late_parts_once():
    async def main():
        group = lone_group()
        whole = {n: asyncio.ensure_future(group.whole(n, 1)) for n in ("c1", "c2")}
        await offer_and_hold(group, 0, dict.fromkeys(THREE, 0.0))
        group["c1"].handle("c2", late(0, 100.0))  # of a round that is over: kept
        group["c1"].handle("c3", late(0, 1000.0))  # of one who dies
        for name in ("c1", "c2"):
            part = np.array([1.0], np.float32)
            group[name].offer(1, 0, Contribution(part, 1.0, 1, 10 * part))
        await asyncio.sleep(1)  # c2's late part of round 1 is at the root
        group.kill("c3")
        change(group, ("c1", "c2"), held=0)
        await asyncio.gather(*whole.values())
        group.results["c1"][1] = await group.whole("c1", 1)
        first = float(group.values("c1", 1)[0])
        return first, await offer_and_hold(group, 2, dict.fromkeys(("c1", "c2"), 1.0))

    first, second = run_virtual(main())
    assert first in (112.0, 122.0), "c2's late part is there, or not yet"
    assert first + second == 124.0


def test_a_late_part_of_an_old_epoch_counts_if_its_round_is_whole_and_else_comes_again():
    async def main():
        group = lone_group()
        await offer_and_hold(group, 0, dict.fromkeys(THREE, 0.0))
        group["c1"].freeze(1)
        group["c1"].handle("c2", late(0, 100.0, epoch=0))  # while frozen
        change(group, THREE, held=0)
        group["c1"].handle("c3", late(0, 1000.0, epoch=0))
        group["c1"].handle("c3", late(1, 5.0, epoch=0))
        assert [event["epoch"] for event in group.events if event["event"] == "dropped"] == [0]
        return await offer_and_hold(group, 1, dict.fromkeys(THREE, 1.0))

    assert run_virtual(main()) == 1103.0


@examples(200)
@given(
    count=st.integers(2, 5), kills=st.integers(1, 2), datagrams=st.booleans(),
    deep=st.booleans(), slowest=st.sampled_from([0.3, 1.0, 3.0]),
    work=st.sampled_from([0.0, 0.5]), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_whoever_dies_no_part_counts_twice_and_none_is_lost_while_the_root_lives(
    count, kills, datagrams, deep, slowest, work, seed
):
    members, rounds = tuple(f"c{n}" for n in range(1, count + 1)), 5
    ledger = Ledger(members, rounds, datagrams=datagrams)
    rng = random.Random(seed)

    async def main():
        group = Group(members, (ledger.size,), seed=seed, slowest=slowest, work=work)

        def policy():
            if not deep:
                return star_policy(group.alive, version=group.epoch)
            return policy_of(group.alive, random_tree(group.alive, rng), version=group.epoch)

        async def scheduler():
            for _ in range(min(kills, count - 1)):
                await asyncio.sleep(rng.uniform(0, 4 * slowest))
                victim = rng.choice(group.alive if deep else group.alive[1:])
                group.kill(victim)
                tasks[victim].cancel()
                group.prepare()
                while len(group.reports) < len(group.alive):
                    await asyncio.sleep(0.1)
                group.go_on(policy())

        group.start(policy())
        tasks = {
            name: asyncio.ensure_future(take_part(group, ledger, name, rounds + 1, slowest))
            for name in members
        }
        await scheduler()
        async with asyncio.timeout(1000):
            await asyncio.gather(*(tasks[name] for name in group.alive))
        return group

    group = run_virtual(main())
    found = counted(group, group.alive[0], rounds + 1, 0)
    for name in group.alive[1:]:
        np.testing.assert_array_equal(counted(group, name, rounds + 1, 0), found)
    assert set(np.unique(found.sum(axis=0))) <= {0.0, 1.0}, "a part was counted twice"
    for name in group.alive:
        for number in range(rounds):
            assert found[number, ledger.place(name, number, 0)] == 1.0
            if not deep and not datagrams:
                assert found[:, ledger.place(name, number, 1)].sum() == 1.0, "it was lost"


# ---- lost blocks, and losses of the other kind


def test_a_block_that_is_lost_counts_as_the_last_one_that_came():
    codec = dgt(k=0.5, block_bytes=64, channel="udp", lost="last")
    size, lost_part = 64, {}

    def blocks(*heights):
        return np.repeat(np.array(heights, np.float32), 16)

    async def main():
        group = Group(("c1", "c2"), (size,), slowest=0.01, codec=codec)
        group.network.copies = lambda m: 0 if lost_part.get(m.round) == m.body["part"] else 1
        group.start(star_policy(("c1", "c2")))
        spec = VectorSpec.of([("w", (size,))])
        states = {name: codec.init(spec.layers, [(0, size)]) for name in ("c1", "c2")}

        async def exchange(number, **vectors):
            for name, vector in vectors.items():
                [payload], states[name] = codec.encode(vector, states[name])
                offer = contribution_of(payload, 1.0)
                if name == "c1":  # its datagrams have no network to get lost on
                    await asyncio.sleep(1)
                group[name].offer(number, 0, offer)
            held = await asyncio.gather(*(group.whole(name, number) for name in vectors))
            return codec.decode(held[0][0].payload)[::16].tolist()

        lost_part.update({1: 0, 2: 0})
        first = await exchange(0, c2=blocks(4, 3, 2, 1), c1=blocks(40, 30, 20, 10))
        second = await exchange(1, c2=blocks(8, 7, 6, 5), c1=blocks(80, 70, 60, 50))
        third = await exchange(2, c2=blocks(9, 9, 9, 9), c1=blocks(90, 90, 90, 90))
        return first, second, third

    assert run_virtual(main()) == (
        [44.0, 33.0, 22.0, 11.0],
        [88.0, 77.0, 62.0, 55.0],  # block 2 was lost: 2 instead of 6
        [99.0, 99.0, 92.0, 99.0],  # and again: still 2
    )


def test_the_loss_travels_up_and_its_mean_comes_down():
    members = ("c1", "c2", "c3")

    async def main():
        group = Group(members, (1, 1), slowest=0.01)
        group.start(policy_of(members, Tree("c1", {"c2": "c1", "c3": "c2"})))
        part = np.ones(1, np.float32)
        for name, weight, loss in (("c1", 1.0, 4.0), ("c2", 1.0, None), ("c3", 3.0, 2.0)):
            group[name].offer(0, 0, Contribution(part, weight, 1, loss=loss))
            group[name].offer(0, 1, Contribution(part, weight, 1))
        held = await asyncio.gather(*(group.whole(name, 0) for name in members))
        return [[c.loss for c in chunks] for chunks in held]

    # c2 sends on 2.0 with the weight of both that it sums: it does not tell whose loss is missing.
    assert run_virtual(main()) == [[(4.0 + 4 * 2.0) / 5, None]] * 3


def test_an_offer_of_a_plain_payload_is_whole():
    payload = np.ones(2, np.float32)
    assert contribution_of(payload, 2.0) == (payload, 2.0, 1, None, (), None, 0)
    pieces = (np.ones(1, np.uint8),)
    split = SplitPayload(payload, np.zeros(0, np.uint8), pieces)
    assert contribution_of(split, 2.0, loss=0.5) == (payload, 2.0, 1, None, pieces, 0.5, 0)


@pytest.fixture(autouse=True)
def _warnings_only(caplog):
    caplog.set_level(logging.WARNING, logger="geojax.hips")
