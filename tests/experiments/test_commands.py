"""Every command tells its options under the name by which it is started."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    *("train", "table", "plot", "calibrate", "compatibility", "demo"),
    *(f"bench.{name}" for name in ("awareness", "codecs", "delay_switch", "dgt", "overlays")),
    *(f"bench.{name}" for name in ("p3", "packing", "simulator", "unseen_writers", "wire")),
]


@pytest.mark.parametrize("name", [*(f"experiments.{name}" for name in COMMANDS), "testbed"])
def test_help_names_the_command(name):
    command = [sys.executable, "-m", name, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"python -m {name}" in done.stdout
