"""One job of an invocation: a composed configuration in, a run in a child process out."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from experiments import command
from experiments.runs import records, schema
from experiments.train import children, cores, standing
from experiments.train.command_line import UsageError, refused
from geojax.config import RunConfig
from geojax.errors import GeojaxError, telling_of_machine


def job(composed: DictConfig) -> bool:
    """Runs the job; True when its run is finished, now or before."""
    command.plain_where_needed()
    chosen = HydraConfig.get()
    if composed.experiment == "default":
        composed.experiment = chosen.runtime.choices["experiment"]
    run_dir = pathlib.Path(chosen.runtime.output_dir)
    if chosen.mode != RunMode.MULTIRUN:
        try:
            config = schema.build(composed)
            _check(config)
            finished = execute(config, run_dir, search_in=run_dir.absolute().parent)
        except GeojaxError as error:
            sys.exit(refused(error))
        finally:
            with contextlib.suppress(OSError):
                run_dir.rmdir()  # only if nothing was written: the run was refused
        sys.exit(0 if finished else 1)
    if children.parallel():
        print(f"starts: {run_dir}", flush=True)
    number = int(chosen.job.num)
    folder = pathlib.Path(chosen.sweep.dir)
    finished = _sweep_job(composed, run_dir, folder, f"job {number}", chosen.launcher)
    if told := standing.ended(number):
        print(told, flush=True)
    return finished


def _sweep_job(
    composed: DictConfig,
    run_dir: pathlib.Path,
    sweep_dir: pathlib.Path,
    name: str,
    launcher: Mapping[str, Any],
) -> bool:
    """A job of a sweep: what goes wrong is recorded in its run directory, and the sweep goes on."""
    try:
        config = schema.build(composed)
        config.testbed.cores = cores.of_job(config.testbed, launcher)
    except GeojaxError as error:
        print(f"error: {run_dir}: {error}", file=sys.stderr, flush=True)
        if not records.used(run_dir):
            run_dir.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(composed, run_dir / records.CONFIG)
            refused = {"status": records.FAILED, "error": str(error), "seed": composed.seed}
            records.write_json(run_dir / records.SUMMARY, refused)
        children.mark_failed()
        return False
    run_dir = _unused(run_dir, config)
    try:
        _check(config)
        with telling_of_machine():
            return execute(config, run_dir, search_in=sweep_dir.absolute().parent, name=name)
    except GeojaxError as error:
        print(f"error: {run_dir}: {error}", file=sys.stderr, flush=True)
        if not records.used(run_dir):  # else it is another process's, or an earlier run's
            with contextlib.suppress(OSError):  # a full disk, which was told just now
                schema.save(config, run_dir / records.CONFIG)
                records.fail(run_dir, config, str(error))
        children.mark_failed()
        return False


def _check(config: RunConfig) -> None:
    from testbed.run import check

    log = logging.getLogger("geojax")
    log.setLevel(logging.ERROR)  # what there is to warn of is told by the job itself, by its name
    try:
        check(config)
    finally:
        log.setLevel(logging.NOTSET)


def execute(
    config: RunConfig, run_dir: pathlib.Path, *, search_in: pathlib.Path, name: str = ""
) -> bool:
    """Runs one validated configuration in a child process.

    Args:
      config: what to run.
      run_dir: a directory of its own for the run.
      search_in: with ``config.resume``, where finished and broken runs of it are looked for.
      name: of the job, among others of a sweep.

    Returns:
      True when the run is finished; False when it failed, which its ``summary.json`` explains.

    Raises:
      GeojaxError: the directory belongs to another run, or the run is in progress elsewhere.
    """
    target = run_dir
    if config.resume:
        finished, broken = records.search(search_in, config)
        if finished is not None:
            print(f"finished before: {finished}", flush=True)
            _point(run_dir, finished)
            return True
        target = broken or run_dir
    if target == run_dir and not (config.resume and records.belongs(run_dir, config)):
        _take(run_dir)
    with records.claim(target) as lock:
        _point(run_dir, target)
        (target / records.SUMMARY).unlink(missing_ok=True)
        schema.save(config, target / records.CONFIG)
        return _run(config, target, lock, name)


def _run(config: RunConfig, run_dir: pathlib.Path, lock: int, name: str) -> bool:
    try:
        code = children.run_job(run_dir, lock, name)
    except children.Stopped:
        _ensure_failed(config, run_dir, "interrupted")
        raise
    if code != 0:
        reason = f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        _ensure_failed(config, run_dir, f"the run's process {reason} without a summary")
    status = records.read_json(run_dir / records.SUMMARY).get("status")
    print(f"{status}: {run_dir}", flush=True)
    return status == records.FINISHED


def _ensure_failed(config: RunConfig, run_dir: pathlib.Path, error: str) -> None:
    if records.read_json(run_dir / records.SUMMARY).get("status") != records.FAILED:
        records.fail(run_dir, config, error)


def _point(run_dir: pathlib.Path, target: pathlib.Path) -> None:
    """Leaves word in a job's directory when its run lies in another one."""
    if target.resolve() != run_dir.resolve():
        records.point(run_dir, target)


def _take(run_dir: pathlib.Path) -> None:
    """Makes the directory this run's own, before anyone else does."""
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        if records.used(run_dir):
            raise FileExistsError
        (run_dir / records.CONFIG).touch(exist_ok=False)
    except FileExistsError as error:
        raise UsageError(
            f"{run_dir} holds another run, which is never overwritten: choose another directory"
        ) from error


def _unused(run_dir: pathlib.Path, config: RunConfig) -> pathlib.Path:
    """``run_dir``, or beside it a free name when a resumed sweep numbers its jobs differently."""
    free, count = run_dir, 1
    while records.used(free) and not records.belongs(free, config):
        count += 1
        free = run_dir.with_name(f"{run_dir.name}_{count}")
    free.mkdir(parents=True, exist_ok=True)
    return free
