"""The conformance table of codecs: one row each, and every row meets every check."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.center.spec import VectorSpec
from geojax.compression.codec import Parted
from geojax.compression.registry import CODECS, build_codec
from geojax.config import CompressionConfig
from geojax.errors import ConfigError

LAYERS = [
    ("dense/kernel", (40, 25)),
    ("dense/bias", (25,)),
    ("out/kernel", (25, 10)),
    ("out/b", (3,)),
]
SPEC = VectorSpec.of(LAYERS)
CHUNK = 300


class Row(NamedTuple):
    """A codec, and what it promises beyond what all promise.

    Attributes:
      config: chooses it.
      lossless: decode(encode(x)) is x, bit for bit.
      error: else the largest relative error of one round trip, ‖decoded − x‖ / ‖x‖.
    """

    config: CompressionConfig
    lossless: bool
    error: float = 0.0


def dgt_config(**settings):
    return CompressionConfig(name="dgt", block_bytes=64, **settings)


CODEC_ROWS = {
    "dense": Row(CompressionConfig(name="dense"), lossless=True),
    "dgt": Row(dgt_config(), lossless=False),  # but for the sign of zeros
    "dgt, k = 1": Row(dgt_config(k=1.0), lossless=True),
    "dgt, datagrams": Row(dgt_config(channel="udp"), lossless=False),
    "dgt, coarse": Row(dgt_config(tail="4bit", k=0.5), lossless=False, error=0.1),
}

each_row = pytest.mark.parametrize("row", CODEC_ROWS.values(), ids=CODEC_ROWS.keys())


def vector(seed=0):
    return np.random.default_rng(seed).normal(size=SPEC.size).astype(np.float32)


def ranges():
    return SPEC.chunks(CHUNK)


def fresh(row):
    codec = build_codec(row.config)
    return codec, codec.init(SPEC.layers, ranges())


def encoded(row, values):
    """The payloads as a merge sees them: with their late parts, where they have any."""
    codec, state = fresh(row)
    return [whole(codec, payload) for payload in codec.encode(values, state)[0]]


def whole(codec, payload):
    parts = parts_of(payload)
    return codec.combine(parts) if len(parts) > 1 else parts[0]


def parts_of(payload):
    """The payloads that travel, each on its own."""
    if not isinstance(payload, Parted):
        return [payload]
    return [payload.now, *[payload.late][: payload.late.size], *payload.datagrams]


def as_bytes(payloads):
    return [np.asarray(part).tobytes() for payload in payloads for part in parts_of(payload)]


def received(payload):
    """A payload as the other side of a transport sees it: read-only bytes."""
    copied = np.frombuffer(np.ascontiguousarray(payload).tobytes(), np.uint8)
    assert not copied.flags.writeable
    return copied


# Their payloads have a size and no content, so there is nothing to conform in.
HOLLOW = {"size_only"}


def test_every_registered_codec_has_a_row():
    assert {row.config.name for row in CODEC_ROWS.values()} == set(CODECS) - HOLLOW


@pytest.mark.parametrize("name", sorted(HOLLOW))
def test_a_hollow_payload_has_the_size_of_a_dense_one_and_decodes_to_zeros(name):
    codec = build_codec(CompressionConfig(name=name))
    payloads, _ = codec.encode(vector(), codec.init(SPEC.layers, ranges()))
    like = encoded(CODEC_ROWS["dense"], vector())
    assert [payload.nbytes for payload in payloads] == [payload.nbytes for payload in like]
    assert codec.combine(payloads[:1] * 3).nbytes == payloads[0].nbytes
    assert codec.decode(payloads[0]).tobytes() == np.zeros(CHUNK, np.float32).tobytes()


def test_a_wrong_name_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"compression\.name = 'dence': did you mean 'dense'"):
        build_codec(CompressionConfig(name="dence"))


def test_every_codec_has_a_number_of_its_own_on_the_wire():
    numbers = [build_codec(row.config).wire for row in CODEC_ROWS.values()]
    names = [row.config.name for row in CODEC_ROWS.values()]
    assert len(set(zip(numbers, names, strict=True))) == len(set(numbers)) == len(set(names))
    assert all(0 <= number < 256 for number in numbers)


@each_row
def test_it_bears_its_configured_name(row):
    assert build_codec(row.config).name == row.config.name


@each_row
def test_there_is_one_payload_per_chunk_and_it_decodes_to_the_chunks_size(row):
    codec, _ = fresh(row)
    payloads = encoded(row, vector())
    assert len(payloads) == len(ranges())
    for payload, (start, stop) in zip(payloads, ranges(), strict=True):
        decoded = codec.decode(payload)
        assert (decoded.dtype, decoded.shape) == (np.float32, (stop - start,))


@each_row
@given(seed=st.integers(0, 2**32))
def test_a_round_trip_keeps_what_the_row_promises(row, seed):
    codec, _ = fresh(row)
    values = vector(seed)
    decoded = np.concatenate([codec.decode(payload) for payload in encoded(row, values)])
    if row.lossless:
        assert decoded.tobytes() == values.tobytes()
    else:
        error = np.linalg.norm(decoded - values) / np.linalg.norm(values)
        assert error <= row.error


@each_row
def test_lossless_codecs_keep_the_rarest_floats(row):
    if not row.lossless:
        pytest.skip("a lossy codec")
    codec, _ = fresh(row)
    values = vector()
    tiny = np.float32(1e-45)
    values[:7] = [0.0, -0.0, np.inf, -np.inf, np.nan, tiny, np.finfo(np.float32).max]
    decoded = np.concatenate([codec.decode(payload) for payload in encoded(row, values)])
    assert decoded.tobytes() == values.tobytes()


@each_row
def test_a_payload_stands_for_itself(row):
    """It is decoded from its bytes alone, by a codec that has seen nothing else."""
    codec, state = fresh(row)
    for payload in itertools.chain(*map(parts_of, codec.encode(vector(), state)[0])):
        stranger = build_codec(row.config)
        assert stranger.decode(received(payload)).tobytes() == codec.decode(payload).tobytes()


@each_row
def test_encode_is_pure(row):
    codec, state = fresh(row)
    values = vector()
    before = values.copy()
    first, first_state = codec.encode(values, state)
    once = as_bytes(first)
    codec.encode(vector(1), state)
    again, again_state = codec.encode(values, state)
    assert values.tobytes() == before.tobytes()
    assert as_bytes(again) == once == as_bytes(first)
    assert repr(first_state) == repr(again_state)


@each_row
def test_decode_and_combine_leave_their_payloads_alone(row):
    codec, _ = fresh(row)
    payloads = [encoded(row, vector(seed))[0] for seed in range(3)]
    before = as_bytes(payloads)
    total = codec.combine(payloads)
    np.multiply(codec.decode(total), 2.0)
    assert as_bytes(payloads) == before
    assert not any(np.shares_memory(total, payload) for payload in payloads)


@each_row
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_combine_is_the_float32_sum_of_the_decoded_in_the_given_order(row, count):
    codec, _ = fresh(row)
    vectors = [vector(seed) * np.float32(10.0**seed) for seed in range(count)]
    for chunk in range(len(ranges())):
        payloads = [encoded(row, values)[chunk] for values in vectors]
        expected = codec.decode(payloads[0]).copy()
        for payload in payloads[1:]:
            expected = expected + codec.decode(payload)
        combined = codec.decode(codec.combine(payloads))
        if codec.exact_combine:
            assert combined.tobytes() == expected.tobytes()
        else:
            np.testing.assert_allclose(combined, expected, rtol=max(row.error, 1e-6))


@each_row
def test_the_order_of_addition_is_kept(row):
    codec, _ = fresh(row)
    ones = np.ones(SPEC.size, np.float32)
    large = [encoded(row, ones * np.float32(factor))[0] for factor in (1e8, 1.0, -1e8)]
    in_order = codec.decode(codec.combine(large))
    other = codec.decode(codec.combine([large[0], large[2], large[1]]))
    if row.lossless:
        assert set(in_order) == {0.0}
        assert set(other) == {1.0}


@each_row
def test_combine_takes_what_a_transport_delivers(row):
    codec, _ = fresh(row)
    payloads = [encoded(row, vector(seed))[0] for seed in range(3)]
    assert (
        np.asarray(codec.combine([received(payload) for payload in payloads])).tobytes()
        == np.asarray(codec.combine(payloads)).tobytes()
    )


@each_row
def test_sums_of_sums_equal_the_sum_where_combine_is_exact(row):
    """What a deep tree does; on integers, so that the order does not matter."""
    codec, _ = fresh(row)
    if not codec.exact_combine:
        pytest.skip("refused on deep trees")
    whole = [np.round(vector(seed) * 100) for seed in range(4)]
    payloads = [encoded(row, values.astype(np.float32))[1] for values in whole]
    deep = codec.combine([codec.combine(payloads[:2]), codec.combine(payloads[2:])])
    flat = codec.combine(payloads)
    assert codec.decode(deep).tobytes() == codec.decode(flat).tobytes()


@each_row
def test_the_same_input_gives_the_same_bytes_in_a_fresh_codec(row):
    assert as_bytes(encoded(row, vector())) == as_bytes(encoded(row, vector()))
