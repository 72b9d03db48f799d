"""Compiled loops give the payloads, residuals, values and refusals of numpy's, bit for bit."""

import subprocess
import sys

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from geojax.center.spec import VectorSpec
from geojax.compression import compiled, halves, integers, scaled, twobit
from geojax.compression.registry import CODECS, build_codec
from geojax.compression.sparsify import Draw, draw, host_kernel, numpy_kernel
from geojax.errors import GeojaxError

numba = pytest.importorskip("numba", reason="numba is not installed (the extra 'fast')")

LOOPS = (False, True)
CODECS_WITH_LOOPS = {
    "fp16": {"overflow": ["saturate", "stop"]},
    "bf16": {"overflow": ["saturate", "stop"]},
    "twobit": {"threshold": [0.5, 1e-3, 1e38]},
    "int8": {
        "block": [1, 7, 64, 256, 65_536],
        "error_feedback": [True, False],
        "sums": ["int8", "bf16", "float32"],
    },
    "int4": {
        "block": [1, 7, 64, 256, 65_536],
        "error_feedback": [True, False],
        "sums": ["int4", "int8", "bf16", "float32"],
    },
    "bisparse": {"momentum": [0.0, 0.9], "exact": [True, False], "ratio": [0.01, 0.3]},
    "mpq": {"momentum": [0.0, 0.9]},
}
SPECIAL = np.array([
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x00800000,  # zeros, subnormals
    0x7F800000, 0xFF800000, 0x7F800001, 0xFF800001, 0x7FC00000, 0xFFFFFFFF,  # infinities, NaN
    0x477FEFFF, 0x477FF000, 0xC77FF000, 0x7F7F7FFF, 0x7F7F8000, 0xFF7FFFFF,  # about to overflow
    0x33000000, 0x33000001, 0x38800000, 0x387FFFFF, 0x3F001000, 0x3F008000,  # ties of halves
], np.uint32).view(np.float32)  # fmt: skip


def numbers(random, size, kind):
    """Of usual size, of every exponent, or of every kind; the last have some that nothing codes."""
    values = random.normal(size=size).astype(np.float32)
    if kind == "usual":
        return values
    bits = random.integers(0, 1 << 32, size, np.uint32)
    bits[::3] = bits[::3] & 0xFFFFE000 | 0x1000  # in the middle between two of binary16
    bits[1::3] = bits[1::3] & 0xFFFF0000 | 0x8000  # of bfloat16
    if kind == "finite":
        bits = np.where(bits & 0x7F800000 >= 0x7B000000, bits & 0x81FFFFFF, bits)
    wide = np.where(random.random(size) < 0.5, bits.view(np.float32), values)
    if kind == "special" and size:
        wide[random.integers(0, size, 1 + size // 4)] = random.choice(SPECIAL, 1 + size // 4)
    return wide


def as_bytes(value):
    """All bytes of arrays in tuples and lists, and the types and values of all else."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, tuple | list):
        return [as_bytes(one) for one in value]
    return value


def outcome(work):
    """The bytes of what it gives, or its error."""
    with np.errstate(invalid="ignore", over="ignore"):
        try:
            return as_bytes(work())
        except GeojaxError as error:
            return type(error).__name__, str(error)


def story(codec, spec, chunk, offers):
    """What a codec sends, keeps, sums and decodes over some rounds, of two members."""
    states = [codec.init(spec.layers, spec.chunks(chunk))] * 2
    for pair in offers:
        members = []
        for at, vector in enumerate(pair):
            payloads, states[at] = codec.encode(vector, states[at])
            members.append(payloads)
        sums = [codec.combine(each) for each in zip(*members, strict=True)]
        travelled = [*members[0], *members[1], *sums]
        yield [travelled, states, [codec.decode(one) for one in travelled]]


def stories(codec, spec, chunk, offers):
    """The outcomes of the rounds, up to the first error."""
    told, rounds = [], story(codec, spec, chunk, offers)
    for _ in offers:
        told.append(outcome(lambda: next(rounds)))
        if isinstance(told[-1], tuple):
            break
    return told


@pytest.mark.parametrize("name", CODECS_WITH_LOOPS)
@examples(25)
@given(data=st.data())
def test_both_loops_tell_the_same_story(name, data):
    settings = {
        key: data.draw(st.sampled_from(values)) for key, values in CODECS_WITH_LOOPS[name].items()
    }
    if name in ("bisparse", "mpq"):
        settings["bound"] = data.draw(st.sampled_from([1, 20, 1000]))
    sizes = [data.draw(st.integers(1, 700)) for _ in range(2)]
    spec = VectorSpec.of(
        [("w", (sizes[0],)), ("b", (3,)), ("v", (sizes[1],))],
        [("mean", (5,))] * data.draw(st.integers(0, 1)),
    )
    chunk = data.draw(st.sampled_from([1 + spec.size // 9, 64, spec.size]))
    random = np.random.default_rng(data.draw(st.integers(0, 9999)))
    kinds = data.draw(st.lists(st.sampled_from(["usual", "finite", "special"]), max_size=3))
    offers = [[numbers(random, spec.size, kind) for _ in range(2)] for kind in ["usual", *kinds]]
    plain, fast = (
        stories(build_codec(CODECS.settings(name, **settings), compiled=loops), spec, chunk, offers)
        for loops in LOOPS
    )
    assert plain == fast


@pytest.mark.parametrize("name", CODECS_WITH_LOOPS)
def test_chunks_longer_than_what_loops_take_at_a_time(name):
    spec = VectorSpec.of([("w", (150_001,)), ("b", (37,))], [("mean", (605,))])
    random = np.random.default_rng(0)
    offers = [[numbers(random, spec.size, kind) for _ in range(2)] for kind in ("usual", "finite")]
    plain, fast = (
        stories(build_codec(CODECS.settings(name), compiled=loops), spec, 140_001, offers)
        for loops in LOOPS
    )
    assert plain == fast


@pytest.mark.parametrize("bad", [None, 0, 260, 899])
@pytest.mark.parametrize("most", [1, 64, 130, 1000])
@pytest.mark.parametrize("name", ["int8", "int4"])
def test_chunks_that_are_coded_in_one_call_are_those_of_many(monkeypatch, name, most, bad):
    """Of odd sizes, empty ones among them, and some with runs."""
    monkeypatch.setattr(scaled, "_BATCH", most)
    spec = VectorSpec.of([("w", (400,)), ("v", (485,))], [("mean", (15,))])
    stops = [0, 0, 31, 64, 64, 128, 255, 300, 301, 640, 700, 899, 900]
    ranges = list(zip([0, *stops[:-1]], stops, strict=True))
    told = []
    for loops in LOOPS:
        codec = build_codec(CODECS.settings(name), compiled=loops)
        state = codec.init(spec.layers, ranges)
        random = np.random.default_rng(0)
        for _ in range(3):
            payloads, state = codec.encode(numbers(random, spec.size, "usual"), state)
            told.append(as_bytes([payloads, state]))
        vector = numbers(random, spec.size, "usual")
        if bad is not None:
            vector[bad] = np.nan
        told.append(outcome(lambda codec=codec, it=vector, state=state: codec.encode(it, state)))
    assert told[:4] == told[4:]


@pytest.mark.parametrize("at", [0, 1], ids=["fp16", "bf16"])
def test_halves_of_every_kind(at):
    plain, fast = (halves.forms(loops)[at] for loops in LOOPS)
    random = np.random.default_rng(at)
    for kind in ("usual", "finite", "special"):
        values = np.append(numbers(random, 100_003, kind), SPECIAL)
        narrowed = [halves.narrow(values, form, "saturate").tobytes() for form in (plain, fast)]
        assert narrowed[0] == narrowed[1]
    for last in (0x7C00, 0xFFFF):  # without NaN, and with all of them
        some = np.arange(last + 1, dtype=np.uint16).view(plain.travels)
        assert halves.widen(some, plain).tobytes() == halves.widen(some, fast).tobytes()


def test_a_cast_tells_of_any_number_that_it_cannot_round():
    for form in (form for loops in LOOPS for form in halves.forms(loops)):
        for size in (1, 9, 100):
            values, out = np.ones(size, np.float32), np.empty(size, form.travels)
            assert form.cast(values, out)
            for bad in (-3.4e38, np.inf, -np.inf, np.nan, -np.float32(np.nan)):
                values[-1] = bad
                assert not form.cast(values, out)


@pytest.mark.parametrize("size", [0, 1, 15, 4095, 4097, 70_001])
def test_what_two_bits_cannot_tell_is_found_wherever_it_is(size):
    from geojax.compression.compiled import twobit as fast

    for bad in {0, size // 2, size - 1} if size else {None}:
        values, before = np.ones((2, size), np.float32)
        codes = np.zeros(-(-size // 16) * 4, np.uint8)
        for loop in (twobit.quantize, fast.quantize):
            assert loop(values, before, np.float32(0.5), codes, np.empty(size, np.float32))
        if bad is not None:
            before[bad] = np.inf
        for loop in (twobit.quantize, fast.quantize):
            left = np.empty(size, np.float32)
            assert loop(values, before, np.float32(0.5), codes, left) == (bad is None)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("ratio", [0.001, 0.1, 1.0])
def test_kernels_pick_the_same(ratio, exact, momentum):
    for size in (1, 31, 32, 33, 5000, 140_000):
        random = np.random.default_rng(size)
        gradient, decayed, residual = random.normal(size=(3, size)).astype(np.float32)
        gradient[::97] = numbers(random, gradient[::97].size, "special")
        drawn = draw(size, ratio, exact, np.random.default_rng(0))
        given = gradient, decayed if momentum else decayed[:0], residual, drawn, momentum
        plain, fast = (as_bytes(host_kernel(loops)(*given)) for loops in LOOPS)
        assert plain == fast


def test_equal_elements_and_zeros_are_picked_alike():
    values = np.round(np.random.default_rng(0).normal(size=1000)).astype(np.float32)
    given = values, np.zeros(1000, np.float32), np.zeros(1000, np.float32)
    for drawn in (Draw(None, 100, 100), Draw(np.arange(0, 1000, 9, dtype=np.int32), 10, 50)):
        picked = [as_bytes(kernel(*given, drawn, 0.5)) for kernel in map(host_kernel, LOOPS)]
        assert picked[0] == picked[1]
    assert host_kernel(compiled=False) is numpy_kernel


def elsewhere(array, offset):
    """The same bytes at another address, as a view that must not be written."""
    room = np.zeros(array.nbytes + 8, np.uint8)
    there = room[offset : offset + array.nbytes].view(array.dtype)
    there[:] = array
    there.flags.writeable = False
    return there


@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("name", CODECS_WITH_LOOPS)
def test_arrays_at_any_address_are_read_and_none_need_be_written(name, offset):
    spec = VectorSpec.of([("w", (2000,)), ("b", (9,))])
    vector = np.random.default_rng(0).normal(size=spec.size).astype(np.float32)
    codec = build_codec(CODECS.settings(name), compiled=True)
    state = codec.init(spec.layers, spec.chunks(spec.size))
    (payload,), _ = codec.encode(vector, state)
    (again,), _ = codec.encode(elsewhere(vector, offset), state)
    assert payload.tobytes() == again.tobytes()
    moved = elsewhere(payload.view(np.uint8), offset)
    assert codec.decode(moved).tobytes() == codec.decode(payload).tobytes()
    assert codec.elements(moved) == spec.size
    both = [codec.combine([one, one]).tobytes() for one in (payload, moved)]
    assert both[0] == both[1]


@pytest.mark.parametrize("name", CODECS_WITH_LOOPS)
def test_damaged_payloads_decode_alike_or_are_refused_alike(name):
    """Compiled loops check no bounds: sizes are checked before."""
    spec = VectorSpec.of([("w", (1500,))], [("mean", (5,))])
    random = np.random.default_rng(0)
    vector = random.normal(size=spec.size).astype(np.float32)
    plain, fast = (build_codec(CODECS.settings(name), compiled=loops) for loops in LOOPS)
    (payload,), _ = plain.encode(vector, plain.init(spec.layers, spec.chunks(spec.size)))
    whole, refused = payload.view(np.uint8), 0
    for number in range(200):
        length = random.integers(1, whole.size) if number % 4 == 0 else whole.size
        damaged = whole[:length].copy()
        damaged[random.integers(0, min(length, 60), 2)] = random.integers(0, 256, 2)
        told = [outcome(lambda one=one, it=damaged: one.decode(it)) for one in (plain, fast)]
        assert told[0] == told[1]
        refused += told[0][0] == "FrameError"
    assert refused > 5


def test_a_grid_says_what_it_cannot_code():
    from geojax.compression.compiled import integers as fast

    for ours, theirs in ((integers.INT8, fast.INT8), (integers.INT4, fast.INT4)):
        for bad in (np.nan, -np.inf, np.float32(2.0**126)):
            values = np.ones(300, np.float32)
            values[299] = bad
            for grid in (ours, theirs):
                scales, codes = np.empty(5, np.uint16), np.empty(300 * grid.bits // 8, np.uint8)
                assert not grid.code(values, None, 64, scales, codes, None)


LOADED = """
import sys
from geojax.compression.registry import build_codec
from geojax.config import CompressionConfig
build_codec(CompressionConfig(name="int8"))
build_codec(CompressionConfig(name="dense"), compiled=True)
assert "numba" not in sys.modules
build_codec(CompressionConfig(name="twobit"), compiled=True)
assert "numba" in sys.modules
assert "geojax.compression.compiled.halves" not in sys.modules
assert "jax" not in sys.modules
"""


def test_numba_is_loaded_by_codecs_that_use_it_alone():
    assert compiled.installed()
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_loops_are_compiled_where_they_cannot_be_kept(monkeypatch):
    from geojax.compression.compiled.loop import loop

    tried, real = [], numba.njit

    def njit(signatures, **options):
        tried.append(options.get("cache", False))
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(signatures, **options)

    monkeypatch.setattr(numba, "njit", njit)
    double = loop(numba.types.int64(numba.types.int64))(lambda number: 2 * number)
    assert double(21) == 42
    assert tried == [True, False]
