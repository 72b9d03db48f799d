"""Emulated durations of steps."""

from __future__ import annotations

import pytest

from geojax.center.pace import step_seconds
from geojax.config import ModelConfig, PaceConfig, RunConfig
from geojax.errors import ConfigError


@pytest.mark.parametrize(
    ("model", "pace", "seconds"),
    [
        (ModelConfig("demo_cnn"), PaceConfig(), 0.05),
        (ModelConfig("synthetic"), PaceConfig(), 0.0),
        (ModelConfig("demo_cnn", pace_s=0.2), PaceConfig(), 0.2),
        (ModelConfig("mlp", pace_s=0.0), PaceConfig(), 0.0),
        (ModelConfig("mlp"), PaceConfig(factor=3, centers={"c2": 2.0}), 0.03),
        (ModelConfig("mlp"), PaceConfig(factor=3, centers={"c1": 2.0}), 0.06),
    ],
)
def test_step_seconds(model, pace, seconds):
    config = RunConfig(model=model, pace=pace, batch_size=512)  # the batch does not matter
    assert step_seconds(config, "c1") == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("model", "pace", "message"),
    [
        (ModelConfig("mlp", pace_s=-1), PaceConfig(), r"model\.pace_s = -1"),
        (ModelConfig("mlp"), PaceConfig(factor=float("nan")), r"pace\.factor = nan"),
        (ModelConfig("mlp"), PaceConfig(centers={"c1": -2}), r"pace\.centers\.c1 = -2"),
        (ModelConfig("nlp"), PaceConfig(), "did you mean 'mlp'"),
    ],
)
def test_wrong_paces_are_refused(model, pace, message):
    with pytest.raises(ConfigError, match=message):
        step_seconds(RunConfig(model=model, pace=pace), "c1")
