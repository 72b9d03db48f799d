"""NaN and infinity are found, and named by layer."""

import numpy as np
import pytest

from geojax.center.spec import VectorSpec

SPEC = VectorSpec.of(
    [("w", (300, 400)), ("empty", (0,)), ("b", (1,))], [("batch_stats/mean", (3,))]
)


def vector():
    values = np.random.default_rng(0).normal(size=SPEC.size).astype(np.float32)
    values[:4] = [np.finfo(np.float32).max, np.finfo(np.float32).min, 1e-45, -0.0]
    return values


def test_all_finite():
    assert SPEC.nonfinite(vector()) == []
    assert VectorSpec.of([]).nonfinite(np.zeros(0, np.float32)) == []


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_layers_are_named_in_their_order(bad):
    for at, names in [
        ([0], ["w"]),
        ([119_999], ["w"]),
        ([120_000], ["b"]),
        ([120_003], ["batch_stats/mean"]),
        ([120_001, 70_000, 5], ["w", "batch_stats/mean"]),
    ]:
        values = vector()
        values[at] = bad
        before = values.copy()
        assert SPEC.nonfinite(values) == names
        assert values.tobytes() == before.tobytes()
