"""The constants of the simulator, as they were frozen before the new held-out cases were written.

Nothing is fitted on those cases: a constant that changes after them makes their verdict void, and
``docs/calibration.md`` then says so.
"""

from __future__ import annotations

from geojax.config import RunConfig

DATE = "2026-11-30"
VALUES = {
    "testbed.goodput_factor": 0.95,
    "testbed.rtt_bias": 0.5,
    "pace.encode_gbps": 4.0,
    "pace.sum_gbps": 4.0,
    "pace.outer_gbps": 2.0,
    "pace.plan_s": 0.01,
}


def today() -> dict[str, float]:
    """The defaults in ``geojax/config.py`` of the same keys."""
    config, found = RunConfig(), {}
    for path in VALUES:
        group, _, name = path.partition(".")
        found[path] = getattr(getattr(config, group), name)
    return found


def moved() -> list[str]:
    """Keys whose default is not the frozen one any more."""
    return [key for key, value in today().items() if value != VALUES[key]]
