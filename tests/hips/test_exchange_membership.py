"""The exchange engine while the membership changes: nothing lost, nothing counted twice."""

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
from simulated_runs import kill, simulated, small_config

from geojax.hips.exchange.contribution import Contribution
from geojax.overlay.policy.policy import Tree
from geojax.wire.message import Kind

THREE = ("c1", "c2", "c3")


def small_group(members=THREE, sizes=(1,), **options):
    group = Group(members, sizes, slowest=0.01, **options)
    group.start(star_policy(members))
    return group


def change(group, members, *, held=None, lacking=(), source=None):
    """A whole change of the membership at one instant."""
    group.epoch += 1
    for name in members:
        group[name].freeze(group.epoch)
    held = max(group[name].held for name in members) if held is None else held
    for name in members:
        group[name].resume(
            group.epoch,
            star_policy(members, version=group.epoch),
            held=held,
            source=source if name in lacking else None,
            lacking=lacking if name == source else (),
        )


# ---- epochs


def test_a_message_of_an_old_epoch_is_dropped_and_recorded(caplog):
    async def main():
        caplog.set_level(logging.WARNING, logger="geojax.hips")
        group = small_group()
        change(group, THREE)
        group["c1"].handle("c2", forged(epoch=0, values=[99.0]))
        assert [(e["event"], e["peer"], e["epoch"], e["now"]) for e in group.events] == [
            ("dropped", "c2", 0, 1)
        ]
        assert "c1: dropped a chunk of epoch 0 from c2" in caplog.text
        for name in THREE:
            group.offer(name, 0, [[1.0]])
        await asyncio.gather(*(group.whole(name, 0) for name in THREE))
        assert group.values("c1", 0).tolist() == [3.0]

    run_virtual(main())


def test_what_waits_to_leave_is_dropped_when_the_epoch_changes():
    """c2 has sent a tenth of 100 chunks when the round begins again; the others never leave."""
    fault = kill("c3", 0.05)
    outcome = simulated(small_config(
        elements=200_000, chunk_elements=2_000, rounds=2, testbed__faults=[fault]
    ))  # fmt: skip
    (epoch,) = outcome.of("epoch")
    assert (epoch["held"], epoch["members"]) == (-1, ["c1", "c2"])
    sent = outcome.reports["c2"]["sent"]["c1"]["messages"][str(int(Kind.OFFER))]
    assert 200 < sent < 230
    assert len(outcome.of("dropped")) < 20


def test_messages_of_a_new_epoch_wait_until_the_member_is_there_too():
    async def main():
        group = small_group(("c1", "c2"))
        group["c1"].freeze(1)
        group["c1"].handle("c2", forged(epoch=1, values=[5.0]))  # while frozen
        group["c1"].offer(0, 0, forged_contribution(1.0))
        group["c1"].resume(1, star_policy(("c1", "c2"), version=1))
        assert (await group.whole("c1", 0))[0].payload.tolist() == [6.0]
        group["c1"].handle("c2", forged(epoch=3, number=1, values=[7.0]))  # two epochs ahead
        change(group, ("c1", "c2"))
        group["c1"].offer(1, 0, forged_contribution(1.0))
        await asyncio.sleep(1)
        assert group["c1"].held == 0, "an offer of epoch 3 does not count in epoch 1"
        for epoch in (2, 3):
            group["c1"].freeze(epoch)
            group["c1"].resume(epoch, star_policy(("c1", "c2"), version=epoch))
        assert (await group.whole("c1", 1))[0].payload.tolist() == [8.0]

    run_virtual(main())


def test_an_engine_that_never_started_keeps_what_comes_early():
    async def main():
        group = Group(("c1", "c2"), (1,), slowest=0.01)
        group["c1"].handle("c2", forged(values=[5.0]))
        group["c1"].offer(0, 0, forged_contribution(1.0))
        group.start(star_policy(("c1", "c2")))
        assert (await group.whole("c1", 0))[0].payload.tolist() == [6.0]

    run_virtual(main())


def test_a_frozen_engine_sends_nothing_and_says_nothing():
    async def main():
        group = small_group(("c1", "c2"), work=1.0)
        group.offer("c1", 0, [[1.0]])
        await asyncio.sleep(0.5)
        group["c1"].handle("c2", forged(values=[5.0]))  # the sum takes a while ...
        group["c1"].freeze(1)  # ... and is not wanted any more
        group["c1"].offer(1, 0, forged_contribution(1.0))
        group["c1"].publish(0, 0, forged_contribution(9.0))
        whole = asyncio.ensure_future(group.whole("c1", 0))
        await asyncio.sleep(10)
        assert group.network.log == []
        assert not whole.done()
        whole.cancel()

    run_virtual(main())


def test_a_sum_that_was_under_way_when_the_epoch_changed_is_not_sent():
    """Else its summands, which are offered again under the new tree, would count twice."""

    async def main():
        group = Group(THREE, (1,), slowest=0.01, work=1.0)
        group.start(policy_of(THREE, Tree("c1", {"c2": "c1", "c3": "c2"})))
        for name in THREE:
            group.offer(name, 0, [[1.0]])
        while not any(sender == "c3" for sender, _, _ in group.network.log):
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)  # c2 sums its own offer and that of c3
        change(group, THREE)  # a star: both offer to c1 themselves
        await asyncio.gather(*(group.whole(name, 0) for name in THREE))
        assert group.values("c1", 0).tolist() == [3.0]
        await asyncio.sleep(5)
        offers = [(sender, m.contributors) for sender, _, m in group.sent(Kind.OFFER)]
        assert offers == [("c3", 1), ("c2", 1), ("c3", 1)]

    run_virtual(main())


# ---- a round in progress when the epoch changes


def test_a_round_that_one_member_holds_is_fetched_from_it():
    async def main():
        group = small_group(sizes=(1, 2))
        for name in THREE:
            group.offer(name, 0, [[1.0], [2.0, 3.0]])
        await group.whole("c1", 0)  # the root is the first to hold it
        group.network.dead.update(("c2", "c3"))  # the results get lost on their way
        await asyncio.sleep(1)
        group.network.dead.clear()
        assert [group[name].held for name in THREE] == [0, -1, -1]
        change(group, THREE, lacking=("c2", "c3"), source="c1")
        for name in ("c2", "c3"):
            await group.whole(name, 0)
            assert group.values(name, 0).tolist() == group.values("c1", 0).tolist()
            assert group.results[name][0][1].contributors == 3
        assert len(group.sent(Kind.AGGREGATE)) == 4  # two chunks to each
        assert all(m.epoch == 1 for _, _, m in group.sent(Kind.AGGREGATE))
        assert len(group.sent(Kind.OFFER)) == 4, "nothing was offered again"

    run_virtual(main())


def test_what_has_arrived_of_a_round_that_is_fetched_stays_right():
    async def main():
        group = small_group(sizes=(1, 1))
        for name in THREE:
            group.offer(name, 0, [[1.0], [10.0]])
        await group.whole("c1", 0)
        await asyncio.sleep(1)
        lagging = group["c2"]
        assert lagging.held == -1  # all its chunks are in, but nobody asked for the round yet
        change(group, THREE, held=0, lacking=("c2", "c3"), source="c1")
        await asyncio.gather(*(group.whole(name, 0) for name in ("c2", "c3")))
        assert group.values("c2", 0).tolist() == [3.0, 30.0]

    run_virtual(main())


def test_a_round_that_nobody_holds_runs_again_from_the_kept_offers():
    async def main():
        group = small_group()
        for name, value in (("c2", 2.0), ("c3", 4.0)):
            group.offer(name, 0, [[value]])
        await asyncio.sleep(1)
        group.kill("c3")  # its offer has arrived, c1's is not made yet
        change(group, ("c1", "c2"))
        group.offer("c1", 0, [[1.0]])
        await asyncio.gather(*(group.whole(name, 0) for name in ("c1", "c2")))
        assert group.values("c1", 0).tolist() == [3.0], "c1 and c2, once each; c3 is gone"
        assert group.results["c2"][0][0].contributors == 2

    run_virtual(main())


def test_the_last_whole_round_is_kept_for_others_until_the_next_one_is_whole():
    async def main():
        group = small_group(("c1", "c2"))
        for number in range(3):
            for name in ("c1", "c2"):
                group.offer(name, number, [[float(number)]])
            await asyncio.gather(*(group.whole(name, number) for name in ("c1", "c2")))
        group.offer("c1", 3, [[3.0]])
        change(group, ("c1", "c2"), held=2, lacking=("c2",), source="c1")
        sent = [(m.round, m.payload.tolist()) for _, _, m in group.sent(Kind.AGGREGATE)]
        assert sent == [(2, [4.0])]

    run_virtual(main())


def test_results_of_a_change_that_was_overtaken_by_another_do_not_leak():
    """The holder dies while the others fetch: then nobody holds the round, and it runs again."""

    async def main():
        group = small_group(sizes=(1, 1))
        for name in THREE:
            group.offer(name, 0, [[1.0], [10.0]])
        await group.whole("c1", 0)
        group.network.dead.update(("c2", "c3"))
        await asyncio.sleep(1)
        group.network.dead.clear()
        whole = {n: asyncio.ensure_future(group.whole(n, 0)) for n in ("c2", "c3")}
        await asyncio.sleep(0)
        change(group, THREE, lacking=("c2", "c3"), source="c1")
        # Of what c1 sends, one chunk gets through to c2 before c1 dies.
        group.network.dead.update(THREE)
        kept = group.sent(Kind.AGGREGATE)[0][2]
        group["c2"].handle("c1", kept)
        await asyncio.sleep(1)
        group.network.dead = {"c1"}
        change(group, ("c2", "c3"))
        await asyncio.gather(*whole.values())
        assert group.values("c2", 0).tolist() == group.values("c3", 0).tolist() == [2.0, 20.0]

    run_virtual(main())


def test_a_policy_of_another_shape_takes_over_a_round_in_progress():
    members = ("c1", "c2", "c3", "c4")

    async def main():
        group = Group(members, (1,) * 4, seed=5, slowest=0.01)
        group.start(policy_of(members, Tree("c4", {"c3": "c4", "c2": "c3", "c1": "c2"})))
        for name in ("c1", "c2", "c3"):
            group.offer(name, 0, [[1.0]] * 4)
        await asyncio.sleep(1)
        rest = ("c1", "c2", "c3")
        group.epoch = 1
        group.kill("c4")
        two = policy_of(
            rest, Tree("c1", {"c2": "c1", "c3": "c2"}), Tree("c3", {"c1": "c3", "c2": "c3"})
        )
        for name in rest:
            group[name].freeze(1)
        for name in rest:
            group[name].resume(1, two)
        await asyncio.gather(*(group.whole(name, 0) for name in rest))
        for name in rest:
            assert group.values(name, 0).tolist() == [3.0] * 4

    run_virtual(main())


# ---- any deaths at any time


@examples(300)
@given(
    count=st.integers(2, 6), kills=st.integers(1, 3), trees=st.integers(1, 2),
    slowest=st.sampled_from([0.3, 1.0, 3.0]), work=st.sampled_from([0.0, 0.5]),
    planted=st.sampled_from([random_tree, random_pair]), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_whoever_dies_survivors_agree_and_each_of_their_offers_counts_once(
    count, kills, trees, slowest, work, planted, seed
):
    """Every member offers a vector that is 1 at its own place; so sums count the offers."""
    members, rounds, chunks = tuple(f"c{n}" for n in range(1, count + 1)), 6, 3
    rng = random.Random(seed)

    async def main():
        group = Group(members, (count,) * chunks, seed=seed, slowest=slowest, work=work)

        def policy():
            planned = [planted(group.alive, rng, rng.choice([1.0, 3.0])) for _ in range(trees)]
            return policy_of(group.alive, *planned, version=group.epoch)

        def one_hot(name, number):
            return np.tile(np.eye(count)[members.index(name)], (chunks, 1))

        async def scheduler():
            for last in (False,) * (min(kills, count - 1) - 1) + (True,):
                await asyncio.sleep(rng.uniform(0, 4 * slowest))
                victim = rng.choice(group.alive)
                group.kill(victim)
                tasks[victim].cancel()
                group.prepare()
                await asyncio.sleep(rng.uniform(0, 3))  # another may die before all have stopped
                while last and len(group.reports) < len(group.alive):
                    await asyncio.sleep(0.1)
                if len(group.reports) == len(group.alive):
                    group.go_on(policy())

        group.start(policy())
        tasks = {
            name: asyncio.ensure_future(group.take_part(name, rounds, one_hot, slowest))
            for name in members
        }
        await scheduler()
        async with asyncio.timeout(1000):
            await asyncio.gather(*(tasks[name] for name in group.alive))
        return group

    group = run_virtual(main())
    survivors = [members.index(name) for name in group.alive]
    first = group.results[group.alive[0]]
    for number in range(rounds):
        for chunk in range(chunks):
            counted = group.results[group.alive[0]][number][chunk]
            values = counted.payload.view(np.float32)
            assert set(values) <= {0.0, 1.0}, "an offer was counted twice"
            assert all(values[survivors] == 1.0), "a survivor's offer was lost"
            assert counted.contributors == counted.weight == values.sum()
            for name in group.alive:
                other = group.results[name][number][chunk]
                np.testing.assert_array_equal(other.payload.view(np.float32), values)
                assert other.weight == first[number][chunk].weight


def forged_contribution(value):
    return Contribution(np.array([value], np.float32), 1.0, 1)


@pytest.fixture(autouse=True)
def _no_chatter(caplog):
    caplog.set_level(logging.ERROR, logger="geojax.hips")
