"""Payload bytes of the demo CNN, beside those of GeoMX."""

import numpy as np
import pytest

from geojax.center.spec import VectorSpec
from geojax.compression.registry import CODECS, build_codec
from geojax.config import CompressionConfig, OverlayConfig

# The arrays of the demo CNN, weights before biases: 178,762 parameters.
SIZES = (400, 16, 12_800, 32, 131_072, 256, 32_768, 128, 1_280, 10)
SPEC = VectorSpec.of([(f"layer{at}", (size,)) for at, size in enumerate(SIZES)])
DENSE = 715_048


def pushes(name, centers=2, rounds=3, **settings):
    """The payloads that centers push in the last of a few rounds; their gradients differ."""
    codec = build_codec(CODECS.settings(name, **settings))
    pushed = []
    for center in range(centers):
        random = np.random.default_rng(center)
        state = codec.init(SPEC.layers, SPEC.chunks(OverlayConfig().chunk_elements))
        for _ in range(rounds):
            payloads, state = codec.encode(random.normal(size=SPEC.size).astype(np.float32), state)
        pushed.append(payloads)
    return codec, pushed


def push_bytes(pushed):
    return [sum(payload.nbytes for payload in payloads) for payloads in pushed]


def pull_bytes(codec, pushed):
    return sum(codec.combine(chunk).nbytes for chunk in zip(*pushed, strict=True))


@pytest.mark.parametrize(
    ("name", "each_way"), [("dense", DENSE), ("fp16", 357_524), ("bf16", 357_524)]
)
def test_codecs_of_fixed_width_take_their_width_and_nothing_else(name, each_way):
    codec, pushed = pushes(name)
    assert push_bytes(pushed) == [each_way, each_way]
    assert pull_bytes(codec, pushed) == each_way


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    ("name", "most_push", "most_pull"), [("bisparse", 17_596, 31_828), ("mpq", 15_912, 30_144)]
)
def test_sparse_codecs_take_no_more_than_geomx(name, most_push, most_pull, exact):
    codec, pushed = pushes(name, ratio=0.01, bound=1000, exact=exact)
    assert max(push_bytes(pushed)) <= most_push
    assert max(push_bytes(pushed)) < pull_bytes(codec, pushed) <= most_pull


def test_exact_sizes_of_bisparse():
    """Ten small layers' values, 1,777 entries' values and positions, tables: nothing else."""
    _, pushed = pushes("bisparse", exact=True)
    small, entries, tables = 842 * 4, (128 + 1310 + 327 + 12) * 4, 3 * 16 + 5 * 12
    for total in push_bytes(pushed):
        positions = total - small - entries - tables
        assert 1_777 <= positions <= 1.2 * 1_777


def test_two_bits_take_a_sixteenth_and_come_back_dense():
    codec, pushed = pushes("twobit")
    assert push_bytes(pushed) == [DENSE // 16 + 3 * 12 + 2] * 2  # the last word is not full
    assert pull_bytes(codec, pushed) == DENSE + 3 * (12 + 12)


@pytest.mark.parametrize(
    ("name", "header", "bits", "block"), [("int8", 12, 8, 256), ("int4", 16, 4, 64)]
)
def test_integers_take_their_bits_and_two_bytes_a_block(name, header, bits, block):
    codec, pushed = pushes(name)
    sizes = [stop - start for start, stop in SPEC.chunks(OverlayConfig().chunk_elements)]

    def takes(header, bits, block):
        return sum(header + -(-size * bits // 8) + 2 * -(-size // block) for size in sizes)

    assert push_bytes(pushed) == [takes(header, bits, block)] * 2
    assert pull_bytes(codec, pushed) == takes(header, 8, block)  # sums travel in eight bits


def test_over_the_lan_mpq_halves_the_small_layers_only():
    codec = build_codec(CompressionConfig(name="mpq")).lan
    state = codec.init(SPEC.layers, SPEC.chunks(OverlayConfig().chunk_elements))
    vector = np.random.default_rng(0).normal(size=SPEC.size).astype(np.float32)
    payloads, _ = codec.encode(vector, state)
    total = sum(payload.nbytes for payload in payloads)
    assert 0 < total - (DENSE - 842 * 2) < 200  # tables
    decoded = np.concatenate([codec.decode(payload) for payload in payloads])
    for layer in SPEC.layers:
        where = slice(layer.offset, layer.stop)
        kind = np.float16 if layer.size < 1000 else np.float32
        assert decoded[where].tobytes() == vector[where].astype(kind).astype(np.float32).tobytes()


@pytest.mark.parametrize("name", ["dense", "fp16", "bf16", "bisparse", "mpq", "twobit"])
def test_what_travels_over_the_lan(name):
    lan = build_codec(CompressionConfig(name=name)).lan
    wanted = {"bisparse": "dense", "mpq": "mpq_lan", "twobit": "dense"}
    assert (lan.name if lan else None) == wanted.get(name)
    assert lan is None or (lan.exact_combine and lan.lan is None)
