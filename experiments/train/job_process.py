"""What the process of a job does: it runs what its directory says, and ends with its parent."""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import signal
import sys
import threading
from types import FrameType

from experiments.runs import records, stored
from experiments.train import children
from experiments.train.job_warnings import job_warnings
from experiments.train.machine_lock import machine_lock
from geojax.config import RunConfig
from geojax.errors import GeojaxError, telling_of_machine

_orphaned = threading.Event()  # the parent is gone


def work(arguments: argparse.Namespace) -> None:
    """Runs the job; exits with 1 when the run failed, with 130 when it was interrupted.

    Args:
      arguments: those of :mod:`experiments.train.job`.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    if arguments.end_with_parent:
        threading.Thread(target=_follow_parent, daemon=True).start()
    run_dir = arguments.run_dir
    try:
        config = _configuration(run_dir / records.CONFIG, own=arguments.held)
        with (
            telling_of_machine(),
            contextlib.nullcontext() if arguments.held else records.claim(run_dir),
            job_warnings(arguments.name, run_dir),
        ):
            _run(config, run_dir, arguments.name, bar=not arguments.no_bar)
    except KeyboardInterrupt:
        sys.exit(130)
    except GeojaxError as error:
        named = f"{arguments.name}: " if arguments.name else ""
        print(f"error: {named}{error}", file=sys.stderr, flush=True)
        sys.exit(1)
    finally:
        children.tidy(1.0 if _orphaned.is_set() else 0.0)


def _configuration(path: pathlib.Path, *, own: bool) -> RunConfig:
    """What ``config.yaml`` says; ``own``: this version has just written it."""
    if own:
        return stored.read(path)
    from experiments.runs import schema

    return schema.load(path)


def _run(config: RunConfig, run_dir: pathlib.Path, name: str = "", *, bar: bool = True) -> None:
    from testbed import run as runner

    emulated = config.testbed.name == "emulated"
    try:
        with (
            telling_of_machine(),
            machine_lock(str(run_dir)) if emulated else contextlib.nullcontext(),
        ):
            summary = runner.run(config, run_dir, name, bar=bar)
    except GeojaxError as error:
        with contextlib.suppress(OSError):  # a full disk takes no record; it is told anyway
            records.fail(run_dir, config, str(error))
        raise
    except KeyboardInterrupt:
        records.fail(run_dir, config, "interrupted")
        raise
    except BaseException as error:
        # Recorded for the tables, then shown whole: this one is a defect, not a refusal.
        records.fail(run_dir, config, f"{type(error).__name__}: {error}")
        raise
    records.finish(run_dir, config, summary)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Ends the run once; a second signal must not cut its cleaning up short."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _follow_parent() -> None:
    """Interrupts this process when the parent is gone, even if it was killed outright."""
    while os.read(0, 1):
        pass
    _orphaned.set()
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
