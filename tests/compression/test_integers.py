"""int8 and int4: their numbers, scales, sums and sizes."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.center.spec import VectorSpec
from geojax.compression.integers import floats, int4, int8, scales_of
from geojax.compression.registry import CODECS, build_codec
from geojax.errors import ConfigError, Diverged, FrameError

SPEC = VectorSpec.of([("w", (37,)), ("b", (3,))], [("mean", (5,))])
MAKES = {"int8": (int8, 127, 12), "int4": (int4, 7, 16)}  # largest number, bytes of a header
each = pytest.mark.parametrize("name", MAKES)


def start(codec, chunk=45, spec=SPEC):
    return codec.init(spec.layers, spec.chunks(chunk))


def decoded(codec, payloads):
    return np.concatenate([codec.decode(payload) for payload in payloads])


def sent(codec, values):
    """One layer of these values in one chunk: its payload, and what is left."""
    spec = VectorSpec.of([("w", values.shape)])
    state = codec.init(spec.layers, [(0, values.size)])
    (payload,), state = codec.encode(values, state)
    return payload, state.residual


def scale_by_hand(largest, most):
    """The least bfloat16 that is not below the rounded quotient; 2⁻¹²⁰ at least."""
    wanted = max(Fraction(float(np.float32(largest) * np.float32(1 / most))), Fraction(2) ** -120)
    unit = Fraction(2) ** (math.frexp(wanted)[1] - 8)
    return math.ceil(wanted / unit) * unit


@st.composite
def vectors(draw):
    size = draw(st.integers(1, 150))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    values = random.normal(size=size) * 2.0 ** random.integers(-12, 3, size)
    values *= 10.0 ** draw(st.sampled_from([-44, -37, -8, 0, 5, 30]))
    values[random.random(size) < 0.2] = 0.0
    if draw(st.booleans()):  # multiples of a half of what a scale may be: ties
        values = np.round(values / np.abs(values).max(initial=1e-44) * 254) / 2
    return values.astype(np.float32)


@each
@given(values=vectors(), block=st.sampled_from([1, 7, 64, 200]))
def test_every_element_is_the_nearest_multiple_of_its_blocks_scale(name, values, block):
    make, most, _ = MAKES[name]
    payload, left = sent(make(block=block), values)
    got = make(block=block).decode(payload)
    for first in range(0, values.size, block):
        where = slice(first, first + block)
        scale = scale_by_hand(np.abs(values[where]).max(), most)
        for came, went, kept in zip(values[where], got[where], left[where], strict=True):
            number = Fraction(float(went)) / scale
            assert number.denominator == 1
            assert abs(number) <= most
            error = Fraction(float(came)) - Fraction(float(went))
            assert abs(error) <= scale / 2 * (1 + Fraction(1, 2**15))
            assert Fraction(float(kept)) == error, "nothing is lost, not a bit"


@each
def test_scales_are_rounded_up_and_never_too_small(name):
    _, most, _ = MAKES[name]
    largest = np.ldexp(np.float32(1.37), np.arange(-149, 120)).astype(np.float32)
    scales = floats(scales_of(largest, most))
    assert scales.min() == np.float32(2.0**-120)
    for one, scale in zip(largest, scales, strict=True):
        assert Fraction(float(scale)) == scale_by_hand(one, most)


@each
@pytest.mark.parametrize("chunk", [1, 7, 45])
def test_what_was_sent_and_what_is_left_is_what_came_in(name, chunk):
    codec = MAKES[name][0](block=8)
    state, came, went = start(codec, chunk), np.zeros(45), np.zeros(45)
    for number in range(6):
        values = np.random.default_rng(number).normal(size=45).astype(np.float32)
        payloads, state = codec.encode(values, state)
        got = decoded(codec, payloads)
        assert got[40:].tobytes() == values[40:].tobytes(), "float state travels whole"
        came, went = came + values, went + got
    np.testing.assert_allclose(came - went, state.residual, atol=1e-6)
    assert not state.residual[40:].any()


@each
def test_without_error_feedback_nothing_is_kept(name):
    codec = MAKES[name][0](error_feedback=False)
    state, payloads = start(codec), []
    for _ in range(2):
        (payload,), state = codec.encode(np.linspace(-1, 1, 45, dtype=np.float32), state)
        payloads.append(payload.tobytes())
    assert payloads[0] == payloads[1]
    assert state.residual.size == 0


@each
@pytest.mark.parametrize("size", [1, 2, 255, 256, 1001, 65_536])
@pytest.mark.parametrize("block", [1, 64, 256, 65_536])
def test_the_size_of_a_payload(name, size, block):
    make, most, header = MAKES[name]
    payload, _ = sent(make(block=block), np.ones(size, np.float32))
    codes = size if most == 127 else math.ceil(size / 2)
    assert payload.nbytes == header + 2 * math.ceil(size / block) + codes


@each
@pytest.mark.parametrize(
    ("sums", "nbytes", "error"),
    [("int4", 0.5, 0.15), ("int8", 1, 0.01), ("bf16", 2, 2**-9), ("float32", 4, 1e-7)],
)
def test_how_a_sum_travels(name, sums, nbytes, error):
    if name == "int8" and sums == "int4":
        with pytest.raises(ConfigError, match=r"compression\.sums = 'int4'"):
            build_codec(CODECS.settings("int8", sums="int4"))
        return
    codec = MAKES[name][0](sums=sums)
    offers = [np.random.default_rng(n).normal(size=4096).astype(np.float32) for n in range(3)]
    payloads = [sent(codec, values)[0] for values in offers]
    total = codec.combine(payloads)
    assert total.nbytes == pytest.approx(4096 * nbytes, abs=200)
    exact = sum(codec.decode(payload) for payload in payloads)
    assert np.linalg.norm(codec.decode(total) - exact) <= error * np.linalg.norm(exact)


@each
def test_a_tree_rounds_once_at_every_merge(name):
    """A chain of merges errs by half a scale each time, no more."""
    make, most, _ = MAKES[name]
    codec = make(block=16, sums=name)
    offers = [np.random.default_rng(n).normal(size=48).astype(np.float32) for n in range(5)]
    payloads = [sent(codec, values)[0] for values in offers]
    total, bound = payloads[0], np.zeros(48)
    exact = codec.decode(total).astype(np.float64)
    for payload in payloads[1:]:
        before = codec.decode(total) + codec.decode(payload)
        exact += codec.decode(payload)
        largest = np.abs(before).reshape(3, 16).max(axis=1)
        bound += np.repeat(floats(scales_of(largest, most)), 16) / 2
        total = codec.combine([total, payload])
    assert np.all(np.abs(codec.decode(total) - exact) <= bound * 1.001)
    assert np.abs(codec.decode(total) - exact).max() > 0


@each
@pytest.mark.parametrize("huge", [1e30, 3e36])
def test_large_numbers_travel_and_too_large_sums_become_float32(name, huge):
    codec = MAKES[name][0]()
    payload, _ = sent(codec, np.full(6, huge, np.float32))
    np.testing.assert_allclose(codec.decode(payload), huge, rtol=0.08)
    with np.errstate(over="ignore"):
        total = codec.combine([payload] * 120)
        wanted = np.add.accumulate(np.tile(codec.decode(payload), (120, 1)), axis=0)[-1]
    assert np.isinf(wanted).all() == (huge > 1e36)
    np.testing.assert_allclose(codec.decode(total), wanted, rtol=0.08)


@each
@pytest.mark.parametrize(("bad", "said"), [(np.nan, "NaN"), (-np.inf, "NaN"), (3e38, "more than")])
def test_what_has_no_code_stops_and_names_the_layer(name, bad, said):
    codec, values = MAKES[name][0](), np.ones(45, np.float32)
    values[38] = bad
    with pytest.raises(Diverged, match=rf"^b: {said}.*compression={name}"):
        codec.encode(values, start(codec))


@each
def test_zeros_and_what_is_next_to_nothing(name):
    codec = MAKES[name][0](block=2)
    values = np.array([0.0, -0.0, 1e-45, 1e-38, 1.0, 1e-45], np.float32)
    payload, left = sent(codec, values)
    got = codec.decode(payload)
    assert not got[:3].any()
    np.testing.assert_allclose(got + left, values, atol=1e-45)


@each
@pytest.mark.parametrize("block", [0, -1, 65_537])
def test_a_block_has_bounds(name, block):
    with pytest.raises(ConfigError, match=rf"compression\.block = {block}"):
        build_codec(CODECS.settings(name, block=block))


@each
def test_malformed_payloads_are_refused(name):
    make, _, header = MAKES[name]
    codec = make(block=8)
    (payload,), _ = codec.encode(np.ones(45, np.float32), start(codec))
    table = header + 12
    damages = [
        ({0: 46}, "more bytes"),
        ({3: 255}, "at most"),
        ({4: 200}, "more bytes"),
        ({8: 0}, "blocks of no element"),
        ({header: 43}, "a run of 5 elements at 43"),
        ({header + 8: 3}, "3 bytes each"),
        ({table: 0, table + 1: 0x80}, "a scale with the bits 0x8000"),
        ({table: 0x81, table + 1: 0x7B}, "a scale with the bits 0x7b81"),
    ]
    if name == "int4":
        damages.append(({12: 2}, "expected a grid of 0 to 1, came 2"))
    for damage, reason in damages:
        damaged = payload.copy()
        for at, value in damage.items():
            damaged[at] = value
        for read in (codec.decode, codec.elements):
            with pytest.raises(FrameError, match=f"{name} payload: .*{reason}"):
                read(damaged)
    for size in range(payload.size):
        with pytest.raises(FrameError, match=f"{name} payload"):
            codec.elements(payload[:size])
    with pytest.raises(FrameError, match="1 bytes too many"):
        codec.elements(np.append(payload, np.uint8(0)))


@each
def test_every_code_means_what_it_says(name):
    """All bytes: eight bits are a number, or four and four, the first in the higher half."""
    codec = MAKES[name][0](block=512)
    size = 256 if name == "int8" else 512
    payload, _ = sent(codec, np.ones(size, np.float32))
    scale = float(floats(payload[-258:-256].view(np.uint16))[0])
    payload[-256:] = np.arange(256)
    bytes_ = range(256)
    if name == "int8":
        numbers = [byte - 256 if byte > 127 else byte for byte in bytes_]
    else:
        halves = itertools.chain(*((byte >> 4, byte & 15) for byte in bytes_))
        numbers = [half - 16 if half > 7 else half for half in halves]
    assert codec.decode(payload).tolist() == [number * scale for number in numbers]
