"""A center sends one wrong field in a data message: the others finish alike, or name the liar."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from simulated_runs import simulated, small_config

from geojax.wire.message import Kind
from testbed.simulated.transport import SimulatedTransport

LIAR = "c3"
NAN, INF = float("nan"), float("inf")
RUNS = {
    "star": {},
    "tree": {"overlay__name": "ring"},
    "mixed_sync": {"sync__name": "mixed_sync"},
}
HEADER = {
    "epoch": (-1, 1, 99, 2**31),
    "policy": (-1, 1, 99),
    "round": (-2, 0, 3, 99, 2**31),
    "chunk": (-1, 0, 1, 99),
    "weight": (NAN, INF, -INF, -1.0, 0.0),
    "contributors": (-1, 0, 2**40),
    "group": (1, 7),
    "codec": (3,),
    "kind": (Kind.HELLO, Kind.CONTROL, Kind.RESULT, Kind.AGGREGATE, Kind.LATE, Kind.PROBE),
}
WRONG = (None, "text", [], {}, NAN, INF, -INF, 2**40, -7, True)
BODY = {"loss": ("text", [], {}, NAN, INF), "base": WRONG}


def changed(field, value):
    def change(message):
        if field in BODY:
            return replace(message, body={**(message.body or {}), field: value})
        if field == "payload":
            return replace(message, payload=value)
        return replace(message, **{field: value})

    return change


CASES = [
    *((field, value) for field, values in {**HEADER, **BODY}.items() for value in values),
    ("payload", None),
    ("payload", np.full(300, np.nan, np.float32)),
    ("payload", np.full(300, np.inf, np.float32)),
    ("payload", np.zeros(7, np.uint8)),
]


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


@pytest.fixture
def lying(monkeypatch):
    """``lying(change, always)``: an offer of c3 in round 2 (always: all from there on) is wrong.

    The model has content, as a wrong sum of sizes would not be seen.
    """
    send = SimulatedTransport.send

    def install(change, always):
        told = []

        def wrong(self, peer, message, priority=0):
            if self.name == LIAR and message.kind is Kind.OFFER:
                due = message.round >= 2 if always else message.round == 2 and not told
                if due and message.payload is not None:
                    told.append(message)
                    message = change(message)
            send(self, peer, message, priority)

        monkeypatch.setattr(SimulatedTransport, "send", wrong)
        return told

    return install


def config(**settings):
    return small_config(**{
        "rounds": 6, "model__name": "mlp", "data__name": "digits", "eval_every_s": 100.0,
        "overlay__chunk_elements": 300, "timeouts__dead": 0.5, "timeouts__heartbeat": 0.1,
        "timeouts__round": 60.0, "data__train_samples": 60, "data__test_samples": 10, **settings,
    })  # fmt: skip


def check(outcome, told):
    """Honest centers ended, long before the bound on a round, with the same parameters."""
    assert told, "nothing was changed"
    assert {"c1", "c2"} <= set(outcome.finals)
    assert outcome.end < 20
    honest = {outcome.finals[name] for name in ("c1", "c2")}
    assert {number for number, _ in honest} == {5}
    return honest


@pytest.mark.parametrize(("field", "value"), CASES, ids=lambda v: str(v)[:20].replace("\n", " "))
@pytest.mark.parametrize("run", RUNS)
def test_one_wrong_field_neither_stalls_nor_breaks_the_others(run, field, value, lying):
    told = lying(changed(field, value), always=False)
    outcome = simulated(config(**RUNS[run]))
    honest = check(outcome, told)
    named = {event["peer"] for event in outcome.of("refused")}
    assert named <= {LIAR}
    if run != "mixed_sync":  # there centers end with parameters of their own
        assert len(honest) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("epoch", 99), ("policy", 99), ("weight", INF), ("kind", Kind.AGGREGATE), ("round", 99)],
)
@pytest.mark.parametrize("run", RUNS)
def test_who_goes_on_lying_is_declared_dead_and_the_others_finish(run, field, value, lying):
    told = lying(changed(field, value), always=True)
    outcome = simulated(config(**RUNS[run]), fails=None)
    check(outcome, told)
    assert {event["peer"] for event in outcome.of("refused")} == {LIAR}
    assert [event["nodes"] for event in outcome.of("dead")] == [[LIAR]]
