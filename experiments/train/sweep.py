"""What happens around a sweep: its directory is protected before, its table printed after."""

from __future__ import annotations

import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from experiments.runs import records
from experiments.train import children, standing
from geojax.errors import GeojaxError


class SweepReport(Callback):
    """Hydra callback of ``conf/config.yaml``; runs in the process that the user started.

    It ends the process where needed: Hydra itself would overwrite a sweep's records, and exits
    with 0 when jobs failed that did not raise.

    Args:
      table: print the comparison of the sweep's runs when all are done.
      columns: the figures that it shows, where they were measured; None: the table's own choice.
      baseline: settings of the rows that others are compared with, where the sweep has such rows.
    """

    def __init__(
        self,
        table: bool = True,
        columns: Sequence[str] | None = None,
        baseline: Mapping[str, Any] | None = None,
    ):
        self.table = table
        self.columns = None if columns is None else list(columns)
        self.baseline = {key: str(value) for key, value in (baseline or {}).items()}

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Refuses a directory that holds another sweep, unless this one resumes it; counts jobs."""
        sweep_dir = pathlib.Path(config.hydra.sweep.dir)
        taken = sweep_dir.is_dir() and records.outcomes(sweep_dir)[1]
        if taken and not config.resume:
            print(
                f"error: hydra.sweep.dir = {str(sweep_dir)!r}: holds another sweep, which is never "
                "overwritten: choose another directory, or resume=true",
                file=sys.stderr,
            )
            sys.exit(2)
        standing.begin(_jobs(config))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Prints the table, and exits with 1 when a job failed, whatever becomes of the table."""
        sweep_dir = pathlib.Path(config.hydra.sweep.dir)
        failed, jobs = records.outcomes(sweep_dir)
        refused = children.any_failed()
        try:
            if self.table:
                self._show(sweep_dir)
        except Exception as error:  # noqa: BLE001 - how the jobs ended is told anyway
            print(f"error: no table: {error}", file=sys.stderr)
        if failed:
            print(f"{failed} of {jobs} jobs failed", file=sys.stderr)
        elif refused:
            print("a job was refused, see above", file=sys.stderr)
        if failed or refused:
            sys.exit(1)

    def _show(self, sweep_dir: pathlib.Path) -> None:
        from experiments.runs.rows import collect
        from experiments.table import __main__ as table

        runs = collect([sweep_dir])
        columns = [c for c in self.columns or () if any(r.figure(c) is not None for r in runs)]
        words = ["python", "-m", "experiments.table", str(sweep_dir)]
        words += ["--columns", ",".join(columns)] if columns else []
        try:
            table.show([sweep_dir], columns=columns or None, baseline=self.baseline or None)
        except GeojaxError:
            if not self.baseline:
                raise
            table.show([sweep_dir], columns=columns or None)  # the baseline is not in this sweep
        else:
            pairs = [f"{key}={value}" for key, value in self.baseline.items()]
            words += ["--baseline", ",".join(pairs)] if pairs else []
        print(f"compare again: {shlex.join(words)}")


def _jobs(config: DictConfig) -> int | None:
    """How many jobs a sweep has; None where its sweeper decides that as it goes."""
    if not str(config.hydra.sweeper._target_).endswith(".BasicSweeper"):
        return None
    stated = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    return standing.count_jobs([*stated, *config.hydra.overrides.task])
