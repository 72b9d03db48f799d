"""Rounding to two bytes, bit for bit, and what becomes of numbers that are too large."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.center.spec import VectorSpec
from geojax.compression.half import bf16, fp16
from geojax.compression.halves import BFLOAT16, FLOAT16, narrow, widen
from geojax.compression.registry import CODECS, build_codec
from geojax.errors import ConfigError, Diverged, FrameError

SPEC = VectorSpec.of([("first", (3,)), ("second", (4,))], [("mean", (2,))])


def bits(pattern):
    return np.array([pattern], np.uint32).view(np.float32)


@pytest.mark.parametrize("form", [FLOAT16, BFLOAT16], ids=lambda form: form.name)
def test_rounding_is_that_of_the_standard_cast(form):
    """On all exponents and signs, and beside and on all ties of many mantissas."""
    exponents = np.arange(0, 143 if form is FLOAT16 else 254, dtype=np.uint32) << 23
    mantissas = np.random.default_rng(0).integers(0, 1 << 23, 200).astype(np.uint32)
    ends = [0, 1, 0x1000, 0x0FFF, 0x1001, 0x2000, 0x3000, 0x8000, 0x7FFF, 0x8001, 0x18000]
    ties = (mantissas[:, None] & ~np.uint32(0x1FFFF)) + np.array(ends, np.uint32)
    patterns = exponents[:, None] + np.append(ties.reshape(-1) & 0x7FFFFF, mantissas)
    patterns = np.concatenate([patterns.reshape(-1), patterns.reshape(-1) | np.uint32(1 << 31)])
    values = patterns.view(np.float32)
    wanted = values.astype(form.dtype)
    assert narrow(values, form, "stop").tobytes() == wanted.tobytes()


@pytest.mark.parametrize("form", [FLOAT16, BFLOAT16], ids=lambda form: form.name)
def test_every_number_is_widened_as_by_the_standard_cast(form):
    every = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        wanted = every.view(form.dtype).astype(np.float32)
    assert widen(every.view(form.travels), form).tobytes() == wanted.tobytes()


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=9))
def test_any_number_is_rounded_or_clipped(numbers):
    values = np.array(numbers, np.float32)
    for form in (FLOAT16, BFLOAT16):
        with np.errstate(over="ignore"):
            cast = values.astype(form.dtype).astype(np.float32)
        clipped = np.where(
            np.isinf(cast) & np.isfinite(values), np.sign(values) * form.largest, cast
        )
        found = widen(narrow(values, form, "saturate"), form)
        np.testing.assert_array_equal(found, clipped.astype(np.float32))


@pytest.mark.parametrize("form", [FLOAT16, BFLOAT16], ids=lambda form: form.name)
def test_the_first_number_that_overflows(form):
    least = bits(form.overflow)
    below = bits(form.overflow - 1)
    assert widen(narrow(below, form, "stop"), form)[0] == form.largest
    with np.errstate(over="ignore"):
        assert np.isinf(least.astype(form.dtype).astype(np.float32))
    assert widen(narrow(-least, form, "saturate"), form)[0] == -form.largest
    with pytest.raises(Diverged, match=rf"beyond the largest {form.name}"):
        narrow(least, form, "stop")


@pytest.mark.parametrize("overflow", ["saturate", "stop"])
@pytest.mark.parametrize("form", [FLOAT16, BFLOAT16], ids=lambda form: form.name)
def test_infinity_and_nan_stay_what_they_are(form, overflow):
    values = np.array([np.inf, 1.0, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(widen(narrow(values, form, overflow), form), values)


@pytest.mark.parametrize("make", [fp16, bf16])
def test_overflow_is_clipped_or_stops_and_names_the_layer(make):
    values = np.array([1, 2, 3, 4, 5, 3.4e38, 7, 8, 9], np.float32)
    saturating, stopping = make(), make(overflow="stop")
    state = saturating.init(SPEC.layers, SPEC.chunks(5))
    payloads, _ = saturating.encode(values, state)
    assert np.isfinite(saturating.decode(payloads[1])).all()
    with pytest.raises(Diverged, match=r"^second: 3\.4e\+38 is beyond"):
        stopping.encode(values, state)


def test_a_sum_that_is_too_large_is_clipped_or_stops():
    payload = np.full(3, -40_000, np.float16)
    assert fp16().decode(fp16().combine([payload, payload])).tolist() == [-65504.0] * 3
    with pytest.raises(Diverged, match="a sum of offers"):
        fp16(overflow="stop").combine([payload, payload])


def test_a_sum_is_rounded_once():
    """In binary16, 2048 + 1 + 1 would stay 2048."""
    codec = fp16()
    payloads = [np.array([value], np.float16) for value in (2048, 1, 1)]
    assert codec.decode(codec.combine(payloads)).tolist() == [2050.0]


def test_bf16_travels_as_integers():
    codec = bf16()
    (payload,), _ = codec.encode(np.ones(9, np.float32), codec.init(SPEC.layers, SPEC.chunks(9)))
    assert (payload.dtype, payload.nbytes) == (np.uint16, 18)
    assert payload.view(ml_dtypes.bfloat16).tolist() == [1.0] * 9


@pytest.mark.parametrize("make", [fp16, bf16])
def test_bad_input(make):
    with pytest.raises(ConfigError, match=r"compression\.overflow = 'wrap'"):
        build_codec(CODECS.settings(make.__name__, overflow="wrap"))
    with pytest.raises(FrameError, match="expected a multiple of 2 bytes, came 3"):
        make().decode(np.zeros(3, np.uint8))
