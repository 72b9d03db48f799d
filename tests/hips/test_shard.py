"""A shard, against plain loops: optimizers, delay compensation, model state, checkpoints."""

import io

import numpy as np
import pytest

from geojax.center.optimizers import OPTIMIZERS
from geojax.center.outer import FlatOptimizer, PlainSgd
from geojax.config import OptimizerConfig
from geojax.errors import ConfigError
from geojax.hips.exchange.shard import Decoded, check_shards, shard_maker, shard_spec
from geojax.hips.storage.checkpoint import pack, unpack
from geojax.hollow import hollow, is_hollow
from geojax.sync.mixed_sync import mixed_sync

RANGES = [(0, 4), (4, 8), (8, 10)]
PARAMETERS = 7  # the last three elements are model state


def sgd(lr=0.5):
    return lambda spec: PlainSgd(lr, spec)


def optax_(**settings):
    chosen = OPTIMIZERS.settings(settings.pop("name", "sgd"), **settings)
    return lambda spec: FlatOptimizer(chosen, 0.1, spec)


def start():
    return np.arange(10, dtype=np.float32)


def shard_of(chunks=(0, 1, 2), *, outer=None, values=None, version=0, **algorithm):
    values = start() if values is None else values
    make = shard_maker(mixed_sync(**algorithm), RANGES, PARAMETERS, outer or sgd())
    return make(chunks, [values[slice(*RANGES[chunk])] for chunk in chunks], version)


def push(shard, center, vector, *, weight=1.0, living=1):
    """Pushes ``weight`` times the shard's part of a whole vector."""
    parts = [vector[slice(*RANGES[chunk])] * np.float32(weight) for chunk in shard.chunks]
    return shard.apply([Decoded(center, [(part, weight) for part in parts])], living)


def offers(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=10).astype(np.float32) for _ in range(count)]


def test_a_push_is_one_step_with_the_mean_of_what_was_offered():
    shard = shard_of()
    push(shard, "c1", np.ones(10, np.float32), weight=4.0)
    assert shard.vector[:PARAMETERS].tolist() == (start()[:PARAMETERS] - 0.5).tolist()
    assert shard.version == 1


def test_vectors_are_never_changed_in_place():
    shard = shard_of()
    answer = [part.copy() for part in shard.pieces()]
    kept = shard.pieces()
    push(shard, "c1", np.ones(10, np.float32))
    for part, before in zip(kept, answer, strict=True):
        assert part.tolist() == before.tolist()


def test_model_state_is_mixed_in_by_the_number_of_living_centers():
    shard = shard_of()
    push(shard, "c1", np.full(10, 19.0, np.float32), living=4)
    assert shard.vector[PARAMETERS:].tolist() == [7 + 12 / 4, 8 + 11 / 4, 9 + 10 / 4]
    alone = shard_of()
    push(alone, "c1", np.full(10, 19.0, np.float32), living=1)
    assert alone.vector[PARAMETERS:].tolist() == [19.0] * 3


def compensated(kind, lam, gradient, now, backup, memory):
    """The formulas of the paper, written out."""
    if kind == "adaptive":
        memory[:] = 0.95 * memory + 0.05 * gradient**2
        lam = lam / np.sqrt(memory + 1e-7)
    return gradient + lam * gradient**2 * (now - backup)


@pytest.mark.parametrize(("kind", "lam"), [("constant", 0.04), ("adaptive", 2.0)])
def test_each_center_has_a_backup_of_what_it_was_answered_last(kind, lam):
    shard = shard_of(compensation=kind)
    now = start()[:PARAMETERS].astype(np.float64)
    backups, memory = {}, np.zeros(PARAMETERS)
    order = ["c1", "c2", "c1", "c3", "c2", "c1", "c3", "c3"]
    for center, offered in zip(order, offers(len(order)), strict=True):
        push(shard, center, offered)
        gradient = offered[:PARAMETERS].astype(np.float64)
        backup = backups.get(center, now)
        now = now - 0.5 * compensated(kind, lam, gradient, now, backup, memory)
        np.testing.assert_allclose(shard.vector[:PARAMETERS], now, rtol=1e-5, atol=1e-5)
        if center != "c3":  # whose answer is held back
            shard.answered(center)
            backups[center] = now


def test_a_backup_is_kept_only_where_it_is_needed():
    plain, needs = shard_of(), shard_of(compensation="constant")
    for shard in (plain, needs):
        for center in ("c1", "c2"):
            push(shard, center, offers(1)[0])
            shard.answered(center)
    assert plain._backups == {}
    assert list(needs._backups) == ["c1", "c2"]
    needs.keep_only(["c2", "c3"])
    assert list(needs._backups) == ["c2"]


@pytest.mark.parametrize("kind", ["constant", "adaptive"])
def test_lambda_zero_is_no_compensation(kind):
    plain, zero = shard_of(), shard_of(compensation=kind, lam=0.0)
    for turn, offered in enumerate(offers(6)):
        for shard in (plain, zero):
            push(shard, f"c{turn % 2}", offered)
            shard.answered(f"c{turn % 3}")
    np.testing.assert_array_equal(plain.vector, zero.vector)


def adam(now, gradient, step, moments):
    """Kingma and Ba (2015), Algorithm 1, with learning rate 0.1."""
    moments[0] = 0.9 * moments[0] + 0.1 * gradient
    moments[1] = 0.999 * moments[1] + 0.001 * gradient**2
    unbiased = moments[0] / (1 - 0.9**step), moments[1] / (1 - 0.999**step)
    return now - 0.1 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)


def test_adam_has_one_state_for_the_pushes_of_all_centers():
    shard = shard_of(outer=optax_(name="adam"))
    now, moments = start()[:PARAMETERS].astype(np.float64), [0.0, 0.0]
    for turn, offered in enumerate(offers(5)):
        push(shard, f"c{turn % 2}", offered)
        now = adam(now, offered[:PARAMETERS].astype(np.float64), turn + 1, moments)
        np.testing.assert_allclose(shard.vector[:PARAMETERS], now, rtol=1e-5)


ELEMENTWISE = {
    "sgd": sgd(),
    "momentum": optax_(name="sgd", momentum=0.9),
    "adam": optax_(name="adam", weight_decay=0.01),
}


@pytest.mark.parametrize("outer", ELEMENTWISE.values(), ids=ELEMENTWISE.keys())
@pytest.mark.parametrize("kind", ["none", "constant", "adaptive"])
def test_two_shards_move_as_one_whatever_chunks_they_hold(outer, kind):
    one = shard_of(outer=outer, compensation=kind)
    two = [shard_of(chunks, outer=outer, compensation=kind) for chunks in ((0, 2), (1,))]
    for turn, offered in enumerate(offers(6)):
        for shard in (one, *two):
            push(shard, f"c{turn % 3}", offered, living=3)
            shard.answered(f"c{turn % 2}")
    parts = {c: part for shard in two for c, part in zip(shard.chunks, shard.pieces(), strict=True)}
    joined = np.concatenate([parts[chunk] for chunk in range(3)])
    np.testing.assert_allclose(joined, one.vector, rtol=1e-6)


def test_a_push_of_the_wrong_length_is_refused_and_its_center_named():
    with pytest.raises(ValueError, match=r"push of c2: .*\(10,\)"):
        shard_of().apply([Decoded("c2", [(np.zeros(9, np.float32), 1.0)])], 1)


def test_a_push_of_no_weight_changes_nothing_but_the_version():
    shard = shard_of(compensation="adaptive")
    push(shard, "c1", np.full(10, np.nan, np.float32), weight=0.0)
    assert shard.vector.tolist() == start().tolist()
    assert shard.version == 1
    assert not shard._state["mean_square"].any()


def test_a_shard_of_sizes_only_counts_versions():
    make = shard_maker(mixed_sync(), RANGES, PARAMETERS, sgd())
    shard = make((0, 1), [hollow(4), hollow(4)], 0)
    shard.apply([Decoded("c1", [(hollow(4), 1.0), (hollow(4), 1.0)])], 2)
    assert is_hollow(shard.vector)
    assert [is_hollow(part) for part in shard.pieces()] == [True, True]
    assert shard.version == 1


@pytest.mark.parametrize(
    ("chunks", "parameters"), [((0,), 4), ((1,), 3), ((2,), 0), ((0, 1, 2), 7), ((0, 2), 4)]
)
def test_the_layout_knows_which_elements_are_parameters(chunks, parameters):
    spec = shard_spec([RANGES[chunk] for chunk in chunks], PARAMETERS)
    assert spec.parameters == parameters
    assert spec.size == sum(stop - start for start, stop in (RANGES[c] for c in chunks))


def test_clipping_the_norm_is_refused_with_several_shards_only():
    clipped = OptimizerConfig(clip_norm=1.0)
    check_shards(clipped, 1)
    check_shards(OptimizerConfig(), 3)
    with pytest.raises(ConfigError, match=r"outer_optimizer\.clip_norm = 1\.0: no global server"):
        check_shards(clipped, 2)


@pytest.mark.parametrize("outer", [sgd(), optax_(name="adam")], ids=["sgd", "adam"])
@pytest.mark.parametrize("compensation", ["none", "constant", "adaptive"])
def test_a_shard_goes_on_from_a_checkpoint_bit_for_bit(outer, compensation):
    pushes = list(zip(["c1", "c2", "c1", "c3", "c1", "c2"], offers(6), strict=True))
    shard = shard_of(outer=outer, compensation=compensation)
    for center, offered in pushes[:3]:
        push(shard, center, offered, living=3)
        shard.answered(center)
    stream = io.BytesIO()
    pack(stream, shard.state())
    stream.seek(0)
    kept = unpack(stream)
    whole = np.concatenate(kept["values"])
    again = shard_of(
        kept["chunks"], outer=outer, values=whole, version=kept["version"],
        compensation=compensation,
    )  # fmt: skip
    again.load(kept)
    for center, offered in pushes[3:]:
        for each in (shard, again):
            push(each, center, offered, living=3)
            each.answered(center)
    np.testing.assert_array_equal(again.vector, shard.vector)
    assert again.version == shard.version == len(pushes)
