"""Starting jobs as fresh child processes, and ending all of them when the user says stop.

Jobs may be started by this process or by a launcher's worker processes (joblib). All of them
register in one folder, named by an environment variable that the workers inherit, so that the
process which the user stops can ask every job to end and wait until each has cleaned up.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from types import FrameType

GRACE_S = 20.0  # wall time that a job gets to clean up before it is killed
_FOLDER = "GEOJAX_JOBS"
_STOP, _FAILED = "stop", "failed"
RAN = "ran-"  # and a number: a job that came to its end
_own: set[int] = set()  # jobs that this very process has to reap
_owners: set[int] = set()  # this process, when it is the one that the user started


class Stopped(BaseException):
    """The user asked to stop; like KeyboardInterrupt, no ordinary handler catches it.

    Attributes:
      number: the signal's number.
    """

    def __init__(self, number: int):
        self.number = number
        super().__init__(signal.Signals(number).name)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """In the process that the user started: passes SIGINT and SIGTERM to all jobs within.

    Raises:
      Stopped: a signal came; when it is raised, jobs of other processes have ended.
    """
    with tempfile.TemporaryDirectory(prefix="geojax-jobs-") as folder, _locked(folder):
        os.environ[_FOLDER] = folder
        _owners.add(os.getpid())

        def stop(number: int, _frame: FrameType | None) -> None:
            for each in (signal.SIGINT, signal.SIGTERM):  # asking twice changes nothing
                signal.signal(each, signal.SIG_IGN)
            (pathlib.Path(folder) / _STOP).touch()
            _end_all(pathlib.Path(folder), number)
            raise Stopped(number)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            _owners.discard(os.getpid())
            os.environ.pop(_FOLDER, None)


def tidy(patience_s: float) -> None:
    """At a job's end: removes the sweep's folder if the sweep's process was killed.

    Args:
      patience_s: how long that process may take to let go of the folder: while it ends, the kernel
        closes what the job saw close first.
    """
    folder, deadline = os.environ.get(_FOLDER, ""), time.monotonic() + patience_s
    while True:
        try:
            with _locked(folder):
                shutil.rmtree(folder)
                return
        except FileNotFoundError:
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return
        time.sleep(0.02)


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Holds a folder; the kernel lets go of it when the process ends, however it ends.

    Raises:
      BlockingIOError: another process holds it.
      FileNotFoundError: there is no such folder.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def folder() -> pathlib.Path | None:
    """Where jobs of this sweep register; None on another machine, where a cluster ends them."""
    named = os.environ.get(_FOLDER, "")
    return pathlib.Path(named) if os.path.isdir(named) else None


def parallel() -> bool:
    """Whether jobs are started by a launcher's worker processes, and may run beside each other."""
    return folder() is not None and os.getpid() not in _owners


def run_job(run_dir: pathlib.Path, lock: int | None = None, name: str = "") -> int:
    """Runs ``experiments.train.job`` on a run directory in a fresh process and waits for it.

    Args:
      run_dir: the directory.
      name: of the job, for what it tells; jobs that run beside each other show no bar.
      lock: the descriptor that holds it (see :func:`experiments.runs.records.claim`), which the
        process inherits; None: it claims the directory itself.

    Returns:
      The exit code; negative: ended by that signal.
    """
    shared = _shared_folder()
    if shared and (shared / _STOP).exists():
        return -signal.SIGINT
    command = [sys.executable, "-m", "experiments.train.job", str(run_dir), "--end-with-parent"]
    # A session of its own: a terminal's Ctrl-C reaches the job once, through us. The pipe is never
    # written to; it closes when this process ends, and the job then ends itself.
    held = () if lock is None else (lock,)
    command += ["--held"] if held else []
    command += [f"--name={name}"] if name else []
    command += ["--no-bar"] if parallel() else []
    job = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, pass_fds=held)
    entry = shared / str(job.pid) if shared else None
    _own.add(job.pid)
    try:
        if entry:
            entry.touch()
        code = job.wait()
        if shared:
            (shared / f"{RAN}{job.pid}").touch()
        return code
    except Stopped:
        _wait_or_kill(job)
        raise
    finally:
        _own.discard(job.pid)
        if entry:
            entry.unlink(missing_ok=True)
        if job.stdin:
            job.stdin.close()


def mark_failed() -> None:
    """Leaves word for the sweep's process that a job failed, also where it left no summary."""
    shared = _shared_folder()
    if shared:
        (shared / _FAILED).touch()


def any_failed() -> bool:
    """Whether a job of this sweep called :func:`mark_failed`."""
    shared = _shared_folder()
    return bool(shared and (shared / _FAILED).exists())


def _shared_folder() -> pathlib.Path | None:
    """:func:`folder`, in the sweep's process or in a worker, which it makes one."""
    if parallel():
        _become_worker()
    return folder()


@functools.cache
def _become_worker() -> None:
    """Makes a launcher's worker process leave signals to the sweep's process, and end with it."""
    if threading.current_thread() is threading.main_thread():
        # The user's process signals the jobs and waits for them; here the waiting just goes on.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(sweep: int) -> None:
    """Ends this worker soon after the sweep's process was killed; closed pipes end its jobs."""
    while os.getppid() == sweep:
        time.sleep(1.0)
    os._exit(1)


def _wait_or_kill(job: subprocess.Popen) -> None:
    try:
        job.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        print(f"job {job.pid} did not end within {GRACE_S:.0f} s: killed", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()


def _end_all(folder: pathlib.Path, number: int) -> None:
    """Signals every registered job; waits for those that other processes have to reap."""
    for pid in _registered(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    deadline = time.monotonic() + GRACE_S
    while (others := _registered(folder) - _own) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in others:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _registered(folder: pathlib.Path) -> set[int]:
    return {int(path.name) for path in folder.iterdir() if path.name.isdigit()}
