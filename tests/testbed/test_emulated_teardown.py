"""However a run's process ends, nothing is left of it on the machine."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed.emulated.cleanup.state import default_folder
from testbed.emulated.interactive import down
from testbed.pids import Process, alive, identify

pytestmark = pytest.mark.emulated

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import json, subprocess, sys, time
from geojax.config import LanConfig
from testbed.emulated import EmulatedWan
from testbed.wan.build import build_wan, load_preset

wan = build_wan(load_preset("three_centers"), LanConfig(), 0)
with EmulatedWan(wan, run_id=sys.argv[1]) as emulated:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    emulated.popen("c2", ["sleep", "600"], **quiet)
    state = emulated._state
    watchdog = emulated._guard._watchdog.pid
    print(json.dumps([*state.shells, *state.others]), watchdog, flush=True)
    if sys.argv[2] == "raise":
        raise ValueError("in the middle")
    time.sleep(60)
"""


def begin(run_id, how="wait"):
    """A run in a process of its own: (process, what it made, its watchdog)."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, run_id, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    made, _, watchdog = process.stdout.readline().rpartition(" ")
    if not watchdog:
        pytest.fail(process.communicate()[1])
    return process, [Process(*entry) for entry in json.loads(made)], identify(int(watchdog))


def gone_within(seconds, processes, path):
    deadline = time.monotonic() + seconds
    while path.exists() or any(alive(process) for process in processes if process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def leftovers():
    return [path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith("g")]


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (signal.SIGINT, -signal.SIGINT),
        (signal.SIGTERM, 128 + signal.SIGTERM),
        (signal.SIGKILL, -signal.SIGKILL),
        (None, 1),
    ],
)
def test_nothing_is_left_however_the_run_ends(ending, status):
    before = leftovers()
    run_id = f"ends-{ending.name if ending else 'exception'}"
    process, made, watchdog = begin(run_id, "wait" if ending else "raise")
    assert len(made) == 6  # four namespaces, the forwarder, one process of ours
    if ending:
        process.send_signal(ending)
    errors = process.communicate(timeout=10)[1]
    assert process.returncode == status
    record = default_folder() / f"{run_id}.json"
    assert gone_within(10, [*made, watchdog], record)
    assert leftovers() == before
    if ending is None:
        assert "ValueError: in the middle" in errors


def test_down_removes_what_is_left_when_the_watchdog_died_too(capsys):
    process, made, watchdog = begin("no-watchdog")
    (sleeper,) = made[-1:]
    signals = [(watchdog.pid, signal.SIGKILL), (process.pid, signal.SIGKILL)]
    for pid, number in signals:
        subprocess.run(["kill", f"-{int(number)}", str(pid)], check=True)
    process.communicate(timeout=10)
    assert alive(sleeper)  # nobody is there to end it
    assert (default_folder() / "no-watchdog.json").exists()
    assert down(["no-watchdog"]) == 0
    assert "run no-watchdog: removed" in capsys.readouterr().out
    assert gone_within(1, made, default_folder() / "no-watchdog.json")


def test_down_ends_a_living_run_when_told_its_name(capsys):
    process, made, watchdog = begin("told-to-end")
    assert down(["told-to-end"]) == 0
    capsys.readouterr()
    process.communicate(timeout=10)
    assert gone_within(10, [*made, watchdog], default_folder() / "told-to-end.json")
