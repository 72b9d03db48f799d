"""The benchmark of the delaying switch runs and prints its figures."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "experiments.bench.delay_switch"]


@pytest.mark.emulated
def test_a_small_ring_is_measured():
    small = ["--centers", "3", "--rate", "5", "--rtt", "10", "--seconds", "0.5"]
    done = subprocess.run(
        [*COMMAND, *small], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (0, 1), done.stderr  # 1: a goal is missed, on a busy machine
    assert "3 x 5 Mbit/s, 10 ms" in done.stdout
    assert "slowest flow, share of its rate" in done.stdout
    assert "delay error, p95" in done.stdout


def test_two_centers_are_no_ring():
    done = subprocess.run(
        [*COMMAND, "--centers", "2"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "a ring has at least 3" in done.stderr
