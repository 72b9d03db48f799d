"""The exchange engine while nobody dies: sums, orders, trees, refusals."""

import asyncio
import logging
import random

import numpy as np
import pytest
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

from geojax.overlay.policy.policy import Tree, deal
from geojax.wire.message import Kind

NAMES = tuple(f"c{number}" for number in range(1, 8))


def exchange_once(members, policy, offers, *, seed=0, work=0.0, weights=None, **options):
    """One round; returns the group after it. ``offers``: chunks by member."""
    sizes = [len(chunk) for chunk in next(iter(offers.values()))]

    async def main():
        group = Group(members, sizes, seed=seed, work=work, **options)
        group.start(policy)

        async def member(name):
            await asyncio.sleep(group.rng.random())
            if name in offers:
                group.offer(name, 0, offers[name], (weights or {}).get(name, 1.0))
            await group.whole(name, 0)

        await asyncio.gather(*(member(name) for name in members))
        return group

    return run_virtual(main())


def integers(members, sizes, seed):
    rng = np.random.default_rng(seed)
    return {
        name: [rng.integers(-1000, 1000, size).astype(np.float32) for size in sizes]
        for name in members
    }


def plain_sum(offers):
    """The star's sum, as one reads it: chunk by chunk, member by member."""
    return np.concatenate([sum(parts) for parts in zip(*offers.values(), strict=True)])


# ---- the order of addition

LARGE_AND_SMALL = {"c1": [[1e8]], "c2": [[1.0]], "c3": [[-1e8]], "c4": [[1.0]]}


@pytest.mark.parametrize("seed", range(12))
def test_chunks_are_summed_in_member_order_whatever_arrives_first(seed):
    members = tuple(LARGE_AND_SMALL)
    group = exchange_once(members, star_policy(members, "c3"), LARGE_AND_SMALL, seed=seed)
    # In float32, 1e8 + 1 = 1e8; so only the last member's 1 is left. Any other order gives 0 or 2.
    assert {float(group.values(name, 0)[0]) for name in members} == {1.0}


def test_the_arrival_orders_of_that_test_really_differ():
    members = tuple(LARGE_AND_SMALL)

    def order(seed):
        group = exchange_once(members, star_policy(members, "c3"), LARGE_AND_SMALL, seed=seed)
        return tuple(sender for sender, _, _ in group.sent(Kind.OFFER))

    assert len({order(seed) for seed in range(12)}) > 3


@pytest.mark.parametrize("seed", range(4))
def test_in_a_deep_tree_each_parent_sums_its_own_children_and_itself_in_member_order(seed):
    #      c2
    #    c4  c1        c4 sums c3, c4; the root sums c1, c2 and what c4 sent
    #    c3
    policy = policy_of(("c1", "c2", "c3", "c4"), Tree("c2", {"c4": "c2", "c1": "c2", "c3": "c4"}))
    offers = {"c1": [[1e8]], "c2": [[-1e8]], "c3": [[1e-3]], "c4": [[1.0]]}
    group = exchange_once(policy.members, policy, offers, seed=seed)
    inner = np.float32(1e-3) + np.float32(1.0)
    expected = (np.float32(1e8) + np.float32(-1e8)) + inner
    assert all(group.values(name, 0)[0] == expected for name in policy.members)


# ---- any tree is the star


@given(
    count=st.integers(1, 7), trees=st.integers(1, 3), sizes=st.lists(st.integers(1, 5), min_size=1,
    max_size=9), planted=st.sampled_from([random_tree, random_pair]), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_any_trees_give_the_stars_sum_and_every_chunk_crosses_each_edge_once(
    count, trees, sizes, planted, seed
):
    members, rng = NAMES[:count], random.Random(seed)
    policy = policy_of(
        members, *(planted(members, rng, rng.choice([1.0, 2.5, 7.0])) for _ in range(trees))
    )
    offers = integers(members, sizes, seed)
    weights = {name: float(rng.randint(1, 9)) for name in members}
    group = exchange_once(members, policy, offers, seed=seed, work=0.5, weights=weights)

    expected = plain_sum(offers)
    for name in members:
        np.testing.assert_array_equal(group.values(name, 0), expected)
        for merged in group.results[name][0]:
            assert merged.weight == sum(weights.values())
            assert merged.contributors == count
    placed = deal(policy.trees, sizes)
    ups, downs = (
        [(chunk, *edge) for chunk, tree in enumerate(placed) for edge in way(policy.trees[tree])]
        for way in (lambda tree: tree.parent.items(), lambda tree: tree.source.items())
    )
    up = [(message.chunk, sender, receiver) for sender, receiver, message in group.sent(Kind.OFFER)]
    down = [(m.chunk, receiver, sender) for sender, receiver, m in group.sent(Kind.RESULT)]
    assert sorted(up) == sorted(ups)
    assert sorted(down) == sorted(downs)
    assert all(m.tree == placed[m.chunk] for _, _, m in group.network.log)


def test_rounds_follow_each_other_without_a_barrier_and_without_mixing():
    sizes, rounds = (2, 3, 1), 5

    async def main():
        group = Group(NAMES[:4], sizes, seed=3, work=0.3)
        group.start(policy_of(NAMES[:4], random_tree(NAMES[:4], group.rng)))
        by_round = [integers(NAMES[:4], sizes, number) for number in range(rounds)]
        await asyncio.gather(
            *(group.take_part(name, rounds, lambda n, r: by_round[r][n], 2.0) for name in NAMES[:4])
        )
        for number, offers in enumerate(by_round):
            for name in NAMES[:4]:
                np.testing.assert_array_equal(group.values(name, number), plain_sum(offers))

    run_virtual(main())


def test_a_chunk_moves_on_without_waiting_for_the_others():
    async def main():
        group = Group(("c1", "c2"), (1, 1), slowest=0.1)
        group.start(star_policy(("c1", "c2")))
        whole = asyncio.ensure_future(group.whole("c2", 0))
        for name in ("c1", "c2"):
            group.offer(name, 0, [[1.0]])  # chunk 0 only
        await asyncio.sleep(1)
        assert [(m.kind, m.chunk) for _, _, m in group.network.log] == [
            (Kind.OFFER, 0), (Kind.RESULT, 0),
        ]  # fmt: skip
        assert not whole.done()
        whole.cancel()

    run_virtual(main())


# ---- a root that merges without contributing


def test_a_root_that_does_not_contribute_merges_and_publishes():
    members = ("server", "w0", "w1")
    merged = []

    async def main():
        options = {
            "server": {
                "contributes": False,
                "at_root": lambda number, chunk, total: merged.append((number, chunk, total)),
            }
        }
        group = Group(members, (1, 1), options=options)
        group.start(star_policy(members))
        group.offer("w0", 0, [[1.0], [10.0]], weight=2.0)
        group.offer("w1", 0, [[2.0], [20.0]], weight=3.0)
        waits = [asyncio.ensure_future(group.whole(name, 0)) for name in members]
        await asyncio.sleep(5)
        assert sorted((number, chunk) for number, chunk, _ in merged) == [(0, 0), (0, 1)]
        assert not any(wait.done() for wait in waits), "the root has published nothing yet"
        for number, chunk, total in merged:
            assert (total.weight, total.contributors) == (5.0, 2)
            group["server"].publish(number, chunk, total._replace(weight=1.0))
        await asyncio.gather(*waits)
        assert all(group.values(name, 0).tolist() == [3.0, 30.0] for name in members)

    run_virtual(main())


# ---- refusals


def started(members=("c1", "c2", "c3"), **options):
    group = Group(members, (1,), slowest=0.01, **options)
    group.start(star_policy(members))
    return group


async def finish(group, caplog):
    """The round that ends in spite of what was refused: its sum, and what was logged."""
    for name in group.members:
        group.offer(name, 0, [[1.0]])
    await asyncio.gather(*(group.whole(name, 0) for name in group.members))
    return group.values(group.members[0], 0).tolist(), caplog.text


def test_an_offer_that_comes_twice_is_counted_once_and_logged(caplog):
    async def main():
        group = started()
        for _ in range(2):
            group["c1"].handle("c2", forged(values=[5.0]))
        assert caplog.text.count("from c2: counted already") == 1
        return await finish(group, caplog)

    assert run_virtual(main())[0] == [7.0]  # 5 once, instead of c2's own 1


@pytest.mark.parametrize(
    ("sender", "kind", "chunk", "reason"),
    [
        ("stranger", Kind.OFFER, 0, "not its child"),
        ("c1", Kind.OFFER, 0, "not its child"),  # its parent does not offer to it
        ("c3", Kind.OFFER, 0, "not its child"),
        ("c1", Kind.OFFER, 1, "no such chunk"),
        ("c1", Kind.RESULT, -1, "no such chunk"),
        ("c3", Kind.RESULT, 0, "not its parent"),
    ],
)
def test_what_a_leaf_may_not_take_is_refused_and_logged(sender, kind, chunk, reason, caplog):
    async def main():
        group = started()
        group["c2"].handle(sender, forged(kind, chunk=chunk, values=[99.0]))
        total, _ = await finish(group, caplog)
        return total, group.values("c2", 0).tolist()

    assert run_virtual(main()) == ([3.0], [3.0])
    assert f"from {sender}: {reason}" in caplog.text
    assert caplog.text.count("c2: refused") == 1


def test_a_result_that_comes_twice_is_passed_on_once():
    members = ("c1", "c2", "c3")

    async def main():
        group = Group(members, (1,), slowest=0.01)
        group.start(policy_of(members, Tree("c1", {"c2": "c1", "c3": "c2"})))
        group["c2"].handle("c3", forged())
        group.offer("c2", 0, [[1.0]])
        for _ in range(2):
            group["c2"].handle("c1", forged(Kind.RESULT, values=[9.0]))
        assert [receiver for _, receiver, _ in group.sent(Kind.RESULT)] == ["c3"]

    run_virtual(main())


def test_results_are_taken_from_the_way_down_alone(caplog):
    """c2 sends its sum to c1 and gets results from c3: one from c1 is refused."""

    async def main():
        group = Group(("c1", "c2", "c3"), (1,), slowest=0.01)
        way_down = {"c3": "c1", "c2": "c3"}
        group.start(policy_of(group.members, Tree("c1", {"c2": "c1", "c3": "c1"}, 1.0, way_down)))
        group.offer("c2", 0, [[1.0]])
        assert group["c2"].missing(0) == "chunk 0 of round 0 from c3"
        group["c2"].handle("c1", forged(Kind.RESULT, values=[99.0]))
        assert "c2: refused RESULT of chunk 0 of round 0 from c1: not its parent" in caplog.text
        for name in ("c1", "c3"):
            group.offer(name, 0, [[1.0]])
        await asyncio.gather(*(group.whole(name, 0) for name in group.members))
        assert {float(group.values(name, 0)[0]) for name in group.members} == {3.0}

    run_virtual(main())


def test_messages_of_a_round_that_is_over_change_nothing():
    async def main():
        group = started(("c1", "c2"))
        for name in group.members:
            group.offer(name, 0, [[1.0]])
        await asyncio.gather(*(group.whole(name, 0) for name in group.members))
        before = len(group.network.log)
        group["c1"].handle("c2", forged(values=[99.0]))
        group["c2"].handle("c1", forged(Kind.RESULT, values=[99.0]))
        group["c2"].handle("c1", forged(Kind.AGGREGATE, values=[99.0]))
        group.offer("c2", 0, [[99.0]])
        assert group["c1"].held == group["c2"].held == 0
        assert len(group.network.log) == before

    run_virtual(main())


# ---- what it says while it waits


def test_missing_names_the_peers_that_have_not_offered():
    async def main():
        group = started(("c1", "c2", "c3"))
        assert group["c1"].missing(0) == "anything of round 0"
        group.offer("c1", 0, [[1.0]])
        assert group["c1"].missing(0) == "chunk 0 of round 0 from c2, c3"
        group["c1"].handle("c3", forged())
        assert group["c1"].missing(0) == "chunk 0 of round 0 from c2"

    run_virtual(main())


def test_missing_names_the_parent_once_the_own_offer_is_under_way():
    async def main():
        group = started(("c1", "c2", "c3"))
        group.offer("c2", 0, [[1.0]])
        assert group["c2"].missing(0) == "chunk 0 of round 0 from c1"

    run_virtual(main())


def test_missing_names_the_first_chunk_that_is_not_there():
    async def main():
        group = Group(("c1", "c2"), (1, 1, 1), slowest=0.01)
        group.start(star_policy(("c1", "c2")))
        group.offer("c2", 0, [[1.0]] * 3)
        for chunk in (0, 2):
            group["c2"].handle("c1", forged(Kind.RESULT, chunk=chunk))
        assert group["c2"].missing(0) == "chunk 1 of round 0 from c1"

    run_virtual(main())


def test_missing_says_that_the_merge_is_awaited_at_a_root_that_has_all():
    async def main():
        options = {"server": {"contributes": False, "at_root": lambda *merged: None}}
        group = Group(("server", "w0"), (1,), slowest=0.01, options=options)
        group.start(star_policy(("server", "w0")))
        group.offer("w0", 0, [[1.0]])
        await asyncio.sleep(1)
        assert group["server"].missing(0) == "chunk 0 of round 0 from the merge"

    run_virtual(main())


@pytest.fixture(autouse=True)
def _all_warnings(caplog):
    caplog.set_level(logging.WARNING)
