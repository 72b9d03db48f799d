"""Payloads that no sum could take are refused where they arrive, by both kinds of exchange."""

import asyncio
import logging
from dataclasses import replace

import numpy as np
import pytest
from exchange_group import Group, forged, run_virtual, star_policy
from server_group import ServerGroup, stars

from geojax.center.spec import VectorSpec
from geojax.compression.bisparse import bisparse
from geojax.compression.dense import dense
from geojax.compression.size_only import size_only
from geojax.hips.exchange.contribution import Contribution, received
from geojax.hollow import SizeOnly
from geojax.wire.message import Kind

SIZE = 200
ONES = np.ones(SIZE, np.float32)


def sparse_payload(codec):
    spec = VectorSpec.of([("w", (SIZE,))])
    values = np.arange(SIZE, dtype=np.float32)
    (payload,), _ = codec.encode(values, codec.init(spec.layers, [(0, SIZE)]))
    return payload


def damaged_within():
    """A sparse payload of the right size, one of whose positions lies beyond the chunk."""
    codec = bisparse(ratio=0.02, bound=10)
    payload = sparse_payload(codec)
    payload[-1] = 254
    return codec, replace(forged(), payload=payload, codec=codec.wire)


def of(payload, **fields):
    return replace(forged(), payload=payload, **fields)


BAD = {
    "no payload": (dense(), of(None), "no payload"),
    "half a number": (dense(), of(np.zeros(7, np.uint8)), "dense payload: expected a multiple"),
    "a short chunk": (dense(), of(ONES[1:]), "expected 200 elements, came 199"),
    "a long chunk": (dense(), of(np.ones(201, np.float32)), "expected 200 elements, came 201"),
    "another codec": (dense(), of(ONES, codec=3), "expected a payload of codec 0, came one of 3"),
    "a wrong position": (*damaged_within(), "bisparse payload: positions: expected them"),
    "a wrong size alone": (size_only(), of(SizeOnly(804)), "expected 200 elements, came 201"),
}

each_bad = pytest.mark.parametrize(("codec", "message", "why"), BAD.values(), ids=BAD.keys())


@pytest.fixture(autouse=True)
def _warnings_only(caplog):
    caplog.set_level(logging.WARNING, logger="geojax.hips")


def good(codec):
    """A payload that each of these codecs takes."""
    if codec.name == "bisparse":
        return sparse_payload(codec)
    return SizeOnly(4 * SIZE) if codec.name == "size_only" else ONES


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


@each_bad
@pytest.mark.parametrize("kind", [Kind.OFFER, Kind.LATE])
def test_a_bad_offer_is_not_summed_and_the_round_waits_for_a_good_one(
    kind, codec, message, why, caplog
):
    async def main():
        group = Group(("c1", "c2"), (SIZE,), slowest=0.01, codec=codec)
        group.start(star_policy(group.members))
        counts = {"weight": 0.0, "contributors": 0} if kind is Kind.LATE else {}
        group["c1"].handle("c2", replace(message, kind=kind, **counts))
        assert f"c1: refused {kind.name} of chunk 0 of round 0 from c2: " in caplog.text
        assert why in caplog.text
        group["c1"].offer(0, 0, Contribution(good(codec), 1.0, 1))
        assert group["c1"].missing(0) == "chunk 0 of round 0 from c2"
        group["c2"].offer(0, 0, Contribution(good(codec), 1.0, 1))
        [[one], [other]] = await asyncio.gather(*(group.whole(name, 0) for name in group.members))
        return one, other

    twice = codec.combine([good(codec)] * 2)
    for result in run_virtual(main()):
        assert codec.decode(result.payload).tobytes() == codec.decode(twice).tobytes()
        assert result.contributors == 2
    assert len(caplog.records) == 1


@each_bad
@pytest.mark.parametrize("kind", [Kind.RESULT, Kind.AGGREGATE])
def test_a_bad_result_is_neither_kept_nor_passed_on(kind, codec, message, why, caplog):
    async def main():
        group = Group(("c1", "c2"), (SIZE,), slowest=0.01, codec=codec)
        group.start(star_policy(group.members))
        group["c2"].handle("c1", replace(message, kind=kind))
        assert f"c2: refused {kind.name} of chunk 0 of round 0 from c1: " in caplog.text
        assert why in caplog.text
        for name in group.members:
            group[name].offer(0, 0, Contribution(good(codec), 1.0, 1))
        await asyncio.gather(*(group.whole(name, 0) for name in group.members))
        return [group.results[name][0][0].payload.nbytes for name in group.members]

    one, other = run_virtual(main())
    assert one == other
    assert len(caplog.records) == 1


@each_bad
def test_a_server_applies_no_bad_push_and_a_center_takes_no_bad_parameters(
    codec, message, why, caplog
):
    async def main():
        answers = dense() if codec.name == "bisparse" else codec
        group = ServerGroup(("c1", "c2"), (SIZE,), slowest=0.01, codec=codec, answers=answers)
        group.begin(stars(group.centers, "c1"))
        group["c1"].handle("c2", message)
        version = {"version": 1, "applied": {"c2": 0}}
        group["c2"].handle("c1", replace(message, kind=Kind.RESULT, body=version))
        said = lines(caplog)
        assert said[0].startswith("c1: refused OFFER of chunk 0 of round 0 from c2: ")
        assert said[1].startswith("c2: refused RESULT of chunk 0 of round 0 from c1: ")
        assert why in said[0]
        assert group.order() == []
        group["c2"].offer(0, 0, Contribution(good(codec), 1.0, 1))
        [result] = await group["c2"].whole(0)
        assert group.order() == [("c2", 0)]
        return answers.decode(result.payload)

    expected = -codec.decode(good(codec))
    np.testing.assert_array_equal(run_virtual(main()), expected)
    assert len(caplog.records) == 2


def test_a_payload_of_its_chunk_is_taken_in_silence(caplog):
    assert received(of(ONES), dense(), SIZE).payload is ONES
    assert received(of(SizeOnly(4 * SIZE)), size_only(), SIZE).payload == SizeOnly(4 * SIZE)
    assert lines(caplog) == []
