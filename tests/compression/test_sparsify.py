"""Which elements are picked: the plain kernel and its samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.compression.sparsify import Draw, budget_of, draw, numpy_kernel, sample_size


def normal(size, seed=0):
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def pick(values, drawn):
    """What is picked of a first gradient."""
    values = np.asarray(values, np.float32)
    return numpy_kernel(
        values, np.empty(0, np.float32), np.zeros(values.size, np.float32), drawn, 0.0
    )


def largest(values, count):
    """Positions of the largest magnitudes, equal ones in order."""
    order = np.argsort(-np.abs(values), kind="stable")
    return np.sort(order[:count])


@pytest.mark.parametrize(
    ("elements", "ratio", "size"),
    [
        (25_000_000, 0.01, 125_000),
        (200_000, 0.01, 1000),  # the last of ⌊10/r⌋, the first of 0.005·N
        (199_999, 0.01, 1000),
        (1_280, 0.001, 1_280),  # GeoMX reads beyond the layer here
        (1, 0.01, 1),
        (50, 1.0, 10),
    ],
)
def test_sample_sizes_are_geomx_and_never_beyond_the_layer(elements, ratio, size):
    assert sample_size(elements, ratio) == size


@pytest.mark.parametrize(
    ("elements", "ratio", "budget"), [(131_072, 0.01, 1310), (50, 0.01, 1), (100, 0.29, 29)]
)
def test_budget(elements, ratio, budget):
    assert budget_of(elements, ratio) == budget


def test_samples_are_drawn_anew_and_repeat_with_their_seed():
    def sample(seed):
        return draw(100_000, 0.01, False, np.random.default_rng(seed)).sample

    assert len(set(sample(1).tolist())) == 1000  # none twice
    assert sample(1).tolist() == sample(1).tolist()
    assert sample(1).tolist() != sample(2).tolist()


@given(st.integers(1, 400), st.sampled_from([0.01, 0.1, 0.5, 1.0]), st.integers(0, 99))
def test_exact_picks_are_the_largest(size, ratio, seed):
    values = np.round(normal(size, seed) * 2)  # many are equal, and many zero
    drawn = draw(size, ratio, True, np.random.default_rng(0))
    found = pick(values, drawn)
    wanted = largest(values, budget_of(size, ratio))
    assert found.positions.tolist() == [at for at in wanted if values[at]]
    assert found.values.tolist() == values[found.positions].tolist()


def test_too_many_that_pass_are_cut_to_the_largest_wherever_they_are():
    """GeoMX takes the first ones in order."""
    found = pick(np.arange(100), Draw(np.array([3, 1], np.int32), 1, 10))
    assert found.positions.tolist() == list(range(90, 100))


def test_of_equal_ones_the_first_are_taken():
    found = pick([1, 2, 1, 2, 1, 1], Draw(np.array([0], np.int32), 1, 4))
    assert found.positions.tolist() == [0, 1, 2, 3]


def test_fewer_that_pass_are_fewer_sent():
    found = pick(np.arange(100), Draw(np.array([97, 98], np.int32), 1, 10))
    assert found.positions.tolist() == [98, 99]


def test_zeros_are_not_sent_though_the_sample_holds_nothing_else():
    found = pick([0, 0, 5, 0], Draw(np.array([0, 1], np.int32), 1, 3))
    assert found.positions.tolist() == [2]


def test_a_sampled_threshold_sends_about_the_budget():
    sent = [
        pick(
            normal(1_000_000, seed), draw(1_000_000, 0.01, False, np.random.default_rng(seed))
        ).positions.size
        for seed in range(5)
    ]
    assert max(sent) <= 10_000
    assert min(sent) > 6_000


def test_momentum_follows_the_paper_step_by_step():
    """A loop over elements, after DGC's equations."""
    size, m = 50, 0.9
    u, v = [np.float32(0)] * size, [np.float32(0)] * size
    decayed, residual = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for number in range(6):
        gradient = normal(size, number)
        one = numpy_kernel(gradient, decayed, residual, Draw(None, 5, 5), m)
        decayed, residual = one.decayed, one.residual
        u = [np.float32(m) * a + g for a, g in zip(u, gradient, strict=True)]
        v = [a + b for a, b in zip(v, u, strict=True)]
        sent = largest(np.array(v), 5)
        assert one.positions.tolist() == sent.tolist()
        assert one.values.tolist() == [v[at] for at in sent]
        for at in sent:
            u[at] = v[at] = np.float32(0)
        assert residual.tolist() == v
        np.testing.assert_array_equal(decayed, np.float32(m) * np.array(u))


def test_its_arguments_are_left_alone():
    arrays = [normal(200, seed) for seed in range(3)]
    before = [array.copy() for array in arrays]
    one = numpy_kernel(*arrays, Draw(None, 20, 20), 0.9)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))
    assert not any(np.shares_memory(a, b) for a in one for b in arrays)
