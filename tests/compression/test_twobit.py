"""2-bit compression: its codes, its residual, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.center.spec import VectorSpec
from geojax.compression.registry import build_codec
from geojax.compression.twobit import TwobitConfig, twobit
from geojax.errors import ConfigError, Diverged, FrameError

SPEC = VectorSpec.of([("w", (37,)), ("b", (3,))], [("mean", (5,))])
HEADER, TABLE = 12, 12


def start(codec, chunk=45):
    return codec.init(SPEC.layers, SPEC.chunks(chunk))


def decoded(codec, payloads):
    return np.concatenate([codec.decode(payload) for payload in payloads])


def test_codes_and_their_places_in_a_word():
    spec = VectorSpec.of([("w", (17,))])
    codec = twobit(threshold=0.5)
    values = np.zeros(17, np.float32)
    values[[0, 1, 4, 16]] = [0.5, -0.5, 2.0, -0.6]
    (payload,), _ = codec.encode(values, codec.init(spec.layers, spec.chunks(17)))
    words = payload[HEADER:]
    assert words.tolist() == [0b11_10_00_00, 0b11_00_00_00, 0, 0, 0b10_00_00_00, 0, 0, 0]
    assert codec.decode(payload).tolist() == (np.sign(values) * np.float32(0.5)).tolist()


@given(
    threshold=st.sampled_from([0.25, 0.5, 2.0]),
    seed=st.integers(0, 999),
    chunk=st.sampled_from([1, 7, 16, 45]),
)
def test_what_was_sent_and_what_is_left_is_what_came_in(threshold, seed, chunk):
    """On multiples of 1/8, whose sums are exact."""
    codec = twobit(threshold=threshold)
    state, random = start(codec, chunk), np.random.default_rng(seed)
    came, sent = np.zeros(SPEC.size), np.zeros(SPEC.size)
    for _ in range(5):
        values = (np.round(random.normal(size=SPEC.size) * 8) / 8).astype(np.float32)
        payloads, state = codec.encode(values, state)
        received = decoded(codec, payloads)
        assert set(np.abs(received[: SPEC.parameters]).tolist()) <= {0.0, threshold}
        assert received[SPEC.parameters :].tolist() == values[SPEC.parameters :].tolist()
        came += values
        sent += received
    assert (came - sent).tolist() == state.residual.tolist()


def test_what_is_kept_comes_later():
    codec = twobit(threshold=0.5)
    state, sent = start(codec), []
    for _ in range(5):
        payloads, state = codec.encode(np.full(SPEC.size, 0.25, np.float32), state)
        sent.append(float(decoded(codec, payloads)[0]))
    assert sent == [0.0, 0.5, 0.0, 0.5, 0.0]


def test_a_sum_is_dense_and_may_be_summed_again():
    codec = twobit(threshold=0.5)
    one, two, three = (
        codec.encode(np.full(SPEC.size, value, np.float32), start(codec))[0][0]
        for value in (1.0, -1.0, 3.0)
    )
    total = codec.combine([codec.combine([one, three]), two])
    assert codec.decode(total).tolist() == [0.5] * 40 + [3.0] * 5
    assert total.nbytes == HEADER + TABLE + 45 * 4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_two_bits_cannot_tell_stops(bad):
    values = np.zeros(SPEC.size, np.float32)
    values[38] = bad
    with pytest.raises(Diverged, match="b: NaN or infinity"):
        twobit().encode(values, start(twobit()))


@pytest.mark.parametrize("threshold", [0.0, -0.5, float("nan"), float("inf")])
def test_a_threshold_is_positive(threshold):
    with pytest.raises(ConfigError, match=r"compression\.threshold = "):
        build_codec(TwobitConfig(threshold=threshold))


def test_malformed_payloads_are_refused():
    codec = twobit()
    (payload,), _ = codec.encode(np.ones(SPEC.size, np.float32), start(codec))
    for damage, reason in [
        ({-1: 0b01}, "01 has no meaning"),
        ({0: 200}, "more bytes"),
        ({3: 255}, "at most"),
        ({4: 200}, "expected 2400 more bytes"),
        ({HEADER: 43}, "a run of 5 elements at 43"),
        ({HEADER + 8: 2}, "2 bytes each"),
    ]:
        damaged = payload.copy()
        for at, value in damage.items():
            damaged[at] = value
        with pytest.raises(FrameError, match=reason):
            codec.decode(damaged)
    for size in range(payload.size):
        with pytest.raises(FrameError, match="twobit payload"):
            codec.decode(payload[:size])
    with pytest.raises(FrameError, match="1 bytes too many"):
        codec.decode(np.append(payload, np.uint8(0)))
