"""How long local steps last in emulated time; needs no JAX."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from geojax import fields
from geojax.center.paces import build_profile
from geojax.center.synthetic_layout import stage_paces
from geojax.config import RunConfig
from geojax.errors import ConfigError
from geojax.models.registry import model_info

_STEPS = 16  # that a worker's mean pace is taken over
_NEAR = 1e-9  # of a grid's interval: so near an end counts as being there

Pace = Callable[[int, float], float]
"""``pace(step, now)``: seconds that step number ``step`` lasts if it starts at experiment time
``now`` (s). Pure: the same arguments give the same duration, whatever was asked before."""


def step_seconds(config: RunConfig, center: str) -> float:
    """Emulated duration of one local step of one worker of ``center``, before profiles, s.

    The pace of the model (``model.pace_s``, or the sum of ``model.stage_paces``, or the model's
    own) times ``pace.factor`` times the center's own factor (``pace.centers``, 1 if absent). It
    belongs to one step of the configured batch, whatever its size.

    Raises:
      ConfigError: one of the numbers is negative or not finite, or they do not agree.
    """
    base = config.model.pace_s
    if base is None:
        paces = stage_paces(config.model)
        base = math.fsum(map(math.fsum, paces)) or model_info(config.model).pace_s
    values = {
        "model.pace_s": base,
        "pace.factor": config.pace.factor,
        f"pace.centers.{center}": config.pace.centers.get(center, 1.0),
    }
    what = "seconds of a step, or a factor"
    return math.prod(fields.number(key, n, what, zero=True) for key, n in values.items())


def build_pace(config: RunConfig, trainers: Sequence[str], name: str) -> Pace:
    """The pace of one worker: :func:`step_seconds` times the factor of ``pace.profile``.

    With ``pace.grid_s`` a step lasts on until the next multiple of that much experiment time.

    Args:
      config: the run.
      trainers: names of all workers of the run, in their order ("c1" or "c1/w0").
      name: whose pace.

    Raises:
      ConfigError: names the key, the value and the fix.

    >>> config = RunConfig()
    >>> config.pace.profile = {"kind": "two_groups", "h": 10}
    >>> pace = build_pace(config, ["c1", "c2"], "c2")
    >>> round(pace(0, 0.0), 6)  # demo_cnn's own pace is 0.05 s
    0.5
    """
    base = step_seconds(config, name.partition("/")[0])
    factor = build_profile(config.pace.profile, config.seed, trainers, name)
    grid = config.pace.grid_s
    if grid is None:
        return lambda step, now: base * factor(step, now)
    fields.number("pace.grid_s", grid, "the seconds of a grid's interval")
    if config.sync.p3:
        fix = "with sync.p3 gradients leave before a step ends; leave it out, or use sync.p3=false"
        raise ConfigError("pace.grid_s", grid, fix)

    def aligned(step: int, now: float) -> float:
        done = now + base * factor(step, now)
        return max(0.0, math.ceil(done / grid - _NEAR) * grid - now)

    return aligned


def relative_speeds(config: RunConfig, trainers: Sequence[str]) -> dict[str, float]:
    """The speed of each worker as a share of the fastest one's, before anything disturbs it.

    It goes by the mean duration of the first steps at experiment time 0, so that jitter averages
    out and later slow-downs do not count. Where no step takes time, all are equally fast.

    Args:
      config: the run.
      trainers: names of all workers of the run, in their order.

    >>> config = RunConfig()
    >>> config.pace.profile = {"kind": "two_groups", "h": 4}
    >>> relative_speeds(config, ["c1", "c2"])
    {'c1': 1.0, 'c2': 0.25}
    """
    means = {}
    for name in trainers:
        pace = build_pace(config, trainers, name)
        means[name] = math.fsum(pace(step, 0.0) for step in range(_STEPS)) / _STEPS
    fastest = min(means.values())
    return {name: fastest / mean if mean else 1.0 for name, mean in means.items()}
