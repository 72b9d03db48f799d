"""Deaths and returns closer together than one recovery, in synchronous and asynchronous runs."""

import itertools
import logging

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config

ROUNDS = 70
# Instants between two events: at once, within the change that the first one caused, while who came
# back is sent the parameters, and just after.
GAPS = (0.0, 0.03, 0.06, 0.1, 0.16)
NODES = (("c1", "c2"), ("c2", "c3"))


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def restart(node, at):
    return {"at": at, "kind": "restart", "node": node}


def pair(first, second, nodes, gap):
    """Faults: ``first`` happens to one node at 0.3 s, and ``second`` to another a gap later.

    Who returns was killed so long before that the others have gone on without it.
    """
    faults = []
    for what, node, at in zip((first, second), nodes, (0.3, 0.3 + gap), strict=True):
        before = [kill(node, 0.05)] if what == "return" else []
        faults += [*before, {"at": at, "kind": "restart" if before else "kill", "node": node}]
    return sorted(faults, key=lambda fault: fault["at"])


def check(sync, faults, **settings):
    config = small_config(
        rounds=ROUNDS, sync__name=sync, testbed__faults=faults, chunk_elements=600, **settings
    )
    outcome = simulated(config)
    last = {fault["node"]: fault["kind"] for fault in faults}
    living = {name for name in ("c1", "c2", "c3") if last.get(name) != "kill"}
    assert living <= set(outcome.finals), faults
    assert {last for last, _ in outcome.finals.values()} == {ROUNDS - 1}
    if sync == "fsa":
        assert len(set(outcome.finals.values())) == 1, faults
    assert outcome.end < 8.0, faults
    return outcome


@pytest.mark.parametrize("sync", ["fsa", "mixed_sync"])
@pytest.mark.parametrize("second", ["kill", "return"])
@pytest.mark.parametrize("first", ["kill", "return"])
def test_two_events_closer_together_than_one_recovery(first, second, sync):
    for gap, nodes in itertools.product(GAPS, NODES):
        check(sync, pair(first, second, nodes, gap))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("sync", ["fsa", "mixed_sync"])
def test_two_events_at_any_distance(sync, workers):
    kinds, nodes = ("kill", "return"), itertools.permutations(("c1", "c2", "c3"), 2)
    gaps = np.arange(0.0, 0.3, 0.005 if workers == 1 else 0.015).tolist()
    for first, second, pair_of, gap in itertools.product(kinds, kinds, nodes, gaps):
        check(sync, pair(first, second, pair_of, gap), lan__workers=workers)


@pytest.mark.parametrize("again", [0.02, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("sync", ["fsa", "mixed_sync"])
def test_one_that_comes_back_may_die_and_come_back_again(sync, again):
    faults = [kill("c2", 0.05), restart("c2", 0.3), kill("c2", 0.3 + again)]
    outcome = check(sync, [*faults, restart("c2", 0.3 + 2 * again)])
    assert "c2" in outcome.finals


# ---- the only one that has the parameters dies


def alone_with_the_parameters(gap, **settings):
    """c1 trains alone, c2 comes back, and c1 dies a gap later."""
    faults = [kill("c3", 0.05), kill("c2", 0.06), restart("c2", 0.3), kill("c1", 0.3 + gap)]
    return small_config(rounds=ROUNDS, testbed__faults=faults, **settings)


@pytest.mark.parametrize("sync", ["fsa", "mixed_sync"])
def test_nobody_goes_on_from_initial_values_when_the_parameters_are_lost(sync):
    for gap in (0.05, 0.07, 0.09):
        outcome = simulated(alone_with_the_parameters(gap, sync__name=sync), fails=True)
        assert "the parameters are lost" in str(outcome.error), gap
        assert not outcome.finals
        assert outcome.end < 2.0


def test_who_was_sent_the_parameters_in_time_goes_on_alone():
    outcome = simulated(alone_with_the_parameters(0.3))
    assert set(outcome.finals) == {"c2"}
    assert {last for last, _ in outcome.finals.values()} == {ROUNDS - 1}
