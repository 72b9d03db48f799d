"""Nodes die, and come back, at any instant: the run ends, in bounded time, and survivors agree."""

import logging
import random

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config

from geojax.hips.cluster import Cluster, NodeSpec

WHOLE_RUN_S = 0.42  # experiment time of the six rounds, when nobody dies
SLOW = {f"pace__{kind}_gbps": 1e-4 for kind in ("encode", "sum", "outer")}  # tens of ms each
# one center per role: c1's server is the root, the others are leaves
NODES = {1: ("c1", "c3"), 2: ("c1", "c2", "c1/w0", "c2/w1")}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def all_nodes(workers):
    centers = ("c1", "c2", "c3")
    if workers == 1:
        return centers
    return centers + tuple(f"{c}/w{w}" for c in centers for w in range(workers))


def survivors(workers, dead):
    cluster = Cluster(
        tuple(
            NodeSpec(name, name.split("/")[0], "worker" if "/" in name else "server")
            for name in all_nodes(workers)
        )
    )
    return [name for name in cluster.survivors(all_nodes(workers), dead) if "/" not in name]


def check(workers, *faults, rounds=6, back=False, **settings):
    config = small_config(
        workers=workers, rounds=rounds, testbed__faults=list(faults), chunk_elements=600, **settings
    )
    outcome = simulated(config)
    left = survivors(workers, [fault["node"] for fault in faults])
    # Who was killed after its own end had reached it may be among the finals too.
    assert set(left) <= set(outcome.finals), (workers, faults)
    assert len(set(outcome.finals.values())) == 1, (workers, faults)
    assert {last for last, _ in outcome.finals.values()} == {rounds - 1}
    last_fault = max(fault["at"] for fault in faults)
    assert outcome.end < last_fault + (2.5 if back else 1.0), (workers, faults)
    return outcome


@pytest.mark.parametrize(
    ("workers", "node"), [(workers, node) for workers, nodes in NODES.items() for node in nodes]
)
def test_whenever_a_node_is_killed_the_others_go_on_and_agree(workers, node):
    for at in np.arange(0.0, WHOLE_RUN_S, 0.06) + 0.0007:
        check(workers, kill(node, float(at)))


@pytest.mark.parametrize("node", ["c1", "c3", "c2/w1", "c1/w0"])
def test_a_change_may_fall_into_any_piece_of_host_work(node):
    """Encoding, sums and outer steps take tens of milliseconds each: a round takes half a second,
    and most of it is work that is under way when the others stop."""
    for at in np.arange(0.0, 1.2, 0.06) + 0.0007:
        check(2, kill(node, float(at)), rounds=3, back=True, **SLOW)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("workers", [1, 2])
def test_whenever_any_node_is_killed_the_others_go_on_and_agree(workers):
    for node in all_nodes(workers):
        for at in np.arange(0.0, WHOLE_RUN_S, 0.005):
            check(workers, kill(node, float(at)))


def two_deaths(seed):
    """Two nodes of different centers or of one, at the same instant or shortly after each other."""
    rng = random.Random(seed)
    workers = rng.choice([1, 2, 3])
    first, second = rng.sample(all_nodes(workers), 2)
    at = rng.uniform(0, WHOLE_RUN_S)
    after = rng.choice([0.0, rng.uniform(0, 0.01), rng.uniform(0, 0.1)])
    return workers, kill(first, at), kill(second, at + after)


@pytest.mark.parametrize("block", range(4))
def test_two_may_die_one_during_the_change_that_the_other_caused(block):
    for seed in range(10 * block, 10 * (block + 1)):
        check(*two_deaths(seed))


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_two_may_die_often():
    for seed in range(1000, 1300):
        check(*two_deaths(seed))


def death_and_return(seed):
    rng = random.Random(seed)
    workers = rng.choice([1, 2])
    node, at = rng.choice(all_nodes(workers)), rng.uniform(0, 0.6 * WHOLE_RUN_S)
    after = rng.choice([0.0, rng.uniform(0, 0.05), rng.uniform(0, 0.3)])
    return workers, kill(node, at), {"at": at + after, "kind": "restart", "node": node}


@pytest.mark.parametrize("block", range(4))
def test_who_comes_back_agrees_with_the_others_at_the_end(block):
    for seed in range(10 * block, 10 * (block + 1)):
        check(*death_and_return(seed), rounds=12, back=True)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_many_come_back():
    for seed in range(1000, 1300):
        check(*death_and_return(seed), rounds=12, back=True)


def trouble(seed):
    """A death, a return and another death, in any order, while host work takes long."""
    rng = random.Random(seed)
    workers = rng.choice([1, 2, 3])
    first, second = rng.sample(all_nodes(workers), 2)
    at = rng.uniform(0, 1.2)
    again = {"at": at + rng.choice([0.0, rng.uniform(0, 0.5)]), "kind": "restart", "node": first}
    return workers, [kill(first, at), again, kill(second, at + rng.uniform(0, 0.3))]


def check_trouble(workers, faults):
    made = small_config(
        rounds=5, workers=workers, testbed__faults=faults, chunk_elements=600, **SLOW
    )
    outcome = simulated(made)
    assert outcome.finals, (workers, faults)
    assert len(set(outcome.finals.values())) == 1, (workers, faults)
    assert {last for last, _ in outcome.finals.values()} == {4}
    assert outcome.end < 6.0, (workers, faults)


@pytest.mark.parametrize("block", range(3))
def test_a_death_a_return_and_another_death(block):
    for seed in range(10 * block, 10 * (block + 1)):
        check_trouble(*trouble(seed))


def test_a_worker_that_came_back_before_the_first_round_is_left_alone():
    faults = [kill("c3/w1", 0.02), {"at": 0.02, "kind": "restart", "node": "c3/w1"}]
    check_trouble(2, [*faults, kill("c3/w0", 0.28)])


def test_who_comes_back_goes_on_where_the_others_do_when_the_sender_of_its_state_dies():
    faults = [kill("c1", 0.1594), {"at": 0.3917, "kind": "restart", "node": "c1"}]
    check_trouble(1, [*faults, kill("c2", 0.432)])


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_much_trouble():
    for seed in range(1000, 1500):
        check_trouble(*trouble(seed))


def test_no_update_of_a_survivor_is_lost_or_counted_twice():
    """With one step a round, the model is a sum of gradients that one can recount.

    Each round's mean is over all three centers, or over the two that are left; nothing else.
    """
    config = small_config()
    numbers = [
        np.random.default_rng((config.seed, worker)).integers(-8, 8, 65_537, endpoint=True)
        for worker in range(3)
    ]
    steps = [
        [own[step : step + 1000].astype(np.float32) for own in numbers] for step in range(6)
    ]  # by round, by center

    def model(rounds_with_c3):
        vector = np.zeros(1000, np.float32)
        for number, (one, two, three) in enumerate(steps):
            with_three = number < rounds_with_c3
            total, count = (one + two + three, 3) if with_three else (one + two, 2)
            vector -= total / np.float32(count)
        return vector

    possible = [model(rounds).tobytes() for rounds in range(7)]
    seen = set()
    for at in np.arange(0.005, WHOLE_RUN_S, 0.013):
        final = simulated(small_config(testbed__faults=[kill("c3", float(at))])).final
        assert final.tobytes() in possible, f"c3 killed at {at} s"
        seen.add(possible.index(final.tobytes()))
    assert seen == set(range(7)), "every round is cut at least once"
