"""Payloads keep their bytes: digests of what the first implementation sent."""

import hashlib

import numpy as np
import pytest

from geojax.center.spec import VectorSpec
from geojax.compression import compiled, halves, integers, sparsify, twobit
from geojax.compression.registry import CODECS, build_codec

SPEC = VectorSpec.of([("w", (70_001,)), ("b", (37,)), ("v", (130, 100))], [("mean", (5_005,))])
ROUNDS = 3
GOLDEN = {
    "fp16": "f12df447c9b9ee71de6d12dd5a37e2ad",
    "bf16": "7025f397d5fbaabda69d8e38ffd9e662",
    "twobit": "89bcac3039d0d432cc7128792838125e",
    "e3m0": "471f76d27c8085c2a88efc6c8cc0a13a",
    "e3m0, sums of 4 bits": "2811e56105a43610c2dd9434743eb13c",
    "bisparse": "8c1cd8f92cfda86a431c92bd1c034959",
    "bisparse, no momentum": "35d009fbffa91cc197818912080f15ca",
    "bisparse exact": "009beab3781ada325ef5327402586fbf",
    "mpq": "065adcf390f1c5011ad8c30d19748c8c",
}


def offers(number, *, special):
    """Numbers of all sizes; ``special``: NaN, infinities and too large ones too."""
    random = np.random.default_rng(number)
    values = random.normal(size=SPEC.size).astype(np.float32)
    values *= np.ldexp(np.float32(1), random.integers(-30, 4, SPEC.size)).astype(np.float32)
    values[::7] = random.integers(0, 2**32, values[::7].size, np.uint32).view(np.float32)
    values[::7] = np.where(np.abs(values[::7]) < 1e4, values[::7], 0.5)
    values[random.integers(0, SPEC.size, 50)] = -0.0
    if special:
        at = random.integers(0, SPEC.size, 60)
        values[at] = np.resize([np.inf, -np.inf, 7e4, -3.4e38, 65519.99, 65520.0], at.size)
        bits = values.view(np.uint32)
        bits[random.integers(0, SPEC.size, 9)] = [0x7F800001, 0xFFC00000, 0x7FFFFFFF] * 3
    return values


def digest(name, settings, loops=False):
    """Of all payloads of some rounds and members, of their sums, and of what these decode to."""
    codec = build_codec(CODECS.settings(name, **settings), compiled=loops)
    total = hashlib.sha256()
    states = [codec.init(SPEC.layers, SPEC.chunks(30_000)) for _ in range(2)]
    for number in range(ROUNDS):
        members = []
        for member in range(2):
            values = offers(2 * number + member, special=name in ("fp16", "bf16"))
            payloads, states[member] = codec.encode(values, states[member])
            members.append(payloads)
        for chunk in zip(*members, strict=True):
            with np.errstate(invalid="ignore"):
                summed = codec.combine(chunk)
            for payload in (*chunk, summed):
                total.update(np.ascontiguousarray(payload).tobytes())
                total.update(codec.decode(payload).tobytes())
    return total.hexdigest()[:32]


CASES = {
    "fp16": ("fp16", {}),
    "bf16": ("bf16", {}),
    "twobit": ("twobit", {"threshold": 0.3}),
    "e3m0": ("e3m0", {"block": 100}),
    "e3m0, sums of 4 bits": ("e3m0", {"sums": "e3m0", "error_feedback": True}),
    "bisparse": ("bisparse", {"ratio": 0.05}),
    "bisparse, no momentum": ("bisparse", {"ratio": 0.01, "momentum": 0.0}),
    "bisparse exact": ("bisparse", {"ratio": 0.02, "exact": True}),
    "mpq": ("mpq", {}),
}


@pytest.mark.parametrize("loops", [False, True], ids=["numpy", "compiled"])
@pytest.mark.parametrize("case", CASES)
def test_payloads_are_what_they_were(case, loops):
    if loops and not compiled.installed():
        pytest.skip("numba is not installed (the extra 'fast')")
    assert digest(*CASES[case], loops) == GOLDEN[case]


@pytest.mark.parametrize("case", ["fp16", "bf16", "twobit", "bisparse", "int8", "int4"])
def test_slabs_change_nothing(case, monkeypatch):
    name, settings = CASES.get(case, (case, {}))
    whole = digest(name, settings)
    for module in (halves, integers, sparsify, twobit):
        monkeypatch.setattr(module, "SLAB", 4096)
    assert digest(name, settings) == whole
