"""Stopping a run or a sweep ends its jobs, gives them time to clean up, and leaves nobody."""

from __future__ import annotations

import os
import pathlib
import select
import signal

import pytest

SWEEPS = {
    "run": ("rounds=99",),
    "sweep": ("-m", "rounds=99,2"),
    "joblib": ("-m", "rounds=99,99", "seed=1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
}
BOUND_S = 20


def started(process) -> tuple[int, pathlib.Path]:
    """The next job that reports itself: its process and its run directory."""
    for line in process.stdout:
        if line.startswith("started "):
            _, pid, run_dir = line.split()
            return int(pid), pathlib.Path(run_dir)
    raise AssertionError(process.stderr.read())


def ended(pid: int) -> bool:
    """Waits until a process that is not our child is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], BOUND_S)[0])
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("kind", "number"),
    [("run", signal.SIGINT), ("run", signal.SIGTERM), ("sweep", signal.SIGINT)],
)
def test_a_signal_ends_the_job_after_it_cleaned_up(commands, kind, number):
    process = commands.start(*SWEEPS[kind])
    pid, run_dir = started(process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=BOUND_S)
    assert process.returncode == 128 + number
    assert errors.endswith("stopped; resume=true goes on from here\n")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert (run_dir / "cleaned").exists()
    summary = commands.summary(str(run_dir))
    assert (summary["status"], summary["error"]) == ("failed", "interrupted")
    assert not (run_dir.parent / "1").exists()


def test_a_signal_ends_all_jobs_of_a_parallel_sweep(commands):
    process = commands.start(*SWEEPS["joblib"])
    jobs = [started(process), started(process)]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=BOUND_S)
    assert process.returncode == 128 + signal.SIGTERM
    for pid, run_dir in jobs:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert (run_dir / "cleaned").exists()


@pytest.mark.parametrize(("kind", "count"), [("run", 1), ("joblib", 2)])
def test_a_killed_parent_leaves_no_job_and_no_temporary_folder(commands, kind, count):
    process = commands.start(*SWEEPS[kind])
    jobs = [started(process) for _ in range(count)]
    assert list(commands.folder.glob("geojax-jobs-*"))  # TMPDIR of these commands
    process.kill()
    process.wait()
    for pid, run_dir in jobs:
        assert ended(pid)
        assert (run_dir / "cleaned").exists()
    process.stdout.close()
    process.stderr.close()
    assert not list(commands.folder.glob("geojax-jobs-*"))
