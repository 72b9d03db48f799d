"""Runs of every algorithm under drawn faults repeat byte for byte, chunk by chunk.

A center dies and comes back, another one freezes, links lose packets, and steps last unequally
long: all of it drawn from the row's name.
"""

import logging
import zlib

import numpy as np
import pytest
from simulated_runs import kill, simulated
from test_syncs import SYNC_ROWS, config

# Nightly: what has a test of this kind of its own (test_asynchronous, test_async_lan, test_esync),
# and what is older than the family and differs from its other rows by nothing on the wire.
SELDOM = {
    "async_diloco", "dc_aha", "esync", "fedasync", "fedat", "fedbuff", "halos", "quorum", "ssp",
    "fedgs", "fsa", "hfa", "hierfavg",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def drawn_faults(name):
    """A death with a return, and a freeze of somebody else, in the first rounds."""
    draws = np.random.default_rng(zlib.crc32(name.encode()))
    dies, freezes = draws.permutation(["c1", "c2", "c3"])[:2]
    at, stands = draws.uniform(0.05, 0.15, 2)
    return [
        kill(str(dies), float(at)),
        {"at": float(at) + 0.2, "kind": "restart", "node": str(dies)},
        {"at": float(stands), "kind": "freeze", "node": str(freezes), "duration": 0.08},
    ]


def rows():
    for name, row in SYNC_ROWS.items():
        seldom = row.settings["sync__name"] in SELDOM or name.startswith("local_steps")
        yield pytest.param(name, id=name, marks=[pytest.mark.nightly] if seldom else [])


@pytest.mark.parametrize("name", [*rows()])
def test_chunk_events_under_drawn_faults_are_the_same_on_replay(name):
    row, faults = SYNC_ROWS[name], drawn_faults(name)

    def run(**settings):
        made = config(
            row, rounds=8, events="chunk", timeouts__dead=0.15, timeouts__heartbeat=0.03,
            eval_every_s=100.0, testbed__faults=faults, **settings,
        )  # fmt: skip
        made.wan.loss = 0.01
        made.pace.profile = {"kind": "jitter", "distribution": "lognormal", "spread": 0.2}
        return simulated(made)

    one, two = run(), run()
    assert one.lines() == two.lines()
    assert one.final.tobytes() == two.final.tobytes()
    assert {event["kind"] for event in one.of("fault")} == {"kill", "restart", "freeze"}
    assert one.of("dead")
    assert one.of("back")
    assert one.of("result"), "events of chunks"
