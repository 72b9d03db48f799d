"""What a second core brings to simulated training: ``python -m experiments.bench.cores``.

Nine centers train GeoMX's demo CNN on a simulated WAN, with ``testbed.cores`` 1 and 2 (or others)
in turn, each time in a fresh process. A row is one algorithm and one number of cores:

* ``wall``: from the end of the first round, when all is compiled, to the end of the run;
* ``busy``: CPU time ÷ wall time, so how many cores the process had: fewer than it asked for if
  others use the machine;
* ``loop``: CPU time of the event loop's thread, which computes no steps, ÷ all of it;
* ``faster``: wall time of the first number of cores ÷ this one's, the median over the repetitions;
* ``same``: whether events and final parameters are those of the first number, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from experiments.bench import report
from geojax.axes import change
from geojax.config import RunConfig
from testbed.compiled import compile_cache
from testbed.run import prepare
from testbed.simulated.run import simulate
from testbed.wan.build import load_preset

SYNCS: dict[str, dict[str, Any]] = {
    "fsa": {"sync": "fsa"},
    "local_steps": {"sync": "local_steps", "sync.local_steps": 10},
    "esync": {"sync": "esync", "pace.profile": {"kind": "two_groups", "h": 10}},
    "mixed_sync": {"sync": "mixed_sync"},
}


class Cost(NamedTuple):
    """What one run took, and a digest of all that it left."""

    wall_s: float
    busy: float
    loop: float
    digest: str


def configuration(options: argparse.Namespace, sync: str, cores: int) -> RunConfig:
    """The run that the command line asks for."""
    config = RunConfig(rounds=options.rounds, batch_size=64, eval_every_s=options.eval_every)
    config.wan = load_preset(options.wan)
    return change(
        config,
        {
            "model": options.model, "model.pace_s": 0.1, "data": options.data,
            "data.test_samples": options.test_samples, "testbed.cores": cores, **SYNCS[sync],
        },
    )  # fmt: skip


def cost(config: RunConfig) -> Cost:
    """Makes a run in this process."""
    began: list[float] = []
    digest = hashlib.sha256()

    def sink(event: dict[str, Any]) -> None:
        digest.update(json.dumps(event).encode())
        if not began and event["event"] == "round":
            began.extend(_clocks())

    with tempfile.TemporaryDirectory() as folder:
        setup, wan, faults = prepare(config, Path(folder))
        setup.models.mkdir()
        simulate(setup, wan, faults, sink)
        wall, cpu, loop = (end - start for start, end in zip(began, _clocks(), strict=True))
        digest.update((setup.models / "final.npy").read_bytes())
    return Cost(wall, cpu / wall, loop / cpu, digest.hexdigest())


def _clocks() -> tuple[float, float, float]:
    return time.perf_counter(), time.process_time(), time.thread_time()


def measure(options: argparse.Namespace, arguments: list[str]) -> Table:
    """Runs all rows in turn, as often as asked for."""
    every = [(sync, cores) for sync in options.syncs for cores in options.cores]
    found: dict[tuple[str, int], list[Cost]] = {each: [] for each in every}
    for _ in range(options.repetitions):
        for sync, cores in every:
            found[sync, cores].append(in_a_process(arguments, sync, cores))
    title = f"{options.model} on {options.wan}, {options.rounds} rounds"
    table = report.empty_table(title, ("sync", "cores", "wall", "busy", "loop", "faster", "same"))
    for sync, cores in every:
        mine, first = found[sync, cores], found[sync, options.cores[0]]
        faster = [one.wall_s / other.wall_s for one, other in zip(first, mine, strict=True)]
        table.add_row(
            sync, str(cores), f"{statistics.median(each.wall_s for each in mine):.1f} s",
            f"{statistics.median(each.busy for each in mine):.2f}",
            f"{statistics.median(each.loop for each in mine):.2f}",
            f"{statistics.median(faster):.2f}",
            "yes" if {each.digest for each in mine} == {first[0].digest} else "NO",
        )  # fmt: skip
    return table


def in_a_process(arguments: list[str], sync: str, cores: int) -> Cost:
    """Makes a run in a fresh process; ``arguments``: of the command line."""
    command = [sys.executable, "-m", "experiments.bench.cores", *arguments]
    command += ["--alone", "--syncs", sync, "--cores", str(cores)]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": compile_cache()}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return Cost(**json.loads(done.stdout))


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = report.parser("cores", __doc__)
    add, listed = made.add_argument, lambda text: text.split(",")
    add("--syncs", type=listed, default=["fsa"], help=f"algorithms, of {','.join(SYNCS)}")
    add("--cores", type=lambda text: [int(each) for each in listed(text)], default=[1, 2])
    add("--model", default="demo_cnn")
    add("--data", default="fashion_mnist")
    add("--test-samples", type=int, default=None, help="default: all")
    add("--wan", default="netstorm9_static")
    add("--rounds", type=int, default=20)
    add("--eval-every", type=float, default=5.0, help="s of experiment time")
    add("--repetitions", type=int, default=3)
    add("--alone", action="store_true", help="one run here, printed as JSON")
    return made


def main() -> None:
    """The command."""
    options = parser().parse_args()
    if options.alone:
        config = configuration(options, options.syncs[0], options.cores[0])
        print(json.dumps(cost(config)._asdict()))
        return
    sys.exit(report.show(lambda: measure(options, sys.argv[1:])))


if __name__ == "__main__":
    main()
