"""Asynchronous algorithms in the push-pull exchange: they equal their plain loops, and each other.

No network order is assumed: the loops get the order in which pushes came.
"""

import asyncio

import numpy as np
import pytest
from asynchronous_twins import dc_aha_loop, fedasync_loop, fedat_loop, fedbuff_loop
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from server_group import ServerGroup, plain_loop, run_virtual, stars
from simulated_runs import kill, simulated, small_config

from geojax.center.outer import PlainSgd
from geojax.center.spec import VectorSpec
from geojax.errors import ConfigError
from geojax.sync.admission import immediately
from geojax.sync.algorithm import RunFacts, SyncAlgorithm
from geojax.sync.dc_aha import dc_aha
from geojax.sync.fedasync import fedasync
from geojax.sync.fedat import fedat
from geojax.sync.fedbuff import fedbuff
from geojax.sync.fsa import fsa
from geojax.sync.merging import one_by_one
from geojax.sync.mixed_sync import mixed_sync
from geojax.sync.parts import delta_offer, fixed_steps
from geojax.sync.quorum import quorum
from geojax.sync.ssp import ssp
from geojax.sync.staleness import constant, hinge, polynomial

THREE = ("c1", "c2", "c3")
SIZES = (2, 3, 2)
START = np.linspace(-1, 1, 7, dtype=np.float32)
RATE = np.float32(0.3)


def local(center, number, parameters):
    """Local steps: a quarter of the way to a point of the center's own, and a little noise."""
    noise = np.float32(np.random.default_rng([int(center[1:]), number]).normal(scale=0.01))
    return parameters + np.float32(0.25) * (np.float32(int(center[1:])) - parameters) + noise


def delta(center, number, parameters):
    return local(center, number, parameters) - parameters


def run(algorithm, offer, *, rounds=8, seed=3, work=0.0, roots=("c2",), outer=None, slow="c3",
        **options):  # fmt: skip
    async def main():
        group = ServerGroup(
            THREE, SIZES, start=START, algorithm=algorithm, seed=seed, work=work,
            outer=outer or (lambda spec: PlainSgd(1.0, spec)), **options,
        )  # fmt: skip
        group.begin(stars(THREE, *roots, placement=[at % len(roots) for at in range(3)]))
        for name in THREE:
            group.launch(name, rounds, offer, pause=6.0 if name == slow else 1.0)
        await group.all_done()
        return group

    return run_virtual(main())


def staleness(group, chunk=0):
    return [e["staleness"] for e in group.of("applied") if e["chunk"] == chunk]


# ---- they equal their plain loops


@pytest.mark.parametrize(
    ("name", "s"),
    [("constant", constant()), ("polynomial", polynomial(0.5)), ("hinge", hinge(10, 1))],
)
def test_fedasync_equals_its_plain_loop(name, s):
    algorithm = fedasync(steps=1, alpha=0.6, s=name, b=1 if name == "hinge" else None)
    group = run(algorithm, local, work=0.4)
    model, behind = fedasync_loop(group.order(), THREE, START, local, 0.6, s)
    np.testing.assert_array_equal(group.model(), model)
    assert staleness(group) == behind
    assert max(behind) > 2, "the slow center's models are old"


@pytest.mark.parametrize("size", [1, 2, 3])
def test_fedbuff_equals_its_plain_loop(size):
    outer = {"outer": lambda spec: PlainSgd(float(RATE), spec)}
    group = run(fedbuff(steps=1, size=size), delta, **outer)
    assert len(group.order()) == 24 // size * size, "what is left of a buffer is not merged"
    model, behind = fedbuff_loop(group.order(), THREE, START, local, size, polynomial(0.5), RATE)
    np.testing.assert_allclose(group.model(), model, rtol=1e-6, atol=1e-7)
    assert staleness(group) == behind


def test_dc_aha_equals_its_plain_loop():
    made = dc_aha(steps=1)
    assert made.for_run is not None
    algorithm = made.for_run(RunFacts(dict.fromkeys(THREE, 1.0), THREE, 0.05))
    group = run(algorithm, delta, outer=lambda spec: PlainSgd(0.05, spec))
    expected = dc_aha_loop(
        group.order(), THREE, START, local, 2.0, polynomial(0.5), dict.fromkeys(THREE, 1.0),
        0.05, 0.05,
    )  # fmt: skip
    np.testing.assert_allclose(group.model(), expected, rtol=1e-4, atol=1e-5)


def test_fedat_equals_its_plain_loop():
    made = fedat(steps=1, count=2).for_run
    assert made is not None
    algorithm = made(RunFacts({"c1": 0.9, "c2": 1.0, "c3": 0.2}, THREE, 0.1))
    group = run(algorithm, local, work=0.2, rounds=12)
    merges = {}
    for event in group.of("applied"):
        if event["chunk"] == 0:
            merges.setdefault(event["version"], []).append((event["center"], event["round"]))
    tier_of = {"c1": 0, "c2": 0, "c3": 1}
    pairs = [sorted(pushes) for pushes in merges.values() if len(pushes) == 2]
    assert pairs == [[("c1", n), ("c2", n)] for n in range(12)], "a tier waits for its own"
    model = fedat_loop(merges.values(), START, local, tier_of, 2)
    np.testing.assert_allclose(group.model(), model, rtol=1e-5, atol=1e-6)


@examples(15)
@given(
    seed=st.integers(0, 10**6), size=st.integers(1, 3), slow=st.sampled_from(THREE),
    roots=st.sampled_from([("c1",), ("c1", "c2", "c3"), ("c3", "c2")]),
)  # fmt: skip
def test_staleness_is_the_number_of_merges_since_the_parameters_were_sent(seed, size, slow, roots):
    group = run(fedbuff(steps=1, size=size), delta, rounds=6, seed=seed, slow=slow, roots=roots)
    for chunk in dict.fromkeys(e["chunk"] for e in group.of("applied")):
        order = group.order(chunk)
        _, behind = fedbuff_loop(order, THREE, START, local, size, constant(), 1.0)
        assert staleness(group, chunk) == behind
        versions = [e["version"] for e in group.of("applied") if e["chunk"] == chunk]
        assert versions == [1 + at // size for at in range(len(versions))]


# ---- they equal each other


def deltas_asgd():
    return SyncAlgorithm(
        "deltas", delta_offer(), fixed_steps(1), immediately(), one_by_one(), "average"
    )


def same(one, two):
    np.testing.assert_array_equal(one.model(), two.model())
    assert one.events == two.events


def test_fedbuff_of_one_is_asgd_on_deltas():
    same(run(fedbuff(steps=1, size=1, s="constant"), delta, work=0.3),
         run(deltas_asgd(), delta, work=0.3))  # fmt: skip


def test_ssp_without_slack_moves_by_the_sums_of_fsa():
    def gradient(center, number, parameters):
        return -delta(center, number, parameters)

    group = run(ssp(s=0), gradient, outer=lambda spec: PlainSgd(0.1, spec), work=0.2)
    barrier, twin = START, PlainSgd(0.1, VectorSpec.of([("w", (7,))]))
    merge = fsa().merge.merge
    for number in range(8):
        total = sum(gradient(center, number, barrier) for center in THREE)
        barrier = twin.apply(barrier, 3 * merge(total, 3.0))
        for center in THREE:
            np.testing.assert_allclose(group.parameters[center][number], barrier, rtol=1e-5)


def test_ssp_is_bounded_mixed_sync():
    bounded = mixed_sync(staleness=2)
    same(run(ssp(s=2), delta, outer=slow_sgd), run(bounded, delta, outer=slow_sgd))


def test_dc_asgd_without_lambda_is_asgd():
    zero = mixed_sync(compensation="constant", lam=0.0)
    same(run(zero, delta, outer=slow_sgd), run(mixed_sync(), delta, outer=slow_sgd))


def slow_sgd(spec):
    return PlainSgd(0.1, spec)


def test_dc_aha_without_lambda_and_weighting_is_mixed_sync_on_deltas():
    made = dc_aha(steps=1, lam=0.0, s="constant").for_run
    assert made is not None
    algorithm = made(RunFacts({}, THREE, 1.0))
    same(run(algorithm, delta), run(deltas_asgd(), delta))


def test_dc_aha_of_one_step_is_dc_asgd():
    """One worker in a center; of one plain step the pseudo-gradient is the gradient."""
    made = dc_aha(steps=1, s="constant").for_run
    assert made is not None
    algorithm = made(RunFacts({}, THREE, 0.5))

    def gradient(center, number, parameters):
        return -delta(center, number, parameters)

    def step(center, number, parameters):
        return -np.float32(0.5) * gradient(center, number, parameters)

    one = run(algorithm, step, outer=slow_sgd)
    two = run(mixed_sync(compensation="adaptive"), gradient, outer=slow_sgd)
    np.testing.assert_allclose(one.model(), two.model(), rtol=1e-5, atol=1e-6)


# ---- a quorum with grace


def of_quorum(size, grace, margin=None):
    return quorum(steps=1, size=size, grace=grace, margin=margin)


@pytest.mark.parametrize(("grace", "margin"), [(0.0, None), (5.0, 0.1)])
def test_a_quorum_of_all_is_the_barrier(grace, margin):
    group = run(of_quorum(3, grace, margin), delta, work=0.3)
    barrier = START
    for number in range(8):
        deltas = [delta(center, number, barrier) for center in THREE]
        barrier = barrier + np.mean(deltas, axis=0, dtype=np.float32)
        for center in THREE:
            np.testing.assert_allclose(
                group.parameters[center][number], barrier, rtol=1e-5, atol=1e-6
            )
    assert set(staleness(group)) == {0}


def test_whoever_comes_within_the_grace_is_in_the_merge_and_nobody_waits_for_who_does_not():
    async def main():
        group = ServerGroup(THREE, (1,), algorithm=of_quorum(1, 5.0), slowest=0.0)
        group.begin(stars(THREE, "c1"))
        for name, pause in (("c1", 1.0), ("c2", 3.0), ("c3", 2.0)):
            group.offer(name, 0, np.ones(1, np.float32))
            await asyncio.sleep(pause)
        return group, await asyncio.gather(group.whole("c1", 0), group.whole("c3", 0))

    group, _ = run_virtual(main())
    merges = [(e["center"], e["version"], e["at"]) for e in group.of("applied")]
    # Everyone is there after 4 s, one second before the grace of the first one ends.
    assert merges == [("c1", 1, 4.0), ("c2", 1, 4.0), ("c3", 1, 4.0)]

    async def late():
        group = ServerGroup(THREE, (1,), algorithm=of_quorum(1, 5.0), slowest=0.0)
        group.begin(stars(THREE, "c1"))
        group.offer("c2", 0, np.ones(1, np.float32))
        await group.whole("c2", 0)
        return group

    assert [(e["center"], e["at"]) for e in run_virtual(late()).of("applied")] == [("c2", 5.0)]


def test_a_wide_margin_is_the_fixed_grace_and_a_narrow_one_merges_sooner():
    fixed = run(of_quorum(1, 0.5), delta, work=0.3)
    same(run(of_quorum(1, 0.5, 1e9), delta, work=0.3), fixed)
    narrow = run(of_quorum(1, 0.5, 1e-9), delta, work=0.3)
    first = {e["at"] for e in fixed.of("applied") if e["version"] == 1}
    assert {e["at"] for e in narrow.of("applied") if e["version"] == 1} == first, "not measured yet"
    assert narrow.of("applied")[-1]["version"] > fixed.of("applied")[-1]["version"]


# ---- membership


def test_what_a_buffer_holds_survives_a_change_of_the_membership_and_counts_once():
    async def main():
        group = ServerGroup(THREE, SIZES, start=START, algorithm=fedbuff(steps=1, size=3))
        group.begin(stars(THREE, "c1"))
        for name in ("c1", "c2"):
            group.launch(name, 1, delta)
        await group.all_done()  # both are answered, and wait in the buffer
        assert group.of("applied") == []
        group.kill("c3")
        group.change()
        await asyncio.sleep(10)
        group.launch("c2", 2, delta, first=1)
        await group.all_done()
        return group

    group = run_virtual(main())
    assert sorted(group.order()) == [("c1", 0), ("c2", 0), ("c2", 1)]


@pytest.mark.parametrize("seed", range(4))
def test_a_center_that_dies_and_returns_takes_part_again(seed):
    async def main():
        group = ServerGroup(
            THREE, SIZES, start=START, algorithm=fedbuff(steps=1, size=2), seed=seed, work=0.2
        )
        group.begin(stars(THREE, "c1"))
        for name in THREE:
            group.launch(name, 12, delta, pause=1.0 if name == "c3" else 4.0)
        await asyncio.sleep(8)
        group.kill("c3")
        group.change()
        await asyncio.sleep(6)
        group.change(back=("c3",), rounds=12, gradient=delta)
        await asyncio.sleep(4)
        await group.all_done()
        return group

    group = run_virtual(main())
    merged = group.order()
    assert len(set(merged)) >= len(merged) - 12, "only rounds that c3 has again come twice"
    assert [n for c, n in merged if c == "c2"] == sorted({n for c, n in merged if c == "c2"})
    assert max(n for c, n in merged if c == "c3") >= 10


# ---- whole runs

ROWS = {
    "ssp": {"sync__name": "ssp", "sync__s": 1},
    "fedasync": {"sync__name": "fedasync", "sync__local_steps": 3},
    "fedbuff": {"sync__name": "fedbuff", "sync__local_steps": 3},
    "async_diloco": {"sync__name": "async_diloco", "sync__local_steps": 3},
    "fedat": {"sync__name": "fedat", "sync__local_steps": 3, "pace__centers": {"c3": 3.0}},
    "quorum": {"sync__name": "quorum", "sync__local_steps": 3, "sync__grace_s": 0.01},
    "quorum, adaptive": {
        "sync__name": "quorum", "sync__local_steps": 3, "sync__grace_s": 0.1, "sync__margin": 0.5,
    },
    "dc_aha": {"sync__name": "dc_aha", "sync__local_steps": 3},
}  # fmt: skip


@pytest.mark.parametrize("overlay", ["star", "sharded_star"])
@pytest.mark.parametrize("name", ROWS)
def test_chunk_events_under_faults_are_the_same_on_replay(name, overlay, caplog):
    caplog.set_level("CRITICAL", logger="geojax")
    faults = [kill("c1", 0.2), {"at": 0.9, "kind": "restart", "node": "c1"}]
    settings = {"rounds": 10, "events": "chunk", "overlay__name": overlay, "timeouts__dead": 0.3,
                "timeouts__heartbeat": 0.05, "testbed__faults": faults}  # fmt: skip
    one, two = (simulated(small_config(**ROWS[name], **settings)) for _ in range(2))
    assert one.lines() == two.lines()
    assert set(one.finals) >= {"c2", "c3"}
    assert {event["event"] for event in one.events} >= {"applied", "result"}


def test_dylu_gives_each_worker_the_steps_that_its_pace_allows():
    outcome = simulated(
        small_config(
            sync__name="async_diloco", sync__local_steps=8, rounds=3,
            pace__centers={"c2": 2.0, "c3": 20.0},
        )
    )  # fmt: skip
    steps = {
        name: len([span for span in outcome.spans[name] if span.name == "compute"])
        for name in THREE
    }
    assert steps == {"c1": 24, "c2": 12, "c3": 3}


# ---- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"sync__name": "fedbuff", "sync__buffer": 4},
            r"sync\.buffer = 4: wan=three_centers has 3 centers, .*sync=fedbuff.*sync\.buffer=3",
        ),
        ({"sync__name": "quorum", "sync__quorum": 4}, r"sync\.quorum = 4: .*sync\.quorum=3"),
        ({"sync__name": "fedat", "sync__tiers": 4}, r"sync\.tiers = 4: .*sync\.tiers=3"),
        (
            {"sync__name": "fedasync", "compression__name": "bisparse"},
            r"compression\.name = 'bisparse': sync=fedasync offers parameters, .*"
            r"compression=fp16 with sync=fedasync, or sync=fedbuff with compression=bisparse",
        ),
        (
            {"sync__name": "fedasync", "compression__name": "dgt"},
            r"compression\.name = 'dgt': a push .*sync=fsa with it, or compression=fp16",
        ),
        (
            {"sync__name": "fedasync", "outer_optimizer__name": "adam"},
            r"outer_optimizer\.name = 'adam': sync=fedasync mixes .*outer_optimizer=auto",
        ),
        (
            {"sync__name": "fedasync", "overlay__name": "ring"},
            r"overlay\.name = 'ring': sync=fedasync has global servers; use overlay=star",
        ),
        ({"sync__name": "fedasync", "sync__s": "constant", "sync__a": 1.0}, r"sync\.a = 1\.0: set"),
        ({"sync__name": "fedbuff", "sync__b": 1}, r"sync\.b = 1: set sync\.s to hinge"),
        ({"sync__name": "fedasync", "sync__alpha": 1.5}, r"sync\.alpha = 1\.5: .*at most 1"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(settings, message):
    with pytest.raises(ConfigError, match=message):
        simulated(small_config(**settings))


def test_the_plain_loop_of_the_push_pull_exchange_knows_deltas_too():
    """The loop of :mod:`server_group`, which counts no staleness, says the same of deltas."""
    group = run(deltas_asgd(), delta)
    twin = PlainSgd(1.0, VectorSpec.of([("w", (7,))]))

    def negative(center, number, parameters):
        return -delta(center, number, parameters)

    model, _ = plain_loop(group.order(), THREE, START, negative, twin.apply)
    np.testing.assert_array_equal(group.model(), model)
