"""Tables and pictures say what disturbed their runs, and count a seed once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from run_folders import write_run

from experiments.runs.rows import collect, group
from experiments.table import __main__ as table
from experiments.table.formats import FORMATS

FSA = {"sync.name": "fsa"}


def aged(folder, seconds):
    """Makes a run look older than it is."""
    os.utime(folder / "summary.json", (seconds, seconds))


@pytest.mark.parametrize("name", ["rich", "md", "latex", "csv", "json"])
def test_incidents_are_told_in_every_format(tmp_path, name):
    write_run(tmp_path / "0", FSA | {"seed": 0}, final_accuracy=0.9)
    write_run(tmp_path / "1", FSA | {"seed": 1}, final_accuracy=0.8,
              incidents={"deaths": {"c3": 1}, "returns": {"c3": 1}, "resumes": 1})  # fmt: skip
    text = FORMATS[name](table.build([tmp_path]))
    assert "1 of 2 runs: died: c3, came back: c3, resumed" in " ".join(text.split())


def test_incidents_are_told_side_by_side(tmp_path):
    write_run(tmp_path / "0", FSA, final_accuracy=0.9, incidents={"links_out": 2})
    built = table.build([tmp_path], side_by_side="testbed")
    assert built.values[0]["note"] == "simulated 2 links were out"


def test_the_newest_finished_run_of_a_seed_counts(tmp_path):
    write_run(tmp_path / "0", FSA | {"seed": 0}, final_accuracy=0.5)
    write_run(tmp_path / "1", FSA | {"seed": 0}, final_accuracy=0.7)
    write_run(tmp_path / "2", FSA | {"seed": 0}, status="failed", error="disk full")
    write_run(tmp_path / "3", FSA | {"seed": 1}, final_accuracy=0.9)
    for number, seconds in enumerate((2000, 1000, 3000, 500)):
        aged(tmp_path / str(number), seconds)
    (row,) = group(collect([tmp_path]))
    assert row.stat("final_accuracy") == (pytest.approx(0.7), pytest.approx(0.08**0.5), 2)
    assert (row.repeats, row.errors) == (2, [])
    built = table.build([tmp_path])
    assert built.values[0]["note"] == "2 runs of the same seed left out"
    assert any("n − 1" in note for note in built.notes)


def test_the_newest_failure_counts_where_no_run_finished(tmp_path):
    write_run(tmp_path / "0", FSA, status="failed", error="old")
    write_run(tmp_path / "1", FSA, status="failed", error="new")
    aged(tmp_path / "0", 1000)
    (row,) = group(collect([tmp_path]))
    assert row.errors == ["new"]


def test_seeds_are_those_that_succeeded(tmp_path):
    write_run(tmp_path / "0", FSA | {"seed": 0}, final_accuracy=0.5)
    write_run(tmp_path / "1", FSA | {"seed": 1}, status="failed", error="why")
    built = table.build([tmp_path])
    assert "1/2" in built.texts[0]


def test_a_terminal_of_ascii_gets_a_table(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / str(seed), FSA | {"seed": seed}, final_accuracy=0.5 + seed / 10)
    words = [sys.executable, "-m", "experiments.table", str(tmp_path)]
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, env=plain, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0.550 +/- 0.071" in done.stdout
