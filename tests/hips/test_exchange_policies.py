"""Policies by round: every round goes by one, whoever hears of it when."""

import asyncio
import logging
import random

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

from geojax.hips.exchange.contribution import Contribution
from geojax.overlay.policy.policy import Tree
from geojax.wire.message import Kind

TWO, THREE = ("c1", "c2"), ("c1", "c2", "c3")


def contribution(value):
    return Contribution(np.array([value], np.float32), 1.0, 1)


def test_rounds_before_the_change_go_by_the_old_policy_and_those_after_by_the_new_one():
    async def main():
        group = Group(THREE, (1,), slowest=0.01)
        group.start(star_policy(THREE))
        for name in THREE:
            group[name].change(2, star_policy(THREE, "c3", version=1))
        for number in range(4):
            for name in THREE:
                group.offer(name, number, [[1.0]])
            await asyncio.gather(*(group.whole(name, number) for name in THREE))
        roots = {m.round: (peer, m.policy) for _, peer, m in group.sent(Kind.OFFER)}
        assert roots == {0: ("c1", 0), 1: ("c1", 0), 2: ("c3", 1), 3: ("c3", 1)}

    run_virtual(main())


def test_a_chunk_of_a_policy_that_is_not_known_yet_waits_for_it():
    async def main():
        group = Group(TWO, (1,), slowest=0.01)
        group.start(star_policy(TWO))
        root = group["c2"]
        root.offer(0, 0, contribution(1.0))
        root.handle("c1", forged(policy=1, values=[5.0]))  # by a policy that has c2 for a root
        await asyncio.sleep(1)
        assert root.held == -1
        assert not group.events
        group["c2"]._rounds.clear()  # its own offer went to c1 by the old policy: not in this test
        root.change(0, star_policy(TWO, "c2", version=1))
        root.offer(0, 0, contribution(1.0))
        assert (await root.whole(0))[0].payload.tolist() == [6.0]

    run_virtual(main())


@pytest.mark.parametrize("kind", [Kind.OFFER, Kind.RESULT])
def test_a_chunk_by_another_policy_than_its_rounds_is_refused_and_logged(kind, caplog):
    async def main():
        group = Group(TWO, (1,), slowest=0.01)
        group.start(star_policy(TWO))
        for name in TWO:
            group[name].change(5, star_policy(TWO, version=3))
        victim = group["c1" if kind is Kind.OFFER else "c2"]
        peer = "c2" if kind is Kind.OFFER else "c1"
        for number, version in ((0, 3), (5, 0), (5, 2)):
            victim.handle(peer, forged(kind, number=number, policy=version, values=[99.0]))
        told = [(e["event"], e["peer"], e["round"], e["policy"]) for e in group.events]
        assert told == [("refused", peer, 0, 3), ("refused", peer, 5, 0), ("refused", peer, 5, 2)]
        assert "sent by policy 3, its round has 0" in caplog.text
        for number in range(7):
            for name in TWO:
                group.offer(name, number, [[1.0]])
            await asyncio.gather(*(group.whole(name, number) for name in TWO))
            assert group.values("c1", number).tolist() == [2.0]

    caplog.set_level(logging.WARNING, logger="geojax.hips")
    run_virtual(main())


def test_an_offer_of_a_round_that_is_not_granted_here_waits_for_the_grant():
    """A local server's workers may be granted a round before it knows the round's policy."""

    async def main():
        group = Group(TWO, (1,), slowest=0.01)
        group.start(star_policy(TWO))
        group["c2"].grant(1)
        group["c2"].offer(1, 0, contribution(1.0))
        await asyncio.sleep(1)
        assert not group.sent(Kind.OFFER)
        assert group["c2"].missing(1) == "the policy of round 1, which is not granted yet"
        group["c2"].change(1, star_policy(TWO, "c2", version=1))
        group["c1"].change(1, star_policy(TWO, "c2", version=1))
        group["c2"].grant(2)
        group["c1"].offer(1, 0, contribution(2.0))
        for name in TWO:
            group[name].skip_to(0)
        for name in TWO:
            assert (await group.whole(name, 1))[0].payload.view(np.float32).tolist() == [3.0]

    run_virtual(main())


def test_a_new_epoch_ends_all_policies_before_it():
    async def main():
        group = Group(TWO, (1,), slowest=0.01)
        group.start(star_policy(TWO))
        for name in TWO:
            group[name].change(1, star_policy(TWO, "c2", version=1))
            group[name].freeze(1)
        for name in TWO:
            group[name].resume(1, star_policy(TWO, version=2))
        for number in range(3):
            for name in TWO:
                group.offer(name, number, [[1.0]])
            await asyncio.gather(*(group.whole(name, number) for name in TWO))
        assert {(peer, m.policy) for _, peer, m in group.sent(Kind.OFFER)} == {("c1", 2)}

    run_virtual(main())


def test_policies_of_rounds_that_are_held_are_forgotten():
    async def main():
        group = Group(TWO, (1,), slowest=0.01)
        group.start(star_policy(TWO))
        for number in range(10):
            for name in TWO:
                group[name].change(
                    number + 1, star_policy(TWO, TWO[number % 2], version=number + 1)
                )
            for name in TWO:
                group.offer(name, number, [[1.0]])
            await asyncio.gather(*(group.whole(name, number) for name in TWO))
            assert all(len(group[name]._policies) == 1 for name in TWO)

    run_virtual(main())


def test_a_version_that_does_not_grow_is_an_error():
    async def main():
        group = Group(TWO, (1,))
        group.start(star_policy(TWO, version=4))
        with pytest.raises(ValueError, match="version 4 does not follow"):
            group["c1"].change(3, star_policy(TWO, version=4))

    run_virtual(main())


def test_who_fetches_a_round_sends_it_on():
    """c1 holds round 0 and cannot reach c3; c2, which lacks it too, passes it on as it comes."""

    async def main():
        group = Group(THREE, (1, 2), slowest=0.01)
        group.start(star_policy(THREE))
        for name in THREE:
            group.offer(name, 0, [[1.0], [2.0, 3.0]])
        await group.whole("c1", 0)
        group.network.dead.update(("c2", "c3"))  # the results get lost on their way
        await asyncio.sleep(1)
        group.network.dead.clear()
        for name in THREE:
            group[name].freeze(1)
        sends = {"c1": ["c2"], "c2": ["c3"]}
        by = {"c1": None, "c2": "c1", "c3": "c2"}
        for name in THREE:
            policy = star_policy(THREE, version=1)
            group[name].resume(1, policy, held=0, lacking=sends.get(name, ()), source=by[name])
        for name in ("c2", "c3"):
            await group.whole(name, 0)
            assert group.values(name, 0).tolist() == group.values("c1", 0).tolist()
        fetched = [(sender, peer) for sender, peer, _ in group.sent(Kind.AGGREGATE)]
        assert sorted(fetched) == [("c1", "c2")] * 2 + [("c2", "c3")] * 2

    run_virtual(main())


@examples(150)
@given(
    count=st.integers(2, 6), changes=st.lists(st.integers(0, 9), max_size=6),
    slowest=st.sampled_from([0.3, 1.0, 3.0]), work=st.sampled_from([0.0, 0.5]),
    planted=st.sampled_from([random_tree, random_pair]), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_whenever_policies_change_every_offer_counts_once(
    count, changes, slowest, work, planted, seed
):
    """Members hear of policies and grants at instants of their own, in the order they were sent."""
    members, rounds, chunks = tuple(f"c{n}" for n in range(1, count + 1)), 10, 3
    rng = random.Random(seed)

    async def main():
        group = Group(members, (count,) * chunks, seed=seed, slowest=slowest, work=work)

        def policy(version):
            return policy_of(members, *(planted(members, rng) for _ in range(2)), version=version)

        def one_hot(name, number):
            return np.tile(np.eye(count)[members.index(name)], (chunks, 1))

        async def told(name, steps):
            """One member's control messages, in order; each a random while after the one before."""
            for first, planned in steps:
                await asyncio.sleep(rng.uniform(0, slowest))
                group[name].grant(first)
                await asyncio.sleep(rng.uniform(0, slowest))
                group[name].change(first, planned)
            group[name].grant(rounds)

        group.start(policy(0))
        steps = [(first, policy(at + 1)) for at, first in enumerate(sorted(changes))]
        for name in members:
            group[name].grant(0)
        async with asyncio.timeout(1000):
            await asyncio.gather(
                *(told(name, steps) for name in members),
                *(group.take_part(name, rounds, one_hot, slowest) for name in members),
            )
        return group

    group = run_virtual(main())
    for number in range(rounds):
        for name in members:
            for result in group.results[name][number]:
                assert set(result.payload.view(np.float32)) == {1.0}
                assert result.contributors == count
    assert not group.events


@pytest.fixture(autouse=True)
def _no_chatter(caplog):
    caplog.set_level(logging.ERROR, logger="geojax.hips")


def test_it_can_be_asked_what_a_tree_is_for():
    """The header names the tree of the round's own policy."""

    async def main():
        group = Group(THREE, (1, 1), slowest=0.01)
        group.start(star_policy(THREE))
        two = policy_of(
            THREE, Tree("c1", {"c2": "c1", "c3": "c1"}), Tree("c2", {"c1": "c2", "c3": "c2"}),
            version=1,
        )  # fmt: skip
        for name in THREE:
            group[name].change(1, two)
        for number in range(2):
            for name in THREE:
                group.offer(name, number, [[1.0], [1.0]])
            await asyncio.gather(*(group.whole(name, number) for name in THREE))
        trees = {(m.round, m.chunk): m.tree for _, _, m in group.sent(Kind.OFFER)}
        assert trees == {(0, 0): 0, (0, 1): 0, (1, 0): 0, (1, 1): 1}

    run_virtual(main())
