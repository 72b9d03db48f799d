"""How long one waits for the tool itself: ``python -m experiments.bench.startup``.

A row is one command, started so many times, in turn with the others, each time in fresh processes:
``--help``, a mistyped key, a mistyped choice, a key that the chosen member does not read, one small
run from end to end (``experiment=smoke``) and without training, and two of these as a sweep. Wall
time, and CPU time with that of the processes below it; both are medians. The first small run
compiles its programs, if no other has, and is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from rich.table import Table

from experiments.bench import report
from geojax.errors import GeojaxError

REFUSED = 2  # exit code
COMMANDS = {
    "--help": (["--help"], 0),
    "mistyped key": (["optimzer.lr=1"], REFUSED),
    "mistyped choice": (["overlay=stra"], REFUSED),
    "refused key": (["overlay.roots=3"], REFUSED),
    "synthetic run": (["model=synthetic", "rounds=2"], 0),
    "smoke": (["experiment=smoke"], 0),
    "sweep of two": (["-m", "experiment=smoke", "seed=0,1"], 0),
}


class Cost(NamedTuple):
    """What a command took, s."""

    wall: float
    cpu: float


def cost(words: list[str], expected: int) -> Cost:
    """Runs ``python -m experiments.train`` with these words.

    Raises:
      GeojaxError: it ended with another code than ``expected``.
    """
    command = [sys.executable, "-m", "experiments.train", *words]
    with tempfile.TemporaryDirectory() as folder:
        began, before = time.perf_counter(), os.times()
        run = subprocess.run(
            [*command, f"hydra.run.dir={folder}/run", f"hydra.sweep.dir={folder}/sweep"]
            if words != ["--help"] else command,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        wall, after = time.perf_counter() - began, os.times()
    if run.returncode != expected:
        raise GeojaxError(f"{' '.join(words)} ended with {run.returncode}: {run.stderr}")
    cpu = after.children_user + after.children_system
    return Cost(wall, cpu - before.children_user - before.children_system)


def measure(options: argparse.Namespace) -> Table:
    """Runs all commands in turn, as often as asked for."""
    chosen = {name: COMMANDS[name] for name in options.commands}
    found: dict[str, list[Cost]] = {name: [] for name in chosen}
    for repetition in range(options.repetitions + 1):
        for name, (words, expected) in chosen.items():
            took = cost(words, expected)
            if repetition:
                found[name].append(took)
    table = report.empty_table(
        f"medians of {options.repetitions}", ("command", "words", "wall", "CPU"), words=2
    )
    for name, costs in found.items():
        wall, cpu = (statistics.median(values) for values in zip(*costs, strict=True))
        table.add_row(name, " ".join(chosen[name][0]), f"{wall:.2f} s", f"{cpu:.2f} s")
    return table


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = report.parser("startup", __doc__)
    made.add_argument("--repetitions", type=int, default=5)
    made.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    return made


def main() -> None:
    """The command."""
    options = parser().parse_args()
    sys.exit(report.show(lambda: measure(options)))


if __name__ == "__main__":
    main()
