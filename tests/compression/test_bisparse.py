"""Bi-Sparse over rounds: nothing is lost, and its special cases are codecs that exist."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.center.spec import VectorSpec
from geojax.compression.bisparse import bisparse
from geojax.compression.mpq import mpq
from geojax.compression.registry import CODECS, build_codec
from geojax.errors import ConfigError, Diverged

SPEC = VectorSpec.of([("w", (500,)), ("b", (7,)), ("v", (300,))], [("mean", (200,))])
CHUNK = 128


def normal(seed=0):
    return np.random.default_rng(seed).normal(size=SPEC.size).astype(np.float32)


def start(codec, spec=SPEC):
    return codec.init(spec.layers, spec.chunks(CHUNK))


def decoded(codec, payloads):
    return np.concatenate([codec.decode(payload) for payload in payloads])


@given(seed=st.integers(0, 999))
def test_without_limits_it_is_the_identity(seed):
    codec = bisparse(ratio=1.0, bound=0, momentum=0.0)
    state = start(codec)
    for number in range(2):
        values = normal([seed, number])
        payloads, state = codec.encode(values, state)
        assert decoded(codec, payloads).tobytes() == values.tobytes()


@pytest.mark.parametrize("make", [bisparse, mpq])
@given(ratio=st.sampled_from([0.01, 0.1, 0.7]), exact=st.booleans(), seed=st.integers(0, 999))
def test_what_was_sent_and_what_is_left_is_what_came_in(make, ratio, exact, seed):
    """On small integers, whose sums are exact."""
    codec = make(ratio=ratio, bound=10, momentum=0.0, exact=exact)
    state = start(codec)
    came, sent = np.zeros(SPEC.size), np.zeros(SPEC.size)
    for number in range(4):
        values = np.round(normal([seed, number]) * 5).astype(np.float32)
        payloads, state = codec.encode(values, state)
        came += values
        sent += decoded(codec, payloads)
    left = came - sent
    for layer in SPEC.layers:
        where = slice(layer.offset, layer.stop)
        if layer.name in ("w", "v"):
            residual = state.residual[("w", "v").index(layer.name)]
            assert left[where].tolist() == residual.tolist()
        else:
            assert not left[where].any()


def test_every_element_comes_at_last():
    """A constant gradient: the residual of each element grows until it is the largest."""
    codec = bisparse(ratio=0.05, bound=10, momentum=0.0, exact=True)
    state = start(codec)
    reached = np.zeros(SPEC.size, bool)
    for _ in range(60):
        payloads, state = codec.encode(np.linspace(1, 2, SPEC.size, dtype=np.float32), state)
        reached |= decoded(codec, payloads) != 0
    assert reached.all()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_momentum_grows_what_waits(momentum):
    """Why deltas take none: after w rounds an offer of 1 is sent as 1 + m + ... + mʷ."""
    spec = VectorSpec.of([("w", (20,))])
    codec = bisparse(ratio=0.05, bound=0, momentum=momentum)
    state, offer, sent = start(codec, spec), np.ones(20, np.float32), []
    for _ in range(20):
        payloads, state = codec.encode(offer, state)
        sent.append(decoded(codec, payloads).sum())
        offer = np.zeros(20, np.float32)
    powers = [sum(momentum**power for power in range(wait + 1)) for wait in range(20)]
    np.testing.assert_allclose(sent, powers, rtol=1e-5)
    assert not np.any(state.residual[0])  # masking: nothing comes of what was sent


@pytest.mark.parametrize(
    ("momentum", "gradients", "used"), [(None, True, 0.9), (None, False, 0.0), (0.5, False, 0.5)]
)
@pytest.mark.parametrize("name", ["bisparse", "mpq"])
def test_momentum_left_open_is_for_gradients_only(name, momentum, gradients, used):
    config = CODECS.settings(name, bound=10, momentum=momentum)
    codec = build_codec(config, gradients=gradients)
    _, state = codec.encode(normal(), start(codec))
    assert sum(len(layer) for layer in state.decayed) == (800 if used else 0)
    if used:
        unsent = state.residual[0] != 0
        np.testing.assert_array_equal(
            state.decayed[0][unsent], normal()[:500][unsent] * np.float32(used)
        )


def test_the_bound_is_one_rule_for_both():
    """A layer of exactly ``bound`` elements is large; model state never is."""
    for make in (bisparse, mpq):
        sizes = [len(layer) for layer in start(make(bound=300)).residual]
        assert sizes == [500, 300]
        assert [len(layer) for layer in start(make(bound=301)).residual] == [500]


def test_rounds_draw_different_samples_and_seeds_too():
    config = {"ratio": 0.05, "bound": 10, "momentum": 0.0}
    codec, other = bisparse(**config), bisparse(**config, seed=1)
    values = normal()
    state = start(codec)
    later = state._replace(round=state.round + 1)
    first = [payload.tobytes() for payload in codec.encode(values, state)[0]]
    assert first != [payload.tobytes() for payload in codec.encode(values, later)[0]]
    assert first != [payload.tobytes() for payload in other.encode(values, start(other))[0]]


@pytest.mark.parametrize("make", [bisparse, mpq])
@pytest.mark.parametrize("ratio", [0.02, 0.3])
def test_a_sum_unites_the_entries_and_turns_dense_where_that_is_shorter(make, ratio):
    codec = make(ratio=ratio, bound=10, momentum=0.0, exact=True)
    members = [codec.encode(normal(seed), start(codec))[0] for seed in range(8)]
    for chunk, (first, last) in enumerate(SPEC.chunks(CHUNK)):
        payloads = [payloads[chunk] for payloads in members]
        total, dense = codec.combine(payloads).nbytes, 4 * (last - first)
        assert max(payload.nbytes for payload in payloads) <= total
        assert total <= dense + 16 + 3 * 12
        if chunk == 0:  # nothing but entries
            assert (total < 0.7 * dense) if ratio == 0.02 else (total == dense + 16 + 12)


def test_mpq_stops_at_overflow_in_small_layers_only():
    values = normal()
    values[0], values[503] = 1e9, 1e5
    codec = mpq(bound=10, overflow="stop")
    with pytest.raises(Diverged, match=r"b: 1e\+05 is beyond the largest fp16, 65504"):
        codec.encode(values, start(codec))
    with pytest.raises(Diverged, match="b: 1e"):
        codec.lan.encode(values, codec.lan.init(SPEC.layers, SPEC.chunks(CHUNK)))
    clipping = mpq(bound=10)
    sent = decoded(clipping, clipping.encode(values, start(clipping))[0])
    assert (sent[0], sent[503]) == (np.float32(1e9), 65504.0)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ({"ratio": 0.0}, "ratio"),
        ({"ratio": 1.01}, "ratio"),
        ({"ratio": -0.1}, "ratio"),
        ({"ratio": float("nan")}, "ratio"),
        ({"bound": -1}, "bound"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": -0.1}, "momentum"),
        ({"overflow": "wrap"}, "overflow"),
    ],
)
@pytest.mark.parametrize("name", ["bisparse", "mpq"])
def test_settings_out_of_range_are_refused(name, setting, key):
    with pytest.raises(ConfigError, match=rf"compression\.{key} = "):
        build_codec(CODECS.settings(name, **setting))
