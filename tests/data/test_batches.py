"""Batches are full, cover every epoch and depend on their address alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.data import BatchOrder, batch_indices
from geojax.errors import ConfigError, DataError

counts = st.integers(1, 60)
batch_sizes = st.integers(1, 150)
seeds = st.integers(0, 2**40)
workers = st.integers(0, 1000)


@given(count=counts, batch_size=batch_sizes, seed=seeds, worker=workers, step=st.integers(0, 10**7))
def test_every_batch_is_full_and_within_the_part(count, batch_size, seed, worker, step):
    batch = batch_indices(count, batch_size, seed, worker, step)
    assert batch.dtype == np.int64
    assert batch.shape == (batch_size,)
    assert batch.min() >= 0
    assert batch.max() < count
    # a batch holds each sample as often as any other, to within the epochs that it cuts
    times = np.bincount(batch, minlength=count)
    assert times.max() - times.min() <= 2


@given(count=counts, batch_size=batch_sizes, seed=seeds, worker=workers)
def test_consecutive_batches_are_shuffled_epochs_without_a_gap(count, batch_size, seed, worker):
    order = BatchOrder(count, batch_size, seed, worker)
    epochs = 3
    steps = -(-epochs * count // batch_size)
    walked = np.concatenate([order(step) for step in range(steps)])[: epochs * count]
    for epoch in walked.reshape(epochs, count):
        assert sorted(epoch) == list(range(count))


@given(count=counts, batch_size=batch_sizes, seed=seeds, steps=st.lists(st.integers(0, 300)))
def test_a_batch_does_not_depend_on_those_asked_for_before(count, batch_size, seed, steps):
    order = BatchOrder(count, batch_size, seed, 1)
    for step in steps:
        np.testing.assert_array_equal(order(step), batch_indices(count, batch_size, seed, 1, step))


def test_seed_worker_and_epoch_each_change_the_order():
    reference = batch_indices(1000, 1000, 0, 0, 0)
    for other in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not np.array_equal(reference, batch_indices(1000, 1000, *other))


def test_the_order_is_pinned():
    # a change here changes every published run: it needs an entry in the CHANGELOG
    assert batch_indices(10, 12, 7, 3, 2).tolist() == [8, 5, 1, 0, 4, 9, 5, 4, 3, 8, 2, 1]


def test_a_batch_may_be_written_to_without_spoiling_the_next():
    order = BatchOrder(4, 2, 0, 0)
    order(0)[:] = -1
    np.testing.assert_array_equal(order(0), batch_indices(4, 2, 0, 0, 0))


def test_wrong_arguments_are_refused():
    with pytest.raises(DataError, match="worker 5 has 0 samples"):
        BatchOrder(0, 1, 0, 5)
    with pytest.raises(ConfigError, match="batch_size = 0"):
        BatchOrder(1, 0, 0, 0)
    with pytest.raises(ConfigError, match="seed = -1"):
        batch_indices(1, 1, -1, 0, 0)
    with pytest.raises(ValueError, match="step -1"):
        batch_indices(1, 1, 0, 0, -1)
