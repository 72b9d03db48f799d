"""DGT beyond what every codec does: which blocks are important, and what becomes of the others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.center.spec import VectorSpec
from geojax.compression import blocks as form
from geojax.compression.dgt import LEAST_BLOCK_BYTES, MOST_BLOCK_BYTES, DgtConfig, dgt
from geojax.compression.registry import build_codec
from geojax.errors import ConfigError, FrameError
from geojax.wire.datagrams import MAX_DATAGRAM_BYTES
from geojax.wire.message import HEADER_BYTES

BLOCK = 16  # elements
CHUNK = 100  # six blocks and a short one


def make(size=250, **settings):
    codec = dgt(**{"block_bytes": 4 * BLOCK, **settings})
    spec = spec_of(size)
    return codec, codec.init(spec.layers, spec.chunks(CHUNK)), spec.chunks(CHUNK)


def spec_of(size):
    return VectorSpec.of([("w", (size,))])


def one_chunk(codec, size):
    """The first state for a vector of one chunk."""
    return codec.init(spec_of(size).layers, [(0, size)])


def normal(size=250, seed=0):
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def heights(*values):
    """A vector of whole blocks, each of one value."""
    return np.repeat(np.array(values, np.float32), BLOCK)


def important(codec, payloads):
    """The indices of the important blocks, chunk by chunk."""
    return [form.unpack(split.now).indices.tolist() for split in payloads]


def plain_dgt(vectors, k, alpha):
    """The definition as one reads it, for whole blocks: important blocks of every round."""
    contribution, chosen = None, []
    for vector in vectors:
        magnitude = [float(np.abs(block).mean()) for block in vector.reshape(-1, BLOCK)]
        before = contribution or [0.0] * len(magnitude)
        contribution = [alpha * c + (1 - alpha) * m for c, m in zip(before, magnitude, strict=True)]
        there = [j for j, c in enumerate(contribution) if c > 0]
        most = sorted(there, key=lambda j: (-contribution[j], j))
        chosen.append(sorted(most[: int(k * len(there) + 0.5)]))
    return chosen


@given(
    k=st.sampled_from([0.2, 0.5, 0.8, 1.0]), alpha=st.sampled_from([0.0, 0.3, 0.9]),
    seed=st.integers(0, 2**32),
)  # fmt: skip
def test_important_blocks_are_those_of_the_definition(k, alpha, seed):
    rng = np.random.default_rng(seed)
    vectors = [
        heights(*(rng.integers(0, 4, 12) * rng.choice([-1, 1], 12))) for _ in range(4)
    ]  # few heights: there are ties, and blocks of zeros
    codec = dgt(k=k, k_min=k / 2, alpha=alpha, block_bytes=4 * BLOCK)
    state = one_chunk(codec, 12 * BLOCK)
    for vector, expected in zip(vectors, plain_dgt(vectors, k, alpha), strict=True):
        payloads, state = codec.encode(vector, state)
        assert important(codec, payloads) == [expected]


def test_blocks_compete_over_the_whole_vector():
    codec, state, _ = make(4 * CHUNK, k=0.25)
    vector = normal(4 * CHUNK) / 100
    vector[CHUNK : 2 * CHUNK] += 1
    payloads, _ = codec.encode(vector, state)
    assert important(codec, payloads) == [[], list(range(7)), [], []]


def test_the_past_counts():
    codec, state, _ = make(2 * BLOCK, k=0.5, alpha=0.3)
    _, state = codec.encode(heights(10, 1), state)
    payloads, state = codec.encode(heights(1, 3), state)  # 0.3 · 7 + 0.7 beats 0.3 · 0.7 + 2.1
    assert important(codec, payloads) == [[0]]
    payloads, _ = codec.encode(heights(1, 3), state)
    assert important(codec, payloads) == [[1]]


def test_blocks_of_zeros_do_not_travel_but_those_that_once_counted_do():
    codec, state, _ = make(3 * BLOCK, k=0.5)
    payloads, state = codec.encode(heights(0, 5, 1), state)
    assert form.unpack(payloads[0].late).indices.tolist() == [2]
    payloads, _ = codec.encode(heights(0, 0, 5), state)
    assert form.unpack(payloads[0].late).indices.tolist() == [1]
    nothing, _ = codec.encode(heights(0, 0, 0), make(3 * BLOCK)[1])
    assert nothing[0].late.size == 0
    assert not codec.decode(nothing[0].now).any()


def test_all_blocks_are_dense():
    codec, state, ranges = make(k=1.0)
    vector = normal()
    payloads, _ = codec.encode(vector, state)
    assert not any(split.late.size or split.datagrams for split in payloads)
    for split, (start, stop) in zip(payloads, ranges, strict=True):
        assert split.now.nbytes == form.HEADER_BYTES + 4 * (stop - start)
        assert codec.decode(split.now).tobytes() == vector[start:stop].tobytes()


def test_model_state_and_what_is_not_finite_are_always_important():
    spec = VectorSpec.of([("w", (60,))], [("mean", (10,)), ("var", (10,))])
    codec = dgt(k=0.4, block_bytes=4 * BLOCK)
    state = codec.init(spec.layers, spec.chunks(40))
    vector = np.full(80, 1e-3, np.float32)
    vector[[5, 45]] = 1.0, np.nan
    payloads, state = codec.encode(vector, state)
    # Blocks [0, 16) [16, 32) [32, 40), [40, 56) [56, 72) [72, 80): the NaN's, two that hold state,
    # and one of three others.
    assert important(codec, payloads) == [[0], [0, 1, 2]]
    assert np.isfinite(state.contribution).all()


def test_bytes_are_those_of_the_blocks_and_a_few():
    codec = dgt(k=0.8)
    split = codec.encode(normal(65_536), one_chunk(codec, 65_536))[0][0]
    assert split.now.nbytes == 16 + 51 * (4096 + 4)
    assert split.late.nbytes == 16 + 13 * (4096 + 4)
    assert codec.combine([split.now, split.late]).nbytes == 16 + 4 * 65_536


@pytest.mark.parametrize("tail", ["float32", "4bit"])
@pytest.mark.parametrize("block_bytes", [LEAST_BLOCK_BYTES, 4096, MOST_BLOCK_BYTES])
def test_a_datagram_holds_one_block_and_fits(block_bytes, tail):
    codec = dgt(k=0.5, channel="udp", block_bytes=block_bytes, tail=tail)
    size = 7 * block_bytes // 4 + 5
    split = codec.encode(normal(size), one_chunk(codec, size))[0][0]
    assert split.late.size == 0
    assert len(split.datagrams) == 4
    for payload in split.datagrams:
        assert len(form.unpack(payload).indices) == 1
        assert payload.nbytes + HEADER_BYTES + 16 <= MAX_DATAGRAM_BYTES
        assert payload.nbytes <= block_bytes + 28


# ---- the coarse tail


@given(seed=st.integers(0, 2**32), size=st.integers(1, 70), block=st.sampled_from([4, 16, 17]))
def test_a_coarse_element_is_within_half_a_bin(seed, size, block):
    rng = np.random.default_rng(seed)
    chunk = (rng.normal(size=size) * 10.0 ** rng.integers(-20, 20)).astype(np.float32)
    indices = np.sort(rng.permutation(form.count(size, block))[: rng.integers(1, 5)])
    blocks = form.gather(chunk, block, indices)
    payload, decoded = form.pack_coarse(blocks)
    again = form.unpack(payload)
    assert again.indices.tolist() == indices.tolist()
    assert again.values.tobytes() == decoded.tobytes()
    at = 0
    for length in form.lengths(size, block, indices):
        values, found = blocks.values[at : at + length], decoded[at : at + length]
        reach = max(values.max(), 0) - min(values.min(), 0)
        assert np.abs(found - values).max() <= reach / 32 * (1 + 1e-5)
        assert found.min() >= min(values.min(), 0)
        assert found.max() <= max(values.max(), 0)
        at += length


def test_the_largest_value_is_in_the_last_bin():
    chunk = np.arange(17, dtype=np.float32)
    _, decoded = form.pack_coarse(form.gather(chunk, 17, np.array([0])))
    width = np.float32(1)
    assert decoded.tolist() == [*(np.arange(16) + width / 2), 15.5]


def test_coarse_blocks_of_nothing_and_of_huge_values_are_right():
    huge = np.finfo(np.float32).max
    chunk = np.concatenate([np.zeros(4), [huge, -huge, 0, 1]]).astype(np.float32)
    _, decoded = form.pack_coarse(form.gather(chunk, 4, np.array([0, 1])))
    assert decoded[:4].tolist() == [0.0] * 4
    assert np.isfinite(decoded).all()
    np.testing.assert_allclose(decoded[4:6], chunk[4:6], rtol=0.07)


def test_what_rounding_took_off_is_sent_later():
    codec, state, _ = make(BLOCK * 4, k=0.5, tail="4bit")
    vectors = [normal(BLOCK * 4, seed) for seed in range(30)]
    sent = np.zeros(BLOCK * 4)
    for vector in vectors:
        [split], state = codec.encode(vector, state)
        sent += codec.decode(codec.combine([split.now, split.late]))
        # All that was offered is sent, but for the one residual of the last round.
    offered = np.sum(vectors, axis=0, dtype=np.float64)
    np.testing.assert_allclose(sent + state.residual, offered, atol=1e-4)
    assert 0 < np.abs(state.residual).max() < 0.3


# ---- adaptive k


def test_k_falls_with_the_loss_down_to_its_floor_and_never_rises_above_k():
    codec = dgt(k=0.8, k_min=0.3, adaptive=True, block_bytes=4 * BLOCK)
    state = one_chunk(codec, 10 * BLOCK)
    vector = heights(*range(1, 11))
    counts = []
    for loss in (None, 2.0, 1.0, float("nan"), 0.1, 4.0, 0.0):
        seen = state if loss is None else codec.observe(state, loss)
        payloads, state = codec.encode(vector, seen)
        counts.append(sum(map(len, important(codec, payloads))))
    assert counts == [8, 8, 4, 4, 3, 8, 8]
    assert float(state.loss_first) == 2.0


def test_only_an_adaptive_codec_asks_for_the_loss():
    assert dgt().observe is None


# ---- lost blocks


def lossy():
    codec = dgt(k=0.5, block_bytes=4 * BLOCK, channel="udp", lost="last")
    return codec, one_chunk(codec, 4 * BLOCK)


def test_a_lost_block_counts_as_its_last_value():
    codec, state = lossy()
    [split], state = codec.encode(heights(4, 3, 2, 1), state)
    filled, history = codec.fill(None, (), [split.now, *split.datagrams])
    assert filled is None, "nothing is missing"
    [split], state = codec.encode(heights(8, 7, 6, 5), state)
    filled, history = codec.fill(history, (), [split.now, split.datagrams[1]])
    assert codec.decode(filled).tolist() == heights(0, 0, 2, 0).tolist()
    # The lost one comes after all: it counts no more, but it is what is known now.
    late = split.datagrams[0]
    [split], state = codec.encode(heights(9, 9, 0, 0), state)
    filled, history = codec.fill(history, [late], [split.now])
    assert codec.decode(filled).tolist() == heights(0, 0, 6, 5).tolist()


def test_what_never_came_counts_as_zero():
    codec, state = lossy()
    [split], _ = codec.encode(heights(4, 3, 2, 1), state)
    filled, _ = codec.fill(None, (), [split.now])
    assert filled is None


# ---- refusals


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"k": 0.0}, "k"), ({"k": 1.1}, "k"), ({"k": float("nan")}, "k"),
        ({"k_min": 0.0}, "k_min"), ({"k": 0.5, "k_min": 0.6}, "k_min"),
        ({"alpha": 1.0}, "alpha"), ({"alpha": -0.1}, "alpha"),
        ({"block_bytes": 60}, "block_bytes"), ({"block_bytes": 66}, "block_bytes"),
        ({"block_bytes": 32 * 1024 + 4}, "block_bytes"),
        ({"tail": "8bit"}, "tail"), ({"channel": "sctp"}, "channel"),
        ({"lost": "mean"}, "lost"), ({"lost": "last"}, "lost"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused_with_its_key(settings, key):
    with pytest.raises(ConfigError, match=rf"compression\.{key} = "):
        build_codec(DgtConfig(**settings))


@pytest.mark.parametrize("cut", [3, 17, 40, 100])
def test_payloads_that_are_cut_short_are_refused(cut):
    codec, state, _ = make(CHUNK, k=0.5)
    payload = codec.encode(normal(CHUNK), state)[0][0].now
    with pytest.raises(FrameError, match="dgt payload"):
        codec.decode(payload[:cut])


def test_payloads_of_other_blocks_are_refused():
    codec, state, _ = make(CHUNK, k=0.5)
    other, others_state, _ = make(CHUNK, k=0.5, block_bytes=8 * BLOCK)
    ours = codec.encode(normal(CHUNK), state)[0][0].now
    theirs = other.encode(normal(CHUNK), others_state)[0][0].now
    assert (codec.elements(ours), other.elements(theirs)) == (CHUNK, CHUNK)
    with pytest.raises(FrameError, match="expected blocks of 16 elements, came 32"):
        codec.elements(theirs)
    with pytest.raises(FrameError, match="blocks of 16 elements, and of 32"):
        codec.combine([ours, theirs])
