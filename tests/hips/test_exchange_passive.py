"""A root that contributes nothing and is no member: it publishes, forgets, and runs again."""

import asyncio

import numpy as np
from exchange_group import Group, forged, policy_of, run_virtual

from geojax.overlay.policy.policy import Tree
from geojax.wire.message import Kind

MEMBERS, SITES = ("a", "b", "c"), ("s", "t")
CHUNKS = 4
PASSIVE = {site: {"contributes": False} for site in SITES}


def stars(*roots, version=0):
    share = 1 / len(roots)
    trees = [Tree(root, {m: root for m in MEMBERS if m != root}, share) for root in roots]
    return policy_of(MEMBERS, *trees, version=version)


def group_of(**settings):
    return Group((*MEMBERS, *SITES), [2] * CHUNKS, options=PASSIVE, **settings)


def offers(name, number):
    first = 100 * number + 10 ** MEMBERS.index(name)
    return [np.full(2, first + chunk, np.float32) for chunk in range(CHUNKS)]


def merged(number):
    return np.concatenate(
        [sum(offers(name, number)[chunk] for name in MEMBERS) for chunk in range(CHUNKS)]
    )


def test_members_exchange_over_two_roots_that_keep_nothing():
    async def main():
        group = group_of(seed=3)
        group.start(stars("s", "t"))
        await asyncio.gather(*(group.take_part(name, 5, offers, 0.5) for name in MEMBERS))
        for name in MEMBERS:
            for number in range(5):
                np.testing.assert_array_equal(group.values(name, number), merged(number))
        for site in SITES:
            assert group[site].held == 4
            assert not group[site]._rounds
        to_sites = {peer for _, peer, message in group.sent(Kind.OFFER)}
        assert to_sites == set(SITES)

    run_virtual(main())


def test_a_round_that_was_published_and_that_nobody_holds_runs_again():
    async def main():
        group = group_of(slowest=0.0)
        group.network.withdraw = lambda sender, unwanted: 0  # all has begun to leave
        group.start(stars("s"))
        for name in MEMBERS:
            group.offer(name, 0, offers(name, 0))
        for name in MEMBERS:  # its results find them stopped already
            group[name].freeze(1)
        await asyncio.sleep(0.1)
        assert (group["s"].held, group["a"].held) == (0, -1)
        group["s"].freeze(1)
        for name in group.members:
            group[name].resume(1, stars("s", version=1), held=-1)
        for name in MEMBERS:
            await group.whole(name, 0)
            np.testing.assert_array_equal(group.values(name, 0), merged(0))
        assert group["s"].held == 0
        assert len(group.sent(Kind.RESULT)) == 2 * 3 * CHUNKS

    run_virtual(main())


def test_a_round_that_a_member_holds_is_over_for_a_root_that_missed_it():
    async def main():
        group = group_of(slowest=0.0)
        group.start(stars("s"))
        await asyncio.gather(*(group.take_part(name, 2, offers) for name in MEMBERS))
        for name in group.members:
            group[name].freeze(1)
        for name in group.members:
            group[name].resume(1, stars("t", version=1), held=1)
        assert group["t"].held == 1
        for name in MEMBERS:
            group.offer(name, 2, offers(name, 2))
            await asyncio.sleep(0)
        for name in MEMBERS:
            await group.whole(name, 2)
            np.testing.assert_array_equal(group.values(name, 2), merged(2))

    run_virtual(main())


def test_it_takes_nothing_for_trees_that_it_is_not_in(caplog):
    async def main():
        group = group_of(slowest=0.0)
        group.start(stars("s"))
        group["t"].handle("a", forged(values=(1.0, 2.0)))
        await asyncio.sleep(0.1)
        assert not group.sent(Kind.RESULT, Kind.OFFER)

    run_virtual(main())
    assert "not its child" in caplog.text


def test_a_root_that_has_no_chunk_to_merge_does_not_matter():
    async def main():
        group = Group((*MEMBERS, *SITES), [2], options=PASSIVE, slowest=0.0)
        group.start(stars("s", "t"))
        for name in MEMBERS:
            group.offer(name, 0, offers(name, 0)[:1])
        for name in MEMBERS:
            await group.whole(name, 0)
        assert (group["s"].held, group["t"].held) == (0, -1)

    run_virtual(main())
