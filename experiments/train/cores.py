"""How many cores a job of a sweep computes with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.train import standing
from geojax.config import TestbedConfig


def of_job(testbed: TestbedConfig, launcher: Mapping[str, Any]) -> int | None:
    """``testbed.cores`` of each job: an equal part of the sweep's, and at least one.

    Args:
      testbed: what the sweep asks for.
      launcher: ``hydra.launcher``. One that starts jobs on this machine, beside each other, has
        ``n_jobs``, as joblib means it; others leave the cores alone.

    >>> launcher = {"_target_": "hydra_plugins.….JoblibLauncher", "n_jobs": 3}
    >>> of_job(TestbedConfig(cores=8), launcher), of_job(TestbedConfig(cores=2), launcher)
    (2, 1)
    """
    if testbed.name != "simulated" or not str(launcher["_target_"]).endswith(".JoblibLauncher"):
        return testbed.cores
    from testbed.simulated.cores import available

    at_once, jobs = launcher["n_jobs"] or 1, standing.jobs()
    if at_once < 0:  # -1: as many as there are cores; -2: one fewer; …
        at_once = max(1, available() + 1 + at_once)
    if jobs is not None:
        at_once = min(at_once, jobs)
    cores = available() if testbed.cores is None else testbed.cores
    return min(cores, max(1, cores // at_once))  # a wrong number is refused later, as it is
