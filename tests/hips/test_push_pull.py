"""The server exchange: it equals a plain loop, keeps its bound, and never blocks for good."""

import asyncio
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from examples import examples
from exchange_group import forged
from hypothesis import given
from hypothesis import strategies as st
from server_group import ServerGroup, plain_loop, pull_to, run_virtual, stars

from geojax.center.outer import FlatOptimizer, PlainSgd
from geojax.center.spec import VectorSpec
from geojax.compression.size_only import size_only
from geojax.config import OptimizerConfig
from geojax.hips.exchange.contribution import Contribution
from geojax.hollow import SizeOnly
from geojax.sync.compensation import build_compensation
from geojax.sync.mixed_sync import mixed_sync
from geojax.wire.message import Kind, Message

THREE = ("c1", "c2", "c3")
SIZES = (2, 3, 2)
START = np.linspace(-1, 1, 7, dtype=np.float32)


def run(centers, policy, *, rounds=8, gradient=pull_to, pause=0.0, pauses=(), **options):
    """A whole run; ``pauses``: a longest pause of each center, else ``pause``."""

    async def main():
        group = ServerGroup(centers, SIZES, start=START, **options)
        group.begin(policy)
        for name in centers:
            group.launch(name, rounds, gradient, pause=dict(pauses).get(name, pause))
        await group.all_done()
        return group

    return run_virtual(main())


# ---- it equals a plain loop


def slow_sgd(spec):
    return PlainSgd(0.1, spec)


def adam(spec):
    return FlatOptimizer(OptimizerConfig(name="adam"), 0.1, spec)


@pytest.mark.parametrize("bound", [None, 0, 2])
@pytest.mark.parametrize("compensation", ["none", "constant", "adaptive"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_it_equals_a_plain_loop_with_the_same_order_of_arrival(bound, compensation, optimizer):
    outer = adam if optimizer == "adam" else lambda spec: PlainSgd(0.5, spec)
    group = run(
        THREE, stars(THREE, "c2"), bound=bound, outer=outer, seed=3, pause=1.0, work=0.3,
        algorithm=mixed_sync(compensation=compensation), pauses={"c3": 6.0},
    )  # fmt: skip
    rule, twin = build_compensation(compensation, None), outer(VectorSpec.of([("w", (7,))]))
    memory = rule.init(7) if rule else {}

    def compensate(offered, now, backup):
        nonlocal memory
        offered, memory = rule.apply(offered, now, backup, memory)
        return offered

    last, has = plain_loop(
        group.order(), THREE, START, pull_to, twin.apply, compensate if rule else None, bound
    )
    assert len(group.order()) == 3 * 8
    by_rounds = sorted(group.order(), key=lambda push: push[1])
    assert (group.order() == by_rounds) == (bound == 0)
    np.testing.assert_array_equal(group.model(), last)
    for center in THREE:
        for number in range(8):
            np.testing.assert_array_equal(
                group.parameters[center][number], has[center][number], str((center, number))
            )


def test_one_center_alone_trains_as_in_fsa():
    group = run(("c1",), stars(("c1",), "c1"), outer=lambda spec: PlainSgd(0.5, spec))
    expected = START
    for number in range(8):
        expected = expected - np.float32(0.5) * pull_to("c1", number, expected)
        np.testing.assert_allclose(group.parameters["c1"][number], expected, rtol=1e-6)
    assert group.network.log == [], "a root's own push takes no network"
    assert {event["staleness"] for event in group.of("applied")} == {0}


def test_with_bound_0_plain_sgd_is_fsa_at_as_many_times_the_rate_as_there_are_centers():
    group = run(THREE, stars(THREE, "c1"), bound=0, pause=5.0, outer=slow_sgd)
    expected = START.astype(np.float64)
    for number in range(8):
        mean = np.mean([pull_to(center, number, expected) for center in THREE], axis=0)
        expected = expected - 3 * 0.1 * mean
        for center in THREE:
            np.testing.assert_allclose(group.parameters[center][number], expected, rtol=1e-5)
    assert [sorted(e["staleness"] for e in group.of("applied")[r : r + 3]) for r in (0, 21)] == [
        [0, 1, 2], [0, 1, 2]
    ]  # fmt: skip


@pytest.mark.parametrize("compensation", ["none", "constant", "adaptive"])
@pytest.mark.parametrize("roots", [("c1", "c3"), ("g1", "g2")])
def test_shards_equal_one_shard_when_the_orders_of_arrival_agree(compensation, roots):
    """Without delays of the network the pauses alone decide the order."""
    options = {"slowest": 0.0, "pause": 3.0, "seed": 5, "bound": 2, "outer": slow_sgd}
    algorithm = mixed_sync(compensation=compensation)
    servers = [root for root in roots if root not in THREE]
    one = run(THREE, stars(THREE, "c2"), algorithm=algorithm, **options)
    several = run(
        THREE, stars(THREE, *roots, placement=(0, 1, 0)), servers=servers, algorithm=algorithm,
        **options,
    )  # fmt: skip
    assert several.order(0) == several.order(1) == one.order(0)
    np.testing.assert_allclose(several.model(), one.model(), rtol=1e-6)


def test_the_offered_sum_is_divided_by_its_weight():
    async def main():
        group = ServerGroup(("c1", "c2"), SIZES, start=START)
        group.begin(stars(("c1", "c2"), "c1"))
        group.launch("c2", 1, weight=4.0)
        await group.tasks["c2"]
        np.testing.assert_allclose(group.model(), START - pull_to("c2", 0, START), rtol=1e-6)

    run_virtual(main())


# ---- versions and order


def test_a_push_and_its_answer_are_one_round_trip_with_the_version_told():
    group = run(("c1", "c2"), stars(("c1", "c2"), "c1"), rounds=2)
    kinds = [(sender, m.kind.name, m.chunk, m.round) for sender, _, m in group.network.log]
    rounds = [
        [("c2", "OFFER", c, n) for c in range(3)] + [("c1", "RESULT", c, n) for c in range(3)]
        for n in range(2)
    ]
    sent = [entry for entry in kinds if entry[0] == "c2" or entry[1] == "RESULT"]
    assert sent[:12] == rounds[0] + rounds[1]
    assert sent[12:] == [("c2", "OFFER", 0, 1)], "that it retires"
    versions = [m.body["version"] for _, _, m in group.network.log if m.kind is Kind.RESULT]
    bases = [m.body["base"] for _, _, m in group.network.log if "base" in m.body]
    assert bases == [0] * 3 + versions[:3]


@pytest.mark.parametrize("roots", [("c1",), ("c1", "c2", "c3"), ("g1", "g2")])
@pytest.mark.parametrize("seed", range(3))
def test_staleness_is_the_number_of_pushes_since_the_parameters_were_pulled(roots, seed):
    servers = [root for root in roots if root not in THREE]
    placement = [at % len(roots) for at in range(3)]
    group = run(
        THREE, stars(THREE, *roots, placement=placement), servers=servers, seed=seed, pause=2.0,
        work=0.5,
    )  # fmt: skip
    for first in dict.fromkeys(e["chunk"] for e in group.of("applied")):
        since = dict.fromkeys(THREE, 0)
        for version, (center, _) in enumerate(group.order(first), 1):
            applied = [e for e in group.of("applied") if e["chunk"] == first]
            event = applied[version - 1]
            assert event["version"] == version
            assert event["staleness"] == version - 1 - since[center]
            since[center] = version


def test_pushes_queue_and_are_applied_in_the_order_of_arrival():
    """One outer step after another, however long each takes."""

    async def main():
        group = ServerGroup(("c1", "c2", "c3", "c4"), (1,), slowest=0.0, work=5.0, seed=2)
        group.begin(stars(group.centers, "c1"))
        for name in ("c3", "c1", "c4", "c2"):
            group.offer(name, 0, np.ones(1, np.float32))
            await asyncio.sleep(0.01)
        await asyncio.gather(*(group.whole(name, 0) for name in group.centers))
        assert [center for center, _ in group.order()] == ["c3", "c1", "c4", "c2"]
        times = [event["at"] for event in group.of("applied")]
        assert times == sorted(times)
        assert times[-1] - times[0] > 3.0

    run_virtual(main())


def test_parts_are_given_out_as_they_come_and_held_is_told_once():
    async def main():
        group = ServerGroup(("c1", "c2"), SIZES, slowest=0.01)
        group.begin(stars(group.centers, "c1", "c2", placement=(0, 0, 1)))
        told = []
        group["c2"].watcher = SimpleNamespace(held=told.append)
        first, rest = group["c2"].results(0, range(2)), group["c2"].results(0, range(2, 3))
        group["c2"].offer(0, 2, Contribution(np.ones(2, np.float32), 1.0, 1))
        assert rest.done()
        for chunk in (0, 1):
            group["c2"].offer(0, chunk, Contribution(np.ones(SIZES[chunk], np.float32), 1.0, 1))
        assert not first.done()
        assert told == []
        assert [part.payload.size for part in await first] == [2, 3]
        assert (told, group["c2"].held) == ([0], 0)

    run_virtual(main())


# ---- the staleness bound


@examples(25)
@given(
    bound=st.integers(0, 3), seed=st.integers(0, 10**6),
    roots=st.sampled_from([("c1",), ("c1", "c2", "c3"), ("g1", "g2"), ("c2", "g1")]),
    slow=st.sampled_from(THREE),
)  # fmt: skip
def test_nobody_is_further_ahead_than_the_bound_and_nobody_waits_for_ever(bound, seed, roots, slow):
    servers = [root for root in roots if root not in THREE]
    placement = [at % len(roots) for at in range(3)]
    group = run(
        THREE, stars(THREE, *roots, placement=placement), servers=servers, bound=bound, seed=seed,
        slowest=3.0, pause=0.5, pauses={slow: 20.0}, work=0.5, rounds=6,
    )  # fmt: skip
    ends = {(name, number): at for name, number, at in group.finished}
    assert len(ends) == 3 * 6
    for event in group.of("applied"):
        ahead = event["round"] + bound
        for (_, number), at in ends.items():
            if number > ahead:
                assert at >= event["at"], f"round {number} ended before {event}"


def test_without_a_bound_a_fast_center_waits_for_nobody():
    group = run(("c1", "c2"), stars(("c1", "c2"), "c2"), pauses={"c2": 100.0}, rounds=20)
    times = {(name, number): at for name, number, at in group.finished}
    assert times["c1", 19] < times["c2", 1]


def test_who_makes_no_more_offers_is_not_waited_for():
    async def main():
        group = ServerGroup(("c1", "c2"), (1,), bound=1)
        group.begin(stars(group.centers, "c1"))
        group.launch("c1", 10)
        group.launch("c2", 2)
        await group.all_done()
        assert len(group.parameters["c1"]) == 11

    run_virtual(main())


def test_a_wait_names_whom_the_server_waits_for():
    async def main():
        group = ServerGroup(("c1", "c2"), SIZES, bound=0, slowest=0.01)
        assert group["c1"].missing(0) == "anything of round 0"
        group.begin(stars(group.centers, "c1"))
        group.launch("c1", 2)
        group["c2"].offer(0, 0, Contribution(np.zeros(2, np.float32), 1.0, 1))
        await asyncio.sleep(1)
        assert group["c1"].missing(0) == (
            "parameters of chunk 0 after round 0 from c1, which waits for c2"
        )
        assert group["c2"].missing(0) == "chunk 1 of round 0 from c2"
        for chunk in (1, 2):
            group["c2"].offer(0, chunk, Contribution(np.zeros(SIZES[chunk], np.float32), 1.0, 1))
        assert group["c2"].missing(0) == "parameters of chunk 0 after round 0 from c1"
        await asyncio.sleep(1)
        assert group["c2"].missing(0) == "round 0"
        group.kill("c1", "c2")

    run_virtual(main())


# ---- what is refused


def test_what_makes_no_sense_is_refused_and_logged(caplog):
    async def main():
        caplog.set_level(logging.WARNING, logger="geojax.hips")
        group = ServerGroup(("c1", "c2"), SIZES, slowest=0.01)
        group.begin(stars(group.centers, "c1"))
        group["c1"].handle("c2", forged(chunk=7))
        group["c1"].handle("c9", forged(chunk=0, values=(1.0, 2.0)))
        group["c1"].handle("c9", Message(Kind.OFFER, body={"begin": True}))
        group["c2"].handle("c1", forged(chunk=0, values=(1.0, 2.0)))
        group["c2"].handle("c9", forged(Kind.RESULT))
        group["c1"].handle("c2", forged(Kind.AGGREGATE))
        assert [record.getMessage() for record in caplog.records] == [
            "c1: refused OFFER of chunk 7 of round 0 from c2: no such chunk",
            "c1: refused OFFER of chunk 0 of round 0 from c9: no member",
            "c1: refused OFFER of chunk 0 of round 0 from c9: no member",
            "c2: refused OFFER of chunk 0 of round 0 from c1: not its server",
            "c2: refused RESULT of chunk 0 of round 0 from c9: not its server",
            "c1: refused AGGREGATE of chunk 0 of round 0 from c2: neither a push nor an answer",
        ]
        assert group.order() == []

    run_virtual(main())


# ---- sizes only


def test_payloads_without_content_keep_their_sizes_and_versions():
    async def main():
        group = ServerGroup(("c1", "c2"), SIZES, codec=size_only(), answers=size_only())
        group.begin(stars(group.centers, "c1"))
        for number in range(3):
            for chunk, size in enumerate(SIZES):
                group["c2"].offer(number, chunk, Contribution(SizeOnly(4 * size), 1.0, 1))
            parts = await group["c2"].whole(number)
            assert [part.payload.nbytes for part in parts] == [8, 12, 8]
        assert [event["version"] for event in group.of("applied")] == [1, 2, 3]

    run_virtual(main())
