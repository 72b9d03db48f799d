"""A member sends one wrong field in a data message: the others finish alike, and name no other."""

import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest
from simulated_runs import simulated, small_config

from geojax.hips.storage.checkpoint import packed_state
from geojax.wire.message import ROUTED, Kind
from testbed.simulated.transport import SimulatedTransport

THREE, LIAR = ("c1", "c2", "c3"), "c3"
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
    "weight": (NAN, INF, -INF, -1.0, 0.0, 0.5, 1.5, 1000.0),
    "contributors": (-1, 0, 4, 2**40),
    "steps": (-1, 0, 4, 99, 2**31, 2**40),
    "group": (1, 7),
    "codec": (3,),
    "kind": (Kind.HELLO, Kind.CONTROL, Kind.RESULT, Kind.AGGREGATE, Kind.LATE, Kind.PROBE),
}
WRONG = (None, "text", [], {}, NAN, INF, -INF, 2**40, -7, True)
BODY = {"loss": ("text", [], {}, NAN, INF), "base": WRONG}


def changed(field, value):
    def change(message):
        if hasattr(message, field):
            return replace(message, **{field: value})
        return replace(message, body={**(message.body or {}), field: value})

    return change


CASES = [
    *((field, value) for field, values in {**HEADER, **BODY}.items() for value in values),
    ("payload", None),
    ("payload", np.full(1000, np.nan, np.float32)),
    ("payload", np.full(1000, np.inf, np.float32)),
    ("payload", np.zeros(7, np.uint8)),
]


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


@pytest.fixture
def lying(monkeypatch):
    """``lying(change, always)``: a message of the liar from round 2 on (always: all) is wrong.

    The model has content, as a wrong sum of sizes would not be seen.
    """
    send = SimulatedTransport.send

    def install(change, always, *, liar=LIAR, kind=Kind.OFFER, since=2, epoch=0):
        told = []

        def wrong(self, peer, message, priority=0):
            mine = self.name == liar and message.kind is kind and message.round >= since
            mine = mine and message.epoch >= epoch
            if mine and message.payload is not None and (always or not told):
                told.append(message)
                message = change(message)
            send(self, peer, message, priority)

        monkeypatch.setattr(SimulatedTransport, "send", wrong)
        return told

    return install


def config(**settings):
    return small_config(**{
        "rounds": 5, "model__name": "mlp", "data__name": "digits", "eval_every_s": 100.0,
        "overlay__chunk_elements": 1000, "timeouts__dead": 0.5, "timeouts__heartbeat": 0.1,
        "timeouts__round": 60.0, "data__train_samples": 60, "data__test_samples": 10, **settings,
    })  # fmt: skip


def untrained(**settings):
    """The same of a model that costs nothing to train; its gradients are whole numbers."""
    return small_config(**{
        "rounds": 5, "elements": 2500, "chunk_elements": 1000, "timeouts__dead": 0.5,
        "timeouts__heartbeat": 0.1, "timeouts__round": 60.0, **settings,
    })  # fmt: skip


def config_for(field):
    """An untrained model has no loss; all else is the same with it, at half the cost."""
    return config if field == "loss" else untrained


def check(outcome, told, liar=LIAR):
    """Honest centers ended, long before the bound on a round, with the same parameters."""
    assert told, "nothing was changed"
    names = {"c1", "c2", "c3"} - {liar}
    assert names <= set(outcome.finals)
    assert outcome.end < 20
    honest = {outcome.finals[name] for name in names}
    assert {number for number, _ in honest} == {4}
    return honest


@pytest.mark.parametrize(("field", "value"), CASES, ids=lambda v: str(v)[:20].replace("\n", " "))
@pytest.mark.parametrize("run", RUNS)
def test_one_wrong_field_neither_stalls_nor_breaks_the_others(run, field, value, lying):
    told = lying(changed(field, value), always=False)
    outcome = simulated(config_for(field)(**RUNS[run]))
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
    outcome = simulated(untrained(**RUNS[run]), fails=None)
    check(outcome, told)
    assert outcome.accused == {LIAR}
    assert [event["nodes"] for event in outcome.of("dead")] == [[LIAR]]


EXTERNAL = {"wan__server_center": "external", "wan__external": {"rate": 50, "rtt": 30}}
BACK = {
    "testbed__faults": [
        {"at": 0.06, "kind": "kill", "node": "c3"},
        {"at": 0.08, "kind": "restart", "node": "c3"},
    ]
}
LIARS = {  # by what is sent: who lies, in which run, since which round
    "RESULT of the root": ("c1", Kind.RESULT, {}, 2),
    "RESULT of an inner node": ("c2", Kind.RESULT, {"overlay__name": "ring"}, 2),
    "OFFER of an inner node": ("c2", Kind.OFFER, {"overlay__name": "ring"}, 2),
    "RESULT of a global server": ("external", Kind.RESULT, EXTERNAL, 2),
    "RESULT of a root with parameters": ("c1", Kind.RESULT, {"sync__name": "mixed_sync"}, 2),
    "RESULT of a server with parameters": (
        "external", Kind.RESULT, {**EXTERNAL, "sync__name": "mixed_sync"}, 2,
    ),
    "AGGREGATE": ("c1", Kind.AGGREGATE, BACK, 0),
    "STATE": ("c1", Kind.STATE, BACK, 0),
    "LATE": ("c3", Kind.LATE, {"compression__name": "dgt"}, 2),
}  # fmt: skip
ANSWER = {"version": WRONG, "applied": (*WRONG, {"c1": "text"}, {"c1": -7}, {3: 1})}
PARTS = {"part": ("text", [], {}, NAN, -7, True)}
OF_KIND = {"RESULT of a root with parameters": ANSWER, "LATE": PARTS}
FEW = {
    "epoch": 99, "policy": 99, "round": 3, "chunk": 1, "weight": NAN, "contributors": 0,
    "steps": 99, "group": 7, "codec": 3, "kind": Kind.PROBE, "loss": INF, "payload": None,
}  # fmt: skip


def cases_of(what, cases):
    own = [(field, value) for field, values in OF_KIND.get(what, {}).items() for value in values]
    kind = LIARS[what][1]
    cases = [case for case in cases if case[1] is not kind]
    return [(what, *case) for case in [*cases, *own]]


def lie(what, field, value, lying):
    liar, kind, settings, since = LIARS[what]
    told = lying(changed(field, value), always=False, liar=liar, kind=kind, since=since)
    outcome = simulated(config_for(field)(**settings))
    honest = check(outcome, told, liar)
    assert outcome.accused <= {liar}
    if "sync__name" not in settings:
        assert len(honest) == 1


@pytest.mark.parametrize(
    ("what", "field", "value"),
    [case for what in LIARS for case in cases_of(what, FEW.items())],
    ids=lambda v: str(v)[:32].replace("\n", " "),
)
def test_whoever_lies_in_whatever_it_sends_neither_stalls_nor_breaks_the_others(
    what, field, value, lying
):
    lie(what, field, value, lying)


@pytest.mark.nightly
@pytest.mark.parametrize("what", LIARS)
def test_every_wrong_field_of_every_message(what, lying):
    for _, field, value in cases_of(what, CASES):
        lie(what, field, value, lying)


OVER = {  # what comes with an epoch that is over: who sends it, and in which run
    "OFFER": ("c2", Kind.OFFER, {}),
    "OFFER of an inner node": ("c2", Kind.OFFER, {"overlay__name": "ring"}),
    "RESULT of the root": ("c1", Kind.RESULT, {}),
    "RESULT of an inner node": ("c2", Kind.RESULT, {"overlay__name": "ring"}),
    "AGGREGATE": ("c1", Kind.AGGREGATE, {}),
    "push": ("c2", Kind.OFFER, {"sync__name": "mixed_sync"}),
    "answer": ("c1", Kind.RESULT, {"sync__name": "mixed_sync"}),
    "OFFER of a worker": ("c2/w1", Kind.OFFER, {"workers": 2}),
    "RESULT of a local server": ("c2", Kind.RESULT, {"workers": 2}),
}
EPOCH = 2  # in which c3 is back
ROUND_S = 20.0  # timeouts.round; nothing may be missing for a fifth of it


def lie_of_an_epoch_that_is_over(what, lying, *, always):
    liar, kind, settings = OVER[what]

    def change(message):
        return replace(message, epoch=message.epoch - 1)

    told = lying(change, always, liar=liar, kind=kind, since=0, epoch=EPOCH * (kind in ROUTED))
    short = {"rounds": 12, "elements": 5000, "timeouts__round": ROUND_S}
    outcome = simulated(untrained(**BACK, **short, **settings), fails=None)
    assert told
    return liar, outcome


@pytest.mark.parametrize("what", OVER)
def test_a_lone_message_of_an_epoch_that_is_over_is_missed_and_sent_again(what, lying):
    """It looks like what was on its way when the epoch changed; its sender is named in the end."""
    liar, outcome = lie_of_an_epoch_that_is_over(what, lying, always=False)
    assert {name: last for name, (last, _) in outcome.finals.items()} == dict.fromkeys(THREE, 11)
    named = {event["peer"] for event in (*outcome.of("owed"), *outcome.of("refused"))}
    late = outcome.end > ROUND_S / 5  # else a death had the same effect before
    assert named == ({liar} if late else set())
    assert late or what == "OFFER of a worker"
    assert [event["nodes"][0] for event in outcome.of("dead")] == ["c3"]
    if "sync__name" not in OVER[what][2]:
        assert len({digest for _, digest in outcome.finals.values()}) == 1


@pytest.mark.parametrize("what", [what for what in OVER if what != "AGGREGATE"])
def test_who_goes_on_sending_of_an_epoch_that_is_over_is_declared_dead(what, lying):
    liar, outcome = lie_of_an_epoch_that_is_over(what, lying, always=True)
    assert outcome.accused == {liar}
    assert liar in outcome.of("dead")[-1]["nodes"]
    assert {*THREE} - {liar} <= set(outcome.finals)
    assert {last for last, _ in outcome.finals.values()} == {11}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Kind.LATE, {"compression__name": "dgt"}),
        (Kind.PROBE, {"overlay__name": "netstorm", "overlay__awareness": "measured"}),
    ],
)
def test_a_chunk_sent_as_a_kind_that_others_may_send_does_not_stall(kind, settings, lying):
    told = lying(changed("kind", kind), always=False)
    outcome = simulated(config(**settings))
    assert len(check(outcome, told)) == 1
    assert outcome.accused == {LIAR}


@pytest.mark.parametrize("value", [*WRONG, [0, 1], [9, 9, 9], [2, 1, 0]], ids=str)
def test_a_malformed_route_does_not_stall(value, lying):
    told = lying(changed("route", value), always=False)
    settings = {"overlay__name": "netstorm", "overlay__auxiliary": "fastest"}
    assert len(check(simulated(untrained(**settings)), told)) == 1


WRONG_STATES = {
    "no state": np.zeros(7, np.uint8),
    "another size": packed_state({"vector": np.zeros(7, np.float32), "outer": []}),
    "no outer state": packed_state({"vector": np.zeros(7, np.float32)}),
    "pickled": np.frombuffer(pickle.dumps([1, 2]), np.uint8),
}


@pytest.mark.parametrize("value", WRONG_STATES.values(), ids=WRONG_STATES)
def test_a_wrong_state_is_refused_and_asked_for_again(value, lying):
    told = lying(changed("payload", value), False, liar="c1", kind=Kind.STATE, since=0)
    outcome = simulated(config(**BACK))
    assert len(check(outcome, told, "c1")) == 1
    (event,) = outcome.of("refused")
    assert (event["node"], event["peer"]) == ("c3", "c1")


def test_who_goes_on_sending_wrong_states_is_declared_dead(lying):
    told = lying(changed("payload", None), True, liar="c1", kind=Kind.STATE, since=0)
    outcome = simulated(config(**BACK), fails=None)
    assert len(check(outcome, told, "c1")) == 1
    assert ["c1"] in [event["nodes"] for event in outcome.of("dead")]


def test_a_state_that_nobody_asked_for_is_refused(lying):
    told = lying(changed("kind", Kind.STATE), False)
    outcome = simulated(config())
    assert len(check(outcome, told)) == 1
    assert outcome.accused == {LIAR}
