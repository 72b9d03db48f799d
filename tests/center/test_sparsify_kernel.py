"""The compiled kernel picks what the plain one picks, bit for bit."""

import jax
import numpy as np
import pytest

from geojax.center.sparsify import center_kernel, jax_kernel
from geojax.center.spec import VectorSpec
from geojax.compression.bisparse import bisparse
from geojax.compression.sparsify import Draw, draw, numpy_kernel

SIZES = (1, 7, 1280, 5000)  # each is compiled once for a ratio and a momentum


def arrays(size, seed, momentum):
    """Gradient, decayed momentum and residual, over many orders of magnitude."""
    random = np.random.default_rng(seed)
    scales = 10.0 ** random.integers(-9, 9, (3, size))
    gradient, decayed, residual = (random.normal(size=(3, size)) * scales).astype(np.float32)
    return gradient, decayed if momentum else decayed[:0], residual


def assert_same(first, second):
    for ours, theirs in zip(first, second, strict=True):
        assert (ours.dtype, ours.tobytes()) == (theirs.dtype, theirs.tobytes())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("ratio", [0.01, 0.1, 1.0])
def test_both_kernels_agree_bit_for_bit(ratio, exact, momentum):
    for size in SIZES:
        for seed in range(5):
            given = arrays(size, seed, momentum)
            drawn = draw(size, ratio, exact, np.random.default_rng(seed))
            assert_same(numpy_kernel(*given, drawn, momentum), jax_kernel(*given, drawn, momentum))


def test_equal_elements_and_zeros_are_picked_alike():
    for seed in range(5):
        values = np.round(np.random.default_rng(seed).normal(size=1000)).astype(np.float32)
        zeros = np.zeros(1000, np.float32)
        for drawn in (Draw(None, 100, 100), Draw(np.arange(0, 1000, 9, dtype=np.int32), 10, 50)):
            given = (values, zeros, zeros, drawn, 0.5)
            assert_same(numpy_kernel(*given), jax_kernel(*given))


def test_what_is_not_finite_is_picked_first_by_both():
    values = np.array([np.nan, 1.0, -np.inf, np.inf, 3e38], np.float32)
    zeros = np.zeros(5, np.float32)
    for kernel in (numpy_kernel, jax_kernel):
        found = kernel(values, zeros, zeros, Draw(None, 3, 3), 0.9)
        assert found.positions.tolist() == [0, 2, 3]


def test_its_arguments_are_left_alone_and_its_results_are_its_own():
    given = arrays(5000, 0, 0.9)
    before = [array.copy() for array in given]
    drawn = draw(5000, 0.1, False, np.random.default_rng(0))
    first = jax_kernel(*given, drawn, 0.9)
    kept = [array.copy() for array in first]
    jax_kernel(*arrays(5000, 1, 0.9), drawn, 0.9)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(given, before, strict=True))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, kept, strict=True))
    assert first.residual.flags.writeable
    assert not any(np.shares_memory(a, b) for a in first for b in given)


def test_a_codec_with_either_kernel_sends_the_same_over_rounds():
    spec = VectorSpec.of([("w", (3000,)), ("b", (9,))])
    codecs = [bisparse(bound=100, ratio=0.02, kernel=one) for one in (numpy_kernel, jax_kernel)]
    states = [codec.init(spec.layers, spec.chunks(1000)) for codec in codecs]
    for seed in range(4):
        vector = np.random.default_rng(seed).normal(size=spec.size).astype(np.float32)
        sent = []
        for at, codec in enumerate(codecs):
            payloads, states[at] = codec.encode(vector, states[at])
            sent.append([payload.tobytes() for payload in payloads])
        assert sent[0] == sent[1]


def test_the_center_takes_the_compiled_kernel_where_it_gains(monkeypatch):
    for backend, kernel in [("cpu", None), ("gpu", jax_kernel)]:
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert center_kernel() is kernel
