"""Deaths and returns closer together than one recovery, in synchronous and asynchronous runs."""

import itertools
import logging

import pytest
from simulated_runs import kill, simulated, small_config

KINDS = ("fsa", "mixed_sync")
# Instants between two events: at once, within the change that the first one caused, while who came
# back is sent the parameters, and just after.
GAPS = (0.0, 0.003, 0.02, 0.05, 0.08, 0.11, 0.16)
ROUNDS = 25


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def restart(node, at):
    return {"at": at, "kind": "restart", "node": node}


def pair(first, second, nodes, gap):
    """Faults so that ``first`` happens to one node at 0.3 s and ``second`` to another a gap later.

    Who returns was killed long enough before that its death is over and done.
    """
    one, other = nodes
    faults = []
    for what, node, at in ((first, one, 0.3), (second, other, 0.3 + gap)):
        if what == "return":
            faults += [kill(node, 0.05 if node == one else 0.06), restart(node, at)]
        else:
            faults.append(kill(node, at))
    return sorted(faults, key=lambda fault: fault["at"])


def check(sync, faults, **settings):
    config = small_config(
        rounds=ROUNDS, sync__name=sync, testbed__faults=faults, wan="full_mesh", **settings
    )
    outcome = simulated(config)
    back = {f["node"] for f in faults if f["kind"] == "restart"}
    dead = {f["node"].split("/")[0] for f in faults} - back
    assert {"c1", "c2", "c3", "c4"} - dead <= set(outcome.finals)
    if sync == "fsa":
        assert len(set(outcome.finals.values())) == 1
    assert {last for last, _ in outcome.finals.values()} == {ROUNDS - 1}
    assert outcome.end < 5.0
    return outcome


@pytest.mark.parametrize("sync", KINDS)
@pytest.mark.parametrize("second", ["kill", "return"])
@pytest.mark.parametrize("first", ["kill", "return"])
def test_two_events_closer_together_than_one_recovery(first, second, sync):
    for gap, nodes in itertools.product(GAPS, [("c1", "c2"), ("c2", "c1"), ("c2", "c3")]):
        check(sync, pair(first, second, nodes, gap))
