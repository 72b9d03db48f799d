"""Policies that take over rounds under way: every offer counts once, and kept chunks stay."""

import asyncio
import logging
import random
from dataclasses import replace

import numpy as np
import pytest
from examples import examples
from exchange_group import (
    Group,
    forged,
    policy_of,
    random_pair,
    random_tree,
    run_virtual,
    star_policy,
)  # fmt: skip
from hypothesis import given
from hypothesis import strategies as st
from test_late_payloads import Ledger, counted, take_part

from geojax.errors import GeojaxError
from geojax.hips.control.fields import CHUNKS
from geojax.hips.exchange.contribution import Allowances, Contribution
from geojax.hips.exchange.debts import Owed
from geojax.hips.exchange.late_payloads import RELIABLE_ROUNDS
from geojax.hips.exchange.local_policy import ByRound, local_policy
from geojax.overlay.policy.policy import Tree
from geojax.wire.message import Kind

THREE = ("c1", "c2", "c3")
CHAIN = Tree("c3", {"c2": "c3", "c1": "c2"})


def group_of(sizes=(1, 1), **options):
    group = Group(THREE, sizes, slowest=0.01, **options)
    group.start(star_policy(THREE))
    return group


@pytest.fixture(autouse=True)
def _no_chatter(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


# ---- one exchange


def test_chunks_that_all_have_stay_and_the_others_run_again_by_the_new_policy():
    async def main():
        group = group_of()
        whole = [asyncio.ensure_future(group.whole(name, 0)) for name in THREE]
        for name in THREE:  # chunk 0 is done, of chunk 1 an offer lacks
            chunks = [[1.0], [10.0]][: 1 if name == "c2" else 2]
            group.offer(name, 0, chunks)
        await asyncio.sleep(1)
        assert {name: group[name].hold_back() for name in THREE} == dict.fromkeys(THREE, (-1, [1]))
        sent = len(group.network.log)
        for name in THREE:
            group[name].take_over(0, policy_of(THREE, CHAIN, version=1), {1})
        await asyncio.sleep(1)
        assert not any(each.done() for each in whole)
        group.offer("c2", 0, [[1.0], [10.0]])
        await asyncio.gather(*whole)
        later = [(a, b, m.kind, m.chunk, m.policy) for a, b, m in group.network.log[sent:]]
        return later, [group.values(name, 0).tolist() for name in THREE]

    later, values = run_virtual(main())
    assert later == [
        ("c1", "c2", Kind.OFFER, 1, 1), ("c2", "c3", Kind.OFFER, 1, 1),
        ("c3", "c2", Kind.RESULT, 1, 1), ("c2", "c1", Kind.RESULT, 1, 1),
    ]  # fmt: skip
    assert values == [[3.0, 30.0]] * 3


def test_what_waits_of_a_round_that_was_not_taken_over_stays():
    """The policy of round 0 is forgotten at c1, which holds it; c3 waits for its result there."""

    async def main():
        group = Group(THREE, (1,), slowest=0.01)
        group.start(policy_of(THREE, CHAIN))
        for name in THREE:
            group[name].hold_back()
            group[name].take_over(1, policy_of(THREE, CHAIN, version=1), {0})
            group.offer(name, 0, [[1.0]])
        await group.whole("c2", 0)
        unwanted = []
        group.network.withdraw = lambda _, found: unwanted.append(found) or 0
        group["c2"].hold_back()
        group["c2"].take_over(1, policy_of(THREE, CHAIN, version=2), {0})
        (dropped,) = unwanted
        return [
            dropped(forged(Kind.RESULT, policy=v, number=n))
            for v, n in ((0, 0), (0, 1), (1, 1), (2, 1))
        ]

    assert run_virtual(main()) == [False, True, True, False]


def test_results_are_held_back_until_it_is_decided_what_runs_again():
    async def main():
        group = group_of((1,))
        whole = [asyncio.ensure_future(group.whole(name, 0)) for name in THREE]
        assert [group[name].hold_back() for name in THREE] == [(-1, [0])] * 3
        for name in THREE:
            group.offer(name, 0, [[1.0]])
        await asyncio.sleep(1)
        assert [group[name].held for name in THREE] == [-1] * 3
        assert [group[name].hold_back() for name in THREE] == [(-1, [])] * 3
        for name in THREE:
            group[name].take_over(0, policy_of(THREE, CHAIN, version=1), ())
        await asyncio.gather(*whole)
        return [group[name].held for name in THREE]

    assert run_virtual(main()) == [0] * 3


def test_an_epoch_that_begins_meanwhile_ends_it():
    async def main():
        group = group_of((1,))
        for name in THREE:
            group[name].hold_back()
            group.offer(name, 0, [[1.0]])
        await asyncio.sleep(1)
        for name in THREE:
            group[name].freeze(1)
        for name in THREE:
            group[name].resume(1, star_policy(THREE, version=1))
        await asyncio.gather(*(group.whole(name, 0) for name in THREE))
        return group.values("c2", 0).tolist()

    assert run_virtual(main()) == [3.0]


def test_a_round_that_was_applied_is_never_taken_over():
    async def main():
        group = group_of((1,))
        for name in THREE:
            group.offer(name, 0, [[1.0]])
        await asyncio.gather(*(group.whole(name, 0) for name in THREE))
        with pytest.raises(GeojaxError, match="c1: round 0 was applied before"):
            group["c1"].take_over(0, policy_of(THREE, CHAIN, version=1), {0})

    run_virtual(main())


@pytest.mark.parametrize("kind", [Kind.OFFER, Kind.RESULT, Kind.LATE])
def test_a_chunk_of_the_policy_before_is_dropped_and_accuses_nobody(kind):
    async def main():
        group = group_of((1,))
        group["c1"].take_over(0, star_policy(THREE, root="c1", version=1), {0})
        group["c1"].handle("c2", forged(kind, policy=0, values=[9.0]))
        for name in THREE[1:]:
            group[name].take_over(0, star_policy(THREE, root="c1", version=1), {0})
        for name in THREE:
            group.offer(name, 0, [[1.0]])
        await asyncio.gather(*(group.whole(name, 0) for name in THREE))
        group["c1"].handle("c2", forged(kind, policy=0, values=[9.0]))  # the round is held now
        return group.values("c1", 0).tolist(), [e for e in group.events if e["event"] == "refused"]

    assert run_virtual(main()) == ([3.0], [])


def test_nobody_owes_an_offer_whose_result_stayed():
    async def main():
        group = group_of()
        for name in THREE:
            group.offer(name, 0, [[1.0], [10.0]][: 1 if name == "c2" else 2])
        await asyncio.sleep(1)
        for name in THREE:
            group[name].take_over(0, star_policy(THREE, root="c1", version=1), {1})
        owed = group["c1"].gate.owed
        return [owed("c2", forged(policy=0, chunk=chunk)) for chunk in range(2)]

    assert run_virtual(main()) == [Owed.NOT, Owed.NOW]


def test_a_late_part_that_comes_after_the_next_epoch_began_does_not_count_twice():
    """c2 sent it to c1 by the policy before, and again to c3 by the one that took over."""

    async def main():
        group = group_of((1,))
        sent = {name: Contribution(np.ones(1, np.float32), 1.0, 1) for name in THREE}
        sent["c2"] = sent["c2"]._replace(late=np.full(1, 100, np.float32))
        for name in THREE:
            group[name].take_over(0, star_policy(THREE, root="c3", version=1), {0})
        for name in THREE:
            group[name].offer(0, 0, sent[name])
        await asyncio.gather(*(group.whole(name, 0) for name in THREE))
        await asyncio.sleep(1)
        for name in THREE:
            group[name].freeze(1)
        for name in THREE:
            group[name].resume(1, star_policy(THREE, version=2), held=0)
        slow = forged(Kind.LATE, policy=0, values=[100.0], weight=0.0)
        group["c1"].handle("c2", replace(slow, contributors=0))
        for name in THREE:
            group[name].offer(1, 0, sent["c1"])
        await asyncio.gather(*(group.whole(name, 1) for name in THREE))
        return sum(float(group.values("c1", number)[0]) for number in range(2))

    assert run_virtual(main()) == 3.0 + 100.0 + 3.0


def test_a_late_part_of_a_chunk_that_ran_again_and_then_stayed_does_not_count_twice():
    """c2 sent it to c1, again to c3 when one policy took over, and not again for the other."""

    async def main():
        group = group_of()
        sent = {name: Contribution(np.ones(1, np.float32), 1.0, 1) for name in THREE}
        sent["c2"] = sent["c2"]._replace(late=np.full(1, 100, np.float32))
        whole = [asyncio.ensure_future(group.whole(name, 0)) for name in THREE]
        for name in THREE:
            group[name].take_over(0, star_policy(THREE, root="c3", version=1), {0, 1})
        for name in THREE:
            group[name].offer(0, 0, sent[name])
        await asyncio.sleep(1)
        for name in THREE:
            group[name].take_over(0, policy_of(THREE, CHAIN, version=2), {1})
        slow = [
            replace(forged(Kind.LATE, policy=policy, values=[100.0], weight=0.0), contributors=0)
            for policy in range(2)
        ]
        group["c1"].handle("c2", slow[0])
        assert not group["c1"]._superseded(slow[1]), "that is the one that counts"
        for name in THREE:
            group[name].offer(0, 1, sent["c1"])
        await asyncio.gather(*whole)
        for name in THREE:
            group[name].offer(1, 0, sent["c1"])
            group[name].offer(1, 1, sent["c1"])
        await asyncio.gather(*(group.whole(name, 1) for name in THREE))
        return sum(float(group.values("c1", number)[0]) for number in range(2))

    assert run_virtual(main()) == 3.0 + 100.0 + 3.0


def test_a_late_part_of_a_chunk_that_stayed_counts_however_late():
    async def main():
        group = group_of((1,))
        for name in THREE:
            group[name].hold_back()
            group.offer(name, 0, [[1.0]])
        await asyncio.sleep(1)
        for name in THREE:
            group[name].take_over(0, star_policy(THREE, root="c3", version=1), ())
        for number in range(RELIABLE_ROUNDS + 1):
            if number == RELIABLE_ROUNDS:
                slow = forged(Kind.LATE, policy=0, values=[100.0], weight=0.0)
                group["c1"].handle("c2", replace(slow, contributors=0))
            for name in THREE:
                group.offer(name, number, [[1.0]])
            await asyncio.gather(*(group.whole(name, number) for name in THREE))
        return [group.values("c1", number).tolist() for number in range(RELIABLE_ROUNDS + 1)]

    assert run_virtual(main()) == [[3.0]] * RELIABLE_ROUNDS + [[103.0]]


def test_it_is_known_what_took_a_round_over_while_its_late_parts_may_come():
    policies = [star_policy(THREE, version=version) for version in range(RELIABLE_ROUNDS + 2)]
    none = Allowances({})
    laid = [local_policy("c1", policy, (1,), (1,), allowances=none) for policy in policies]
    rounds = ByRound()
    rounds.begin(laid[0])
    for number in range(RELIABLE_ROUNDS + 1):
        rounds.take_over(number, laid[number + 1])
    found = [rounds.superseded(0, version) for version in (0, 1)]
    assert found == [True, False]


@given(st.sets(st.integers(0, 5000)))
def test_chunks_as_bits_are_read_again(chunks):
    assert {*CHUNKS.read(CHUNKS.write(chunks))} == chunks


@examples(300)
@given(
    count=st.integers(2, 5), chunks=st.integers(1, 6), slowest=st.sampled_from([0.3, 3.0]),
    work=st.sampled_from([0.0, 0.5]), pairs=st.booleans(), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_whenever_a_policy_takes_over_every_offer_counts_once(
    count, chunks, slowest, work, pairs, seed
):
    members, rounds = tuple(f"c{n}" for n in range(1, count + 1)), 4
    rng = random.Random(seed)
    grow = random_pair if pairs else random_tree

    def offer_of(name, number):
        own = np.random.default_rng((seed, members.index(name), number))
        return [own.integers(-99, 99, 3).astype(np.float32) for _ in range(chunks)]

    async def main():
        group = Group(members, (3,) * chunks, seed=seed, slowest=slowest, work=work)
        group.start(policy_of(members, grow(members, rng)))

        async def restless():
            for version in range(1, 7):
                await asyncio.sleep(rng.uniform(0, 3 * slowest))
                group.hold()
                await asyncio.sleep(1 + rng.uniform(0, slowest))
                group.take_over(policy_of(members, grow(members, rng), version=version))
                await asyncio.sleep(1)

        await asyncio.gather(
            restless(), *(group.take_part(name, rounds, offer_of, slowest) for name in members)
        )
        return group

    group = run_virtual(main())
    for number in range(rounds):
        wanted = sum(np.concatenate(offer_of(name, number)) for name in members)
        for name in members:
            np.testing.assert_array_equal(group.values(name, number), wanted)
    assert not [event for event in group.events if event["event"] == "refused"]


@examples(300)
@given(
    count=st.integers(2, 4), datagrams=st.booleans(), slowest=st.sampled_from([0.3, 3.0]),
    behind=st.sampled_from([1, 6]), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_whenever_a_policy_takes_over_no_late_part_counts_twice(
    count, datagrams, slowest, behind, seed
):
    """Epochs begin between, too."""
    members, rounds, chunks = tuple(f"c{n}" for n in range(1, count + 1)), 4, 2
    ledger, rng = Ledger(members, rounds, datagrams=datagrams), random.Random(seed)

    async def main():
        group = Group(members, (ledger.size,) * chunks, seed=seed, slowest=slowest)
        group.network.behind = behind
        group.start(policy_of(members, random_tree(members, rng)))

        async def restless():
            for version in range(1, 9):
                await asyncio.sleep(rng.uniform(0, 2 * slowest))
                policy = policy_of(members, random_tree(members, rng), version=version)
                if rng.random() < 0.6:
                    group.hold()
                    await asyncio.sleep(1 + rng.uniform(0, slowest))
                    group.take_over(policy)
                else:
                    group.prepare()
                    await asyncio.sleep(1)
                    group.go_on(policy)
                await asyncio.sleep(1)

        await asyncio.gather(
            restless(), *(take_part(group, ledger, name, rounds + 1, slowest) for name in members)
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
                    assert times.sum() <= 1
                    assert not times[:number].any()
    assert not [event for event in group.events if event["event"] == "refused"]
