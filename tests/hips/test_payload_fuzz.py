"""A member sends damaged values, in every codec: they are refused by name, and nobody else notices.

``make test`` takes a part of the damages, a different one for each codec; ``make nightly`` all.
"""

import logging
from dataclasses import replace

import numpy as np
import pytest
from simulated_runs import simulated, small_config

from geojax.wire.message import Kind
from testbed.simulated.transport import SimulatedTransport

THREE = ("c1", "c2", "c3")
CODECS = (
    "dense",
    "fp16",
    "bf16",
    "bisparse",
    "mpq",
    "twobit",
    "topk2bit",
    "e3m0",
    "dgt",
    "int8",
    "int4",
)
RANDOM = np.random.default_rng(5)


def with_front(byte, count):
    def damage(payload):
        damaged = payload.copy()
        damaged[:count] = byte
        return damaged

    return damage


def again(times):
    return lambda payload: np.tile(payload, times)


DAMAGES = {  # of the payload's bytes
    "none": lambda payload: None,
    "no bytes": lambda payload: payload[:0],
    "a byte short": lambda payload: payload[:-1],
    "a number short": lambda payload: payload[:-4],
    "half": lambda payload: payload[: payload.size // 2],
    "a byte more": lambda payload: np.append(payload, np.uint8(0)),
    "a number more": lambda payload: np.append(payload, np.zeros(4, np.uint8)),
    "twice": again(2),
    "a hundred times": again(100),
    "not a number": with_front(255, None),
    "a huge claim": with_front(255, 4),
    "huge claims": with_front(255, 64),
    "as float64": lambda payload: np.arange(payload.size, dtype=np.float64).view(np.uint8),
    "as text": lambda payload: np.frombuffer(b"text" * 3, np.uint8),
}
TAKEN = {  # bytes that may be values: the sum is another one, but finite, and the same everywhere
    "an empty claim": with_front(0, 64),
    "others": lambda payload: RANDOM.integers(0, 256, payload.size, np.uint8),
}
BACK = {
    "testbed__faults": [
        {"at": 0.06, "kind": "kill", "node": "c3"},
        {"at": 0.3, "kind": "restart", "node": "c3"},
    ],
    "rounds": 12,
}
SENDERS = {  # who lies, of what, in which run
    "offer": ("c3", Kind.OFFER, {}),
    "sum": ("c2", Kind.OFFER, {"overlay__name": "ring"}),
    "result": ("c1", Kind.RESULT, {}),
    "aggregate": ("c1", Kind.AGGREGATE, BACK),
    "push": ("c3", Kind.OFFER, {"sync__name": "mixed_sync"}),
    "answer": ("c1", Kind.RESULT, {"sync__name": "mixed_sync"}),
}
TREES = ("offer", "sum", "result", "aggregate")  # dgt is of these alone
LATE = {
    "late": ("c3", Kind.LATE, {}),
    "datagram": ("c3", Kind.LATE, {"compression__channel": "udp"}),
}
ROWS = [
    *((codec, what) for codec in CODECS for what in SENDERS if codec != "dgt" or what in TREES),
    *(("dgt", what) for what in LATE),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def run(monkeypatch, codec, what, damage):
    """One message is damaged, of round 1 or later if there is one; returns liar and outcome."""
    liar, kind, settings = {**SENDERS, **LATE}[what]
    told, since = [], int(kind is not Kind.AGGREGATE)
    blocks = {"compression__block_bytes": 64} if codec == "dgt" else {}

    def damaged(message):
        told.append(message)
        payload = damage(np.ascontiguousarray(message.payload).reshape(-1).view(np.uint8))
        return replace(message, payload=payload)

    def sending(send):
        def lying(self, peer, message, priority=0):
            mine = self.name == liar and message.kind is kind and message.round >= since
            if mine and message.payload is not None and not told:
                message = damaged(message)
            send(self, peer, message, priority)

        return lying

    config = small_config(**{
        "rounds": 4, "model__name": "mlp", "model__hidden": [8], "data__name": "digits",
        "data__train_samples": 60, "data__test_samples": 10, "eval_every_s": 100.0,
        "overlay__chunk_elements": 400, "timeouts__dead": 0.5, "timeouts__heartbeat": 0.1,
        "timeouts__round": 60.0, "compression__name": codec, **blocks, **settings,
    })  # fmt: skip
    with monkeypatch.context() as patch:
        for name in ("send", "send_datagram"):
            patch.setattr(SimulatedTransport, name, sending(getattr(SimulatedTransport, name)))
        outcome = simulated(config)
    assert told, "nothing was changed"
    return liar, outcome


def check(monkeypatch, codec, what, name):
    liar, outcome = run(monkeypatch, codec, what, {**DAMAGES, **TAKEN}[name])
    where = (codec, what, name)
    assert outcome.finals.keys() == {*THREE}, where
    assert len({last for last, _ in outcome.finals.values()}) == 1, where
    assert outcome.end < 20, where
    assert np.isfinite(outcome.final).all(), where
    named = {event["peer"] for event in outcome.of("refused")}
    assert named == {liar} if name in DAMAGES else named <= {liar}, where
    if {**SENDERS, **LATE}[what][2].get("sync__name") is None and name in DAMAGES:
        assert len({digest for _, digest in outcome.finals.values()}) == 1, where


@pytest.mark.parametrize(("codec", "what"), ROWS)
def test_damaged_values_are_refused_by_name(codec, what, monkeypatch):
    names, every = [*DAMAGES], len(DAMAGES)
    first = (3 * CODECS.index(codec) + 5 * [*SENDERS, *LATE].index(what)) % every
    for name in names[first::every]:
        check(monkeypatch, codec, what, name)


@pytest.mark.nightly
@pytest.mark.parametrize(("codec", "what"), ROWS)
def test_all_damages_of_values(codec, what, monkeypatch):
    for name in DAMAGES:
        check(monkeypatch, codec, what, name)
    if what in ("offer", "push", "sum"):
        for name in TAKEN:
            check(monkeypatch, codec, what, name)
