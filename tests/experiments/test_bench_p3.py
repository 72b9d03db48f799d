"""The benchmark of P3 runs and prints its figures."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "experiments.bench.p3"]


def test_a_model_is_measured_without_and_with_it():
    small = ["--models", "synthetic", "--rounds", "6", "--chunk-elements", "16384"]
    done = subprocess.run(
        [*COMMAND, *small], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    assert len(rows) == 1
    name, serial, ideal, without, with_p3, gained, overlap, late = (
        cell.strip() for cell in rows[0][1:-1]
    )
    assert name == "synthetic"
    times = [float(cell.removesuffix(" s")) for cell in (ideal, with_p3, serial, without)]
    assert times == sorted(times)
    assert float(gained) > 0.9
    before, after = (float(share.rstrip("%")) for share in overlap.split(" → "))
    assert before == 0
    assert after > 50
    assert late == "0% → 0%"


def test_wrong_settings_are_refused_with_their_key():
    for wrong, key in ((["--models", "leaf"], "--models"), (["--skip", "12"], "--skip")):
        done = subprocess.run(
            [*COMMAND, *wrong], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 2
        assert key in done.stderr
