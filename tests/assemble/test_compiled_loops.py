"""Where codecs take compiled loops, and that a run is the same with them."""

import pytest
from simulated_runs import simulated, small_config

from geojax.assemble import agreement
from geojax.assemble.agreement import WORTH_LOADING, compiled_loops
from geojax.compression import compiled
from geojax.config import ModelConfig, RunConfig
from geojax.models.registry import SyntheticConfig


@pytest.mark.parametrize("codec", ["fp16", "int8", "int4", "twobit", "bisparse"])
def test_a_run_is_the_same_with_either_loops(monkeypatch, codec):
    if not compiled.installed():
        pytest.skip("numba is not installed (the extra 'fast')")
    config = small_config(
        rounds=3, elements=3000, chunk_elements=1100, compression__name=codec, sync__name="fsa"
    )
    lines = []
    for loops in (False, True):
        asked = []

        def decided(_, elements, loops=loops, asked=asked):
            asked.append(elements)
            return loops

        monkeypatch.setattr(agreement, "compiled_loops", decided)
        outcome = simulated(config)
        assert set(asked) == {3000}
        assert len(outcome.finals) == 3
        lines.append(outcome.lines())
    assert lines[0] == lines[1]


def test_they_are_taken_where_they_pay_and_can_be_had(monkeypatch):
    real, synthetic = RunConfig(model=ModelConfig(name="mlp")), RunConfig(model=SyntheticConfig())
    monkeypatch.setattr(compiled, "installed", lambda: True)
    assert compiled_loops(real, WORTH_LOADING)
    assert not compiled_loops(real, WORTH_LOADING - 1)
    assert not compiled_loops(synthetic, WORTH_LOADING)
    monkeypatch.setattr(compiled, "installed", lambda: False)
    assert not compiled_loops(real, WORTH_LOADING)
