"""Whole simulated runs along packed trees: the star's model, and a death on the way."""

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config


def packed(**settings):
    return small_config(wan="netstorm9_draw", elements=5000, chunk_elements=100, **settings)


def test_packed_trees_give_the_stars_model():
    runs = [simulated(packed(overlay__name=name)) for name in ("packing", "star")]
    one, other = runs
    assert len(set(one.finals.values())) == 1
    assert len(one.finals) == 9
    np.testing.assert_allclose(one.final, other.final, rtol=1e-5)
    (start,) = one.of("start")
    assert any("down" in tree for tree in start["policies"]["0"]["trees"])


@pytest.mark.parametrize("dead", ["c5", "c7"])  # c7 lies between c8, c6 and c5
def test_the_others_pack_anew_when_a_center_dies(dead):
    outcome = simulated(
        packed(overlay__name="packing", rounds=8, testbed__faults=[kill(dead, 0.4)])
    )
    assert set(outcome.finals) == {f"c{number}" for number in range(1, 10)} - {dead}
    assert {number for number, _ in outcome.finals.values()} == {7}
    assert len({digest for _, digest in outcome.finals.values()}) == 1
    assert outcome.of("epoch")
