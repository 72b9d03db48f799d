"""Keys that numpy makes are those of JAX."""

import jax
import numpy as np
import pytest

from geojax.center.keys import fold_in, seed_key, worker_key

SEEDS = [0, 1, 7, 123_456_789, 2**31 - 1, 2**31, 2**32 - 1]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("data", [0, 1, 5, 999, 2**31 + 3])
def test_seeds_and_what_is_folded_into_them(seed, data):
    key = jax.random.key(seed)
    folded = jax.random.fold_in(key, np.uint32(data))
    again = jax.random.fold_in(folded, np.uint32(data))
    mine = fold_in(seed_key(seed), data)
    made = seed_key(seed), mine, fold_in(mine, data)
    for found, wanted in zip(made, (key, folded, again), strict=True):
        assert found.dtype == np.uint32
        np.testing.assert_array_equal(found, jax.random.key_data(wanted))
    np.testing.assert_array_equal(worker_key(seed, data), mine)
