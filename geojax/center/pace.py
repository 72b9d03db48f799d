"""How long a local step lasts in emulated time; needs no JAX."""

from __future__ import annotations

import math

from geojax.config import RunConfig
from geojax.errors import ConfigError
from geojax.models.registry import model_info


def step_seconds(config: RunConfig, center: str) -> float:
    """Emulated duration of one local step of one worker of ``center``, s.

    The pace of the model (``model.pace_s``, or the model's own) times ``pace.factor`` times the
    center's own factor (``pace.centers``, 1 if absent). It belongs to one step of the configured
    batch, whatever its size.

    Raises:
      ConfigError: one of the numbers is negative or not finite.
    """
    base = config.model.pace_s
    values = {
        "model.pace_s": model_info(config.model.name).pace_s if base is None else base,
        "pace.factor": config.pace.factor,
        f"pace.centers.{center}": config.pace.centers.get(center, 1.0),
    }
    for key, value in values.items():
        if not math.isfinite(value) or value < 0:
            raise ConfigError(key, value, "write a finite number that is not negative")
    return math.prod(values.values())
