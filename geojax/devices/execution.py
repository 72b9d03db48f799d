"""How a base station makes the steps of a round: a call each, or all of them by one program.

========  ========================================================================================
loop      one call of the compiled step for each
scan      all steps of a round in one call (a ``while`` on the device); the batches of all of them
          are chosen before it
========  ========================================================================================

Who takes part depends on the devices' streams and never on the model, so both train on the same
batches; on a CPU their bits are the same too. ``auto`` is the faster one, as measured by ``python
-m experiments.bench.federated --executions fleet,loop`` (docs/fedgs.md has the table).
"""

from __future__ import annotations

from geojax.config import RunConfig
from geojax.models.registry import model_info
from geojax.sync.algorithm import SyncAlgorithm


def steps_together(config: RunConfig, algorithm: SyncAlgorithm, backend: str) -> int:
    """Steps of a base station that are one program; 1: each is a call.

    ``auto`` is ``scan``, but on a CPU for models that XLA computes slowly inside a loop
    (:class:`geojax.models.registry.ModelInfo`), and for ``devices.gradient=each``, whose gradients
    are summed on the host. For accelerators that is by reasoning, not by measurement.

    Where numbers of steps are decided while a round runs, steps are calls.

    Args:
      config: the run.
      algorithm: its synchronization, which says how steps are made and how many a round has.
      backend: platform of the devices, such as ``cpu``.
    """
    execution, policy = algorithm.execution, algorithm.local_steps
    if execution == "auto":
        able = backend != "cpu" or model_info(config.model).scans
        execution = "scan" if able and config.devices.gradient == "union" else "loop"
    return policy.steps(0) if execution == "scan" and policy.in_round is None else 1
