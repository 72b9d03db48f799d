"""The codecs for outer gradients: 4-bit floats, and SparseLoCo's top-k of 2 bits."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.center.spec import VectorSpec
from geojax.compression.e3m0 import e3m0
from geojax.compression.integers import int4, int8
from geojax.compression.topk2bit import top_k, topk2bit
from geojax.errors import FrameError

SPEC = VectorSpec.of([("w", (37,)), ("b", (3,))], [("mean", (5,))])


def start(codec, chunk=45, spec=SPEC):
    return codec.init(spec.layers, spec.chunks(chunk))


def decoded(codec, payloads):
    return np.concatenate([codec.decode(payload) for payload in payloads])


def values(seed, size=SPEC.size):
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


# ---- 4-bit floats


@given(seed=st.integers(0, 999), block=st.sampled_from([1, 7, 37, 64]))
def test_every_element_becomes_the_nearest_of_fifteen_values(seed, block):
    spec = VectorSpec.of([("w", (37,))])
    codec, came = e3m0(block=block), values(seed, 37)
    came[seed % 37] = 0.0
    (payload,), _ = codec.encode(came, start(codec, spec=spec))
    got = codec.decode(payload)
    for first in range(0, 37, block):
        mine = came[first : first + block].astype(np.float64)
        powers = np.abs(mine).max() * 2.0 ** np.arange(-6, 1)
        allowed = np.concatenate([-powers, [0.0], powers])
        nearest = np.abs(mine[:, None] - allowed).min(axis=1)
        error = np.abs(mine - got[first : first + block])
        np.testing.assert_allclose(error, nearest, rtol=1e-5, atol=1e-7)


def test_a_payload_has_four_bits_an_element_and_a_scale_a_block():
    spec = VectorSpec.of([("w", (65_536,))])
    codec = e3m0()
    (payload,), _ = codec.encode(values(0, 65_536), start(codec, 65_536, spec))
    assert payload.nbytes == 65_536 // 2 + 4 * 256 + 12


def test_a_payload_that_claims_huge_blocks_takes_no_more_memory():
    spec = VectorSpec.of([("w", (37,))])
    codec = e3m0(block=64)
    (payload,), _ = codec.encode(values(0, 37), start(codec, spec=spec))
    lying = payload.copy()
    lying[8:12].view(np.uint32)[:] = 2**28  # elements of a block: one scale serves all 37 still
    tracemalloc.start()
    try:
        np.testing.assert_array_equal(codec.decode(lying), codec.decode(payload))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("sums", "nbytes"), [("float32", 4), ("bf16", 2), ("e3m0", 0.5)])
def test_how_a_sum_travels(sums, nbytes):
    spec = VectorSpec.of([("w", (4096,))])
    codec = e3m0(sums=sums)
    payloads = [codec.encode(values(n, 4096), start(codec, 4096, spec))[0][0] for n in range(3)]
    total = codec.combine(payloads)
    assert total.nbytes == pytest.approx(4096 * nbytes, abs=100)
    exact = sum(codec.decode(each) for each in payloads)
    assert np.linalg.norm(codec.decode(total) - exact) <= 0.25 * np.linalg.norm(exact)
    assert codec.exact_combine == (sums != "e3m0")


@pytest.mark.parametrize("chunk", [7, 45])
def test_error_feedback_loses_nothing(chunk):
    codec = e3m0(block=8, error_feedback=True)
    state, came, sent = start(codec, chunk), np.zeros(40), np.zeros(40)
    for number in range(6):
        one = values(number)
        payloads, state = codec.encode(one, state)
        got = decoded(codec, payloads)
        came, sent = came + one[:40], sent + got[:40]
        assert got[40:].tobytes() == one[40:].tobytes(), "float state travels whole"
    np.testing.assert_allclose(came - sent, state.residual[:40], atol=1e-5)
    assert not state.residual[40:].any()


# ---- top-k of two bits


def by_hand(delta, error, count, decay):
    """One layer, one block: e ← βe + Δ; the largest, at one of two magnitudes; e ← e − sent."""
    error = decay * error + delta
    largest = np.argsort(-np.abs(error), kind="stable")[:count]
    magnitudes = np.abs(error[largest])
    above = magnitudes > magnitudes.mean()
    sent = np.zeros_like(error)
    for part in (above, ~above):
        if part.any():
            sent[largest[part]] = np.sign(error[largest[part]]) * magnitudes[part].mean()
    return sent, error - sent


def test_topk2bit_is_its_equation():
    spec, error = VectorSpec.of([("w", (50,))]), np.zeros(50)
    codec = topk2bit(ratio=0.2, decay=0.9)
    state = start(codec, 50, spec)
    for number in range(5):
        delta = values(number, 50)
        (payload,), state = codec.encode(delta, state)
        sent, error = by_hand(delta.astype(np.float64), error, 10, 0.9)
        np.testing.assert_allclose(codec.decode(payload), sent, atol=1e-5)
        np.testing.assert_allclose(state.error, error, atol=1e-5)


@pytest.mark.parametrize("chunk", [7, 45])
def test_layers_and_blocks_have_their_own_largest(chunk):
    codec = topk2bit(ratio=0.1, block=20, decay=1.0)
    payloads, state = codec.encode(values(3), start(codec, chunk))
    got = decoded(codec, payloads)
    counts = [np.count_nonzero(got[a:b]) for a, b in itertools.pairwise([0, 20, 37, 40])]
    assert counts == [2, 1, 1]
    assert got[40:].tobytes() == values(3)[40:].tobytes(), "float state travels whole"
    np.testing.assert_allclose(got[:40] + state.error[:40], values(3)[:40], atol=1e-6)
    assert not state.error[40:].any()


@given(seed=st.integers(0, 999), count=st.integers(1, 30))
def test_the_largest_and_of_equal_ones_the_first(seed, count):
    drawn = np.random.default_rng(seed).integers(-4, 5, 30).astype(np.float32)
    largest = np.argsort(-np.abs(drawn), kind="stable")[:count]
    assert top_k(drawn, count).tolist() == sorted(n for n in largest.tolist() if drawn[n])


def test_three_percent_take_one_in_eighty_of_the_bytes():
    spec = VectorSpec.of([("w", (65_536,))])
    codec = topk2bit(ratio=0.03)
    (payload,), _ = codec.encode(values(0, 65_536), start(codec, 65_536, spec))
    assert payload.nbytes < 4 * 65_536 / 80


@pytest.mark.parametrize(
    "codec", [e3m0(), topk2bit(), int8(block=8), int4(block=8)], ids=lambda codec: codec.name
)
@given(noise=st.binary(min_size=0, max_size=80), cut=st.integers(0, 60))
def test_bytes_that_are_no_payload_are_refused_or_decode(codec, noise, cut):
    payload = codec.encode(values(0), start(codec))[0][0]
    for wrong in (noise, payload.tobytes()[:cut] + noise):
        came = np.frombuffer(wrong, np.uint8)
        try:
            elements = codec.elements(came)
        except FrameError:
            continue
        assert codec.decode(came).shape == (elements,)
