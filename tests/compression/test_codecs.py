"""The conformance table of codecs: one row each, and every row meets every check."""

import contextlib
import io
import itertools
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.center.spec import VectorSpec
from geojax.compression.bisparse import BisparseConfig
from geojax.compression.codec import SplitPayload, restore_state
from geojax.compression.dgt import DgtConfig
from geojax.compression.e3m0 import E3m0Config
from geojax.compression.integers import Int4Config, Int8Config
from geojax.compression.registry import CODECS, build_codec
from geojax.compression.topk2bit import Topk2bitConfig
from geojax.config import CompressionConfig
from geojax.errors import ConfigError, Diverged, FrameError
from geojax.hips.storage.checkpoint import pack, unpack

LAYERS = [
    ("dense/kernel", (40, 25)),
    ("dense/bias", (25,)),
    ("out/kernel", (25, 10)),
    ("out/b", (3,)),
    ("scale", (1,)),
    ("empty", (0,)),
]
SPEC = VectorSpec.of(LAYERS, [("batch_stats/mean", (25,)), ("batch_stats/count", (1,))])
CHUNK = 300


class Row(NamedTuple):
    """A codec, and what it promises beyond what all promise.

    Attributes:
      config: chooses it.
      lossless: decode(encode(x)) is x, bit for bit.
      error: else the largest relative error of one round trip, ‖decoded − x‖ / ‖x‖.
      rounding: largest relative error of a sum; not 0 where sums are encoded again.
    """

    config: CompressionConfig
    lossless: bool
    error: float = 0.0
    rounding: float = 0.0


def sparse(name, **settings):
    return CODECS.settings(name, ratio=0.1, bound=100, **settings)


def dgt_config(**settings):
    return DgtConfig(block_bytes=64, **settings)


HALF = 2.0**-11
ORDER = 2.0**-22  # of float32 sums in another order
CODEC_ROWS = {
    "dense": Row(CompressionConfig(name="dense"), lossless=True),
    "fp16": Row(CompressionConfig(name="fp16"), False, HALF, HALF),
    "bf16": Row(CompressionConfig(name="bf16"), False, 2.0**-8, 2.0**-8),
    "bisparse": Row(sparse("bisparse"), False, 0.9),
    "bisparse exact": Row(sparse("bisparse", exact=True, momentum=0.0), False, 0.9),
    "bisparse of no layer": Row(BisparseConfig(bound=10**6), lossless=True),
    "mpq": Row(sparse("mpq"), False, 0.9, HALF),
    "twobit": Row(CompressionConfig(name="twobit"), False, 0.9),
    "e3m0": Row(E3m0Config(block=64), False, 0.25, ORDER),
    "e3m0, sums of bf16": Row(E3m0Config(sums="bf16"), False, 0.25, 2.0**-8),
    "e3m0, sums of 4 bits": Row(E3m0Config(sums="e3m0", error_feedback=True), False, 0.25, 1.0),
    "int8": Row(Int8Config(block=64), False, 0.01, 1.0),  # of small elements of a block
    "int8, sums of float32": Row(Int8Config(sums="float32"), False, 0.01, ORDER),
    "int4": Row(Int4Config(), False, 0.15, 1.0),
    "int4, sums of int4": Row(Int4Config(sums="int4", error_feedback=False), False, 0.15, 1.0),
    "int4, sums of bf16": Row(Int4Config(block=7, sums="bf16"), False, 0.12, 2.0**-8),
    "topk2bit": Row(Topk2bitConfig(ratio=0.1, block=100), False, 0.95, ORDER),
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
    if not isinstance(payload, SplitPayload):
        return [payload]
    return [payload.now, *[payload.late][: payload.late.size], *payload.datagrams]


def travelling(row, values):
    """The payloads that travel for the first chunk, as the other side sees them."""
    codec, state = fresh(row)
    return list(map(received, parts_of(codec.encode(values, state)[0][0])))


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
    assert codec.elements(payloads[0]) == CHUNK


def test_a_wrong_name_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"compression\.name = 'dence': did you mean 'dense'"):
        build_codec(CompressionConfig(name="dence"))


def test_every_codec_has_a_number_of_its_own_on_the_wire():
    numbers = {
        name: build_codec(CompressionConfig(name=name)).wire for name in set(CODECS) - HOLLOW
    }
    assert len(set(numbers.values())) == len(numbers)
    assert all(0 <= number < 256 for number in numbers.values())


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
def test_every_payload_that_travels_tells_the_chunks_elements(row):
    codec, _ = fresh(row)
    payloads = travelling(row, vector())
    assert [codec.elements(payload) for payload in payloads] == [CHUNK] * len(payloads)
    assert codec.elements(codec.combine(encoded(row, vector())[:1] * 2)) == CHUNK


@each_row
def test_a_codec_says_whether_it_sends_in_parts(row):
    codec, state = fresh(row)
    payloads, _ = codec.encode(vector(), state)
    assert {isinstance(payload, SplitPayload) for payload in payloads} == {codec.splits}


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
    vectors = [vector(seed) * np.float32(2.0**seed) for seed in range(count)]
    for chunk in range(len(ranges())):
        payloads = [encoded(row, values)[chunk] for values in vectors]
        expected = codec.decode(payloads[0]).copy()
        for payload in payloads[1:]:
            expected = expected + codec.decode(payload)
        combined = codec.decode(codec.combine(payloads))
        if row.rounding and count > 1:
            np.testing.assert_allclose(combined, expected, rtol=row.rounding, atol=2.0**-25)
        elif codec.exact_combine:
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
    if row.rounding:
        magnitude = sum(np.abs(codec.decode(payload)) for payload in payloads)
        error = np.abs(codec.decode(deep) - codec.decode(flat))
        assert np.all(error <= 3 * row.rounding * magnitude)
    else:
        assert codec.decode(deep).tobytes() == codec.decode(flat).tobytes()


@each_row
def test_the_same_input_gives_the_same_bytes_in_a_fresh_codec(row):
    assert as_bytes(encoded(row, vector())) == as_bytes(encoded(row, vector()))


@each_row
def test_any_order_and_nesting_of_additions_gives_nearly_the_same(row):
    codec, _ = fresh(row)
    payloads = [encoded(row, vector(seed))[0] for seed in range(3)]
    magnitude = sum(np.abs(codec.decode(payload)) for payload in payloads)
    wanted = codec.decode(codec.combine(payloads))
    for one, two, three in itertools.permutations(payloads):
        for total in (
            codec.combine([one, two, three]),
            codec.combine([one, codec.combine([two, three])]),
        ):
            error = np.abs(codec.decode(total) - wanted)
            assert np.all(error <= (1e-6 + 3 * row.rounding) * magnitude)


@each_row
def test_a_single_payload_passes_through_untouched(row):
    codec, _ = fresh(row)
    payload = received(encoded(row, vector())[0])
    assert codec.combine([payload]) is payload


@each_row
def test_the_state_is_not_modified_and_survives_a_checkpoint(row):
    codec, state = fresh(row)
    _, state = codec.encode(vector(0), state)
    stream = io.BytesIO()
    pack(stream, {"codec": state})
    stream.seek(0)
    restored = restore_state(fresh(row)[1], unpack(stream)["codec"])
    ours, ours_after = codec.encode(vector(1), state)
    theirs, theirs_after = codec.encode(vector(1), restored)
    assert as_bytes(ours) == as_bytes(theirs)
    assert repr(ours_after) == repr(theirs_after)
    again, _ = codec.encode(vector(1), state)
    assert as_bytes(again) == as_bytes(ours)


@each_row
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [layer.name for layer in SPEC.layers if layer.size])
def test_what_is_not_finite_is_sent_or_refused_but_not_hidden(row, name, bad):
    codec, state = fresh(row)
    values = vector()
    layer = next(one for one in SPEC.layers if one.name == name)
    at = layer.stop - 1
    values[at] = bad
    error = None
    try:
        payloads, _ = codec.encode(values, state)
    except Diverged as refused:
        error = refused
    if error is not None:
        assert name in str(error)
        return
    payloads = [whole(codec, payload) for payload in payloads]
    decoded = np.concatenate([codec.decode(payload) for payload in payloads])
    np.testing.assert_equal(decoded[at], np.float32(bad))
    total = codec.decode(codec.combine([payloads[at // CHUNK]] * 2))
    np.testing.assert_equal(total[at % CHUNK], np.float32(bad))


@each_row
@pytest.mark.parametrize(
    ("update", "found"),
    [
        (np.zeros(SPEC.size - 1, np.float32), rf"got float32 of shape \({SPEC.size - 1},\)"),
        (np.zeros(SPEC.size, np.float64), "got float64"),
        (np.zeros(SPEC.size, np.int32), "got int32"),
        (np.zeros((SPEC.size, 1), np.float32), "of shape"),
        (np.zeros(2 * SPEC.size, np.float32)[::2], "strided"),
    ],
)
def test_what_is_no_update_is_refused(row, update, found):
    codec, state = fresh(row)
    with pytest.raises(ValueError, match=f"update: expected .*{found}"):
        codec.encode(update, state)


@each_row
def test_half_a_number_at_the_end_is_refused(row):
    codec, _ = fresh(row)
    for payload in [*travelling(row, vector()), received(encoded(row, vector())[0])]:
        for read in (codec.decode, codec.elements):
            with pytest.raises(FrameError, match=rf"{codec.name} payload"):
                read(payload[:-1])


@each_row
def test_chunks_of_different_sizes_are_not_summed(row):
    codec, _ = fresh(row)
    payloads = encoded(row, vector())
    with pytest.raises(FrameError, match="expected one size"):
        codec.combine([payloads[0], payloads[-1]])


@each_row
@given(data=st.data())
def test_damaged_payloads_are_refused_or_decode_to_something_small(row, data):
    """And ``elements`` refuses whatever could not be decoded or summed."""
    codec, _ = fresh(row)
    intact = received(encoded(row, vector())[0])
    payload = np.array(data.draw(st.sampled_from([*travelling(row, vector()), intact])))
    for _ in range(data.draw(st.integers(1, 3))):
        # Most of what matters is in the first bytes.
        last = data.draw(st.sampled_from([min(40, payload.size), payload.size])) - 1
        payload[data.draw(st.integers(0, last))] = data.draw(st.integers(0, 255))
    payload = payload[: data.draw(st.integers(payload.size - 8, payload.size))]
    try:
        elements = codec.elements(payload)
    except FrameError:
        with contextlib.suppress(FrameError):
            codec.decode(payload)
        return
    assert elements <= 1 << 28
    decoded = codec.decode(payload)
    assert (decoded.dtype, decoded.shape) == (np.float32, (elements,))
    if elements == CHUNK:
        with np.errstate(invalid="ignore"):  # a number may have become a signalling NaN
            assert codec.elements(codec.combine([payload, intact])) == CHUNK


@each_row
def test_a_vector_of_nothing_has_no_payloads(row):
    codec, _ = fresh(row)
    payloads, _ = codec.encode(np.zeros(0, np.float32), codec.init((), ()))
    assert payloads == []


@each_row
def test_a_part_of_a_model_is_a_model(row):
    """As when every layer travels by itself: one layer, from offset 0 on."""
    codec, _ = fresh(row)
    spec = VectorSpec.of([("one", (1,))])
    state = codec.init(spec.layers, spec.chunks(CHUNK))
    (payload,), _ = codec.encode(np.array([0.5], np.float32), state)
    error = (
        row.error if row.config.name in ("int8", "int4") else 0.0
    )  # 0.5 is no multiple of theirs
    np.testing.assert_allclose(codec.decode(whole(codec, payload)), [0.5], rtol=error)


@each_row
def test_a_state_of_another_layout_is_not_restored(row):
    codec, state = fresh(row)
    with pytest.raises(ValueError, match="codec state"):
        restore_state(codec.init((), ()), state)
