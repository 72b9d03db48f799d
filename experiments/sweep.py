"""What happens around a sweep: its directory is protected before, its table printed after."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from experiments import records


class SweepReport(Callback):
    """Hydra callback of ``conf/config.yaml``; runs in the process that the user started.

    It ends the process where needed: Hydra itself would overwrite a sweep's records, and exits
    with 0 when jobs failed that did not raise.

    Args:
      table: print the comparison of the sweep's runs when all are done.
    """

    def __init__(self, table: bool = True):
        self.table = table

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Refuses a directory that holds another sweep, unless this one resumes it."""
        sweep_dir = pathlib.Path(config.hydra.sweep.dir)
        taken = sweep_dir.is_dir() and any(map(records.used, [sweep_dir, *sweep_dir.iterdir()]))
        if taken and not config.resume:
            print(
                f"error: hydra.sweep.dir = {str(sweep_dir)!r}: holds another sweep, which is never "
                "overwritten: choose another directory, or resume=true",
                file=sys.stderr,
            )
            sys.exit(2)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Prints the table, and exits with 1 when a job failed."""
        sweep_dir = pathlib.Path(config.hydra.sweep.dir)
        if self.table:
            from experiments import table

            table.show([sweep_dir])
            print(f"compare again: python -m experiments.table {sweep_dir}")
        jobs = [path for path in sorted(sweep_dir.iterdir()) if records.used(path)]
        statuses = [records.read_json(records.follow(job) / records.SUMMARY) for job in jobs]
        failed = sum(status.get("status") != records.FINISHED for status in statuses)
        if failed:
            print(f"{failed} of {len(jobs)} jobs failed", file=sys.stderr)
            sys.exit(1)
