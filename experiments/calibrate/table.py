"""All cases of the calibration, in the order of its tables."""

from __future__ import annotations

from experiments.calibrate.cases import Case
from experiments.calibrate.fitted import FITTED_CASES
from experiments.calibrate.held_out import HELD_OUT_CASES
from geojax.errors import ConfigError, nearest

CASES = (*FITTED_CASES, *HELD_OUT_CASES)


def chosen(names: list[str] | None) -> tuple[Case, ...]:
    """The cases of these names, in the table's order; None: all.

    Raises:
      ConfigError: there is no such case.
    """
    known = [case.name for case in CASES]
    for name in names or ():
        if name not in known:
            raise ConfigError("--only", name, nearest(name, known))
    return tuple(case for case in CASES if names is None or case.name in names)
