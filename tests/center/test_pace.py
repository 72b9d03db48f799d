"""Emulated durations of steps."""

from __future__ import annotations

import pytest

from geojax.center.pace import build_pace, step_seconds
from geojax.config import ModelConfig, PaceConfig, RunConfig
from geojax.errors import ConfigError
from geojax.models.registry import SyntheticConfig


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


@pytest.mark.parametrize(
    ("now", "end"), [(0.0, 6.0), (5.0, 6.0), (5.6, 12.0), (5.5, 6.0), (5.5 + 1e-9, 6.0)]
)
def test_steps_end_on_the_grid_and_never_early(now, end):
    config = RunConfig(model=SyntheticConfig(pace_s=0.5), pace=PaceConfig(grid_s=6.0))
    pace = build_pace(config, ["c1", "c2"], "c1")
    assert now + pace(3, now) == pytest.approx(end)


def test_a_step_without_duration_stays_where_it_is_on_the_grid():
    config = RunConfig(model=ModelConfig("synthetic"), pace=PaceConfig(grid_s=0.1))
    assert all(build_pace(config, ["c1"], "c1")(0, 0.1 * k) < 1e-9 for k in range(100))


def test_slow_members_end_on_the_grid_too():
    config = RunConfig(model=SyntheticConfig(pace_s=0.5))
    config.pace = PaceConfig(grid_s=2.0, centers={"c2": 5.0})
    ends = [build_pace(config, ["c1", "c2"], name)(0, 0.0) for name in ("c1", "c2")]
    assert ends == [2.0, 4.0]


@pytest.mark.parametrize(("grid", "p3"), [(0.0, False), (-1.0, False), (float("inf"), False),
                                          (1.0, True)])  # fmt: skip
def test_wrong_grids_are_refused(grid, p3):
    config = RunConfig(pace=PaceConfig(grid_s=grid))
    config.sync.p3 = p3
    with pytest.raises(ConfigError, match=r"pace\.grid_s = "):
        build_pace(config, ["c1"], "c1")
