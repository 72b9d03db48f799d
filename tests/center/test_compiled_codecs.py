"""The compiled programs of codecs give the bits of numpy's loops."""

import numpy as np
import pytest

from geojax.center.codecs import SIZES, _program, compiled_codecs
from geojax.center.spec import VectorSpec
from geojax.compression.halves import BFLOAT16, FLOAT16, narrow
from geojax.compression.registry import CODECS, build_codec
from geojax.compression.scratch import aligned
from geojax.errors import Diverged

COMPILED = compiled_codecs()
SIZE = SIZES[0] + 2 * SIZES[1] + 777  # pieces of all sizes, and a rest


def numbers(number, size=SIZE):
    """Numbers of every kind: all exponents, ties, NaN of both sorts, and some of usual size."""
    random = np.random.default_rng(number)
    bits = random.integers(0, 1 << 32, size, np.uint32)
    bits[::5] = bits[::5] & 0xFFFFE000 | 0x1000  # in the middle between two halves
    bits[1::5] = bits[1::5] & 0xFFFF0000 | 0x8000
    bits[2::5] = random.normal(size=bits[2::5].size).astype(np.float32).view(np.uint32)
    bits[:7] = [0, 0x80000000, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFFFFFFF, 0x477FF000]
    return bits.view(np.float32)


def placed(values, offset):
    """The same values so many bytes past what a program could read in place."""
    room = aligned(values.nbytes + 64, np.uint8)
    there = room[offset : offset + values.nbytes].view(values.dtype)
    there[:] = values
    return there


@pytest.mark.parametrize("offset", [0, 4])
@pytest.mark.parametrize("form", [FLOAT16, BFLOAT16], ids=lambda form: form.name)
def test_rounding_has_the_same_bits(form, offset):
    values = placed(numbers(offset), offset)
    compiled = narrow(values, form, "saturate", COMPILED)
    assert compiled.tobytes() == narrow(values, form, "saturate").tobytes()


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_codecs_send_the_same_and_keep_the_same(name):
    spec = VectorSpec.of([("w", (SIZE - 70,)), ("b", (70,))], [("mean", (600,))])
    codecs = [build_codec(CODECS.settings(name), compiled=one) for one in (None, COMPILED)]
    states = [codec.init(spec.layers, spec.chunks(SIZES[0])) for codec in codecs]
    random = np.random.default_rng(1)
    for _ in range(3):
        values = random.normal(size=spec.size).astype(np.float32)
        values[::100] = 0.5
        came = []
        for at, codec in enumerate(codecs):
            payloads, states[at] = codec.encode(values, states[at])
            sums = [codec.combine([payload] * 2) for payload in payloads]
            came.append([np.asarray(each).tobytes() for each in (*payloads, *sums)])
            came[at] += [codec.decode(each).tobytes() for each in (*payloads, *sums)]
        assert came[0] == came[1]


def test_overflow_that_stops_still_stops():
    codec = build_codec(CODECS.settings("fp16", overflow="stop"), compiled=COMPILED)
    spec = VectorSpec.of([("w", (SIZES[0],))])
    values = np.full(SIZES[0], 4e4, np.float32)
    (payload,), _ = codec.encode(values, codec.init(spec.layers, spec.chunks(SIZES[0])))
    with pytest.raises(Diverged, match="a sum of offers"):
        codec.combine([payload, payload])


def test_nothing_is_compiled_once_a_codec_has_its_state():
    codec = build_codec(CODECS.settings("fp16"), compiled=COMPILED)
    spec = VectorSpec.of([("w", (SIZE,))])
    state = codec.init(spec.layers, spec.chunks(SIZES[0]))
    before = _program()._cache_size()
    codec.encode(np.ones(SIZE, np.float32), state)
    assert _program()._cache_size() == before == len(SIZES)


def test_small_models_compile_nothing():
    told = []
    codec = build_codec(
        CODECS.settings("fp16"), compiled=COMPILED._replace(narrow={"fp16": told.append})
    )
    spec = VectorSpec.of([("w", (100,))])
    codec.encode(np.ones(100, np.float32), codec.init(spec.layers, spec.chunks(100)))
    assert not told
